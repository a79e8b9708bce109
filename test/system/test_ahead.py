"""Order, and how far ahead."""

from collections.abc import Iterator

import pytest

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


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_an_error_among_the_items_comes_after_the_results_before_it(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError('no more')

    results = map_ahead(str, items(), workers)
    assert [next(results) for _ in range(3)] == ['0', '1', '2']
    with pytest.raises(ValueError, match='no more'):
        next(results)


def test_without_workers_nothing_is_computed_ahead() -> None:
    started = []
    results = map_ahead(started.append, range(5), 0)
    next(results)
    assert started == [0]
