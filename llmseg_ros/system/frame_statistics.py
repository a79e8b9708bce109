"""What becomes of frames, and how long it takes."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Mapping

WINDOW = 100  # frames that percentiles are taken over
RATE_S = 10.0  # that rates are taken over
SHORTEST_S = 1.0  # the same at the beginning


class FrameStatistics:
    """Counts of frames, and the times of the last ones; safe across threads.

    Args:
        total: where everything is counted as well, of several cameras together.

    Attributes:
        received: frames that came in.
        dropped: that gave way to a newer one, or were waiting when the work stopped.
        above_rate: not worked on, since the rate asked for is lower.
        unwanted: not worked on, since nobody subscribed to a result.
        rejected: that could not be used.
        failed: lost to an error in the segmentation.
        published: that led to a result.
        clouds: that led to points, mask or depth as well.
        without_depth: that could not, though somebody wanted them.
    """

    def __init__(self, total: FrameStatistics | None = None) -> None:
        self.received = 0
        self.dropped = 0
        self.above_rate = 0
        self.unwanted = 0
        self.rejected = 0
        self.failed = 0
        self.published = 0
        self.clouds = 0
        self.without_depth = 0
        self._total = total
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._first: float | None = None
        self._finished: deque[float] = deque()
        self._timings_ms: dict[str, deque[float]] = {}

    def count(self, what: str) -> None:
        """Count a frame under one of the attributes."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)
            self._last[what] = now = time.monotonic()
            if what == 'published':
                self._finished.append(now)
                self._first = now if self._first is None else self._first
        if self._total is not None:
            self._total.count(what)

    def add_result(self, timings_ms: Mapping[str, float]) -> None:
        """Count a published result with its times by stage."""
        self.count('published')
        self.add_times(timings_ms)

    def add_times(self, timings_ms: Mapping[str, float]) -> None:
        """Add times by stage to the windows."""
        with self._lock:
            for stage, duration in timings_ms.items():
                self._timings_ms.setdefault(stage, deque(maxlen=WINDOW)).append(duration)
        if self._total is not None:
            self._total.add_times(timings_ms)

    def since(self, what: str) -> float:
        """Return the seconds since a frame was last counted so; infinite where none was."""
        return time.monotonic() - self._last.get(what, float('-inf'))

    def rate_hz(self) -> float:
        """Return the results per second of the last ten seconds, or since the first result."""
        now = time.monotonic()
        with self._lock:
            while self._finished and self._finished[0] < now - RATE_S:
                self._finished.popleft()
            span_s = min(RATE_S, now - self._first) if self._first is not None else RATE_S
            return len(self._finished) / max(span_s, SHORTEST_S)

    def percentiles_ms(self) -> dict[str, tuple[float, float]]:
        """Return median and 95th percentile by stage over the last frames."""
        with self._lock:
            windows = {stage: sorted(times) for stage, times in self._timings_ms.items()}
        return {
            stage: (statistics.median(times), times[(95 * len(times) - 1) // 100])
            for stage, times in windows.items()
        }

    def forget_times(self) -> None:
        """Empty the windows, as after a jump of the clock."""
        with self._lock:
            self._timings_ms.clear()
        if self._total is not None:
            self._total.forget_times()
