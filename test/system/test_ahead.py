"""Order, and how far ahead."""

from llmseg_ros.system.ahead import map_ahead


def test_map_ahead_keeps_the_order_and_reads_little_ahead() -> None:
    started = []

    def double(item: int) -> int:
        started.append(item)
        return 2 * item

    results = map_ahead(double, range(100), workers=3)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(started) <= 5 + 2 * 3
    assert list(results) == list(range(10, 200, 2))
