"""What becomes of frames, and how long it takes."""

from __future__ import annotations

import time

import pytest

from llmseg_ros.system.frame_statistics import FrameStatistics


def test_percentiles() -> None:
    statistics = FrameStatistics()
    for duration in range(1, 21):
        statistics.add_result({'encode': float(duration), 'total': 2.0})
    assert statistics.percentiles_ms() == {'encode': (10.5, 19.0), 'total': (2.0, 2.0)}
    assert statistics.published == 20


def test_rate_is_since_the_first_result() -> None:
    statistics = FrameStatistics()
    assert statistics.rate_hz() == 0
    for _ in range(20):
        statistics.add_result({})
    assert statistics.rate_hz() == 20
    time.sleep(1.25)
    assert statistics.rate_hz() == pytest.approx(16, rel=0.1)


def test_what_never_happened_is_infinitely_long_ago() -> None:
    statistics = FrameStatistics()
    assert statistics.since('rejected') == float('inf')
    statistics.count('rejected')
    assert statistics.since('rejected') < 5


def test_what_is_counted_of_a_part_is_counted_of_the_whole() -> None:
    total = FrameStatistics()
    parts = [FrameStatistics(total), FrameStatistics(total)]
    parts[0].count('received')
    for part, total_ms in zip(parts, (10.0, 30.0), strict=True):
        part.add_result({'total': total_ms})
    assert (total.received, total.published, parts[0].published) == (1, 2, 1)
    assert total.rate_hz() == pytest.approx(2 * parts[0].rate_hz(), rel=0.1)
    assert total.percentiles_ms() == {'total': (20.0, 30.0)}
    assert parts[1].percentiles_ms() == {'total': (30.0, 30.0)}
    assert parts[1].since('received') == float('inf')
