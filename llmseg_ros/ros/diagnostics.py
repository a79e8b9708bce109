"""What the node counts and times, and its health as diagnostics."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Mapping

WINDOW = 100  # frames that rates and percentiles are taken over


class FrameStatistics:
    """Counts of frames, and the times of the last ones; safe across threads.

    Attributes:
        received: frames that came in.
        unwanted: not worked on since nobody subscribed to a result.
        rejected: that could not be used.
        failed: whose segmentation raised.
        published: that led to a result.
    """

    def __init__(self) -> None:
        self.received = 0
        self.unwanted = 0
        self.rejected = 0
        self.failed = 0
        self.published = 0
        self._lock = threading.Lock()
        self._timings_ms: dict[str, deque[float]] = {}
        self._finished: deque[float] = deque(maxlen=WINDOW)

    def add_result(self, timings_ms: Mapping[str, float]) -> None:
        """Count a published result with its wall time by stage."""
        with self._lock:
            self.published += 1
            self._finished.append(time.monotonic())
            for stage, duration in timings_ms.items():
                self._timings_ms.setdefault(stage, deque(maxlen=WINDOW)).append(duration)

    def rate_hz(self) -> float:
        """Return results per second over the window; 0 where there are none of late."""
        with self._lock:
            times = [t for t in self._finished if t > time.monotonic() - 10]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def percentiles_ms(self) -> dict[str, tuple[float, float]]:
        """Return median and 95th percentile by stage over the window."""
        with self._lock:
            windows = {stage: sorted(times) for stage, times in self._timings_ms.items()}
        return {
            stage: (statistics.median(times), times[min(len(times) - 1, 95 * len(times) // 100)])
            for stage, times in windows.items()
        }
