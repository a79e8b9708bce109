"""What the node counts and times, and its health as diagnostics."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
WINDOW = 100  # frames that percentiles are taken over
RECENT_S = 10.0  # what happened within is worth a warning, and rates are taken over
SILENT_S = 3.0  # without a frame from the camera


class FrameStatistics:
    """Counts of frames, and the times of the last ones; safe across threads.

    Attributes:
        received: frames that came in.
        unwanted: not worked on, since nobody subscribed to a result.
        rejected: that could not be used.
        failed: lost to an error in the segmentation.
        published: that led to a result.
        clouds: that led to points, mask or depth as well.
        without_depth: that could not, though somebody wanted them.
    """

    def __init__(self) -> None:
        self.received = 0
        self.unwanted = 0
        self.rejected = 0
        self.failed = 0
        self.published = 0
        self.clouds = 0
        self.without_depth = 0
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._finished: deque[float] = deque()
        self._timings_ms: dict[str, deque[float]] = {}

    def count(self, what: str) -> None:
        """Count a frame under one of the attributes."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)
            self._last[what] = time.monotonic()

    def add_result(self, timings_ms: Mapping[str, float]) -> None:
        """Count a published result with its times by stage."""
        self.count('published')
        with self._lock:
            self._finished.append(time.monotonic())
        self.add_times(timings_ms)

    def add_times(self, timings_ms: Mapping[str, float]) -> None:
        """Add times by stage to the windows."""
        with self._lock:
            for stage, duration in timings_ms.items():
                self._timings_ms.setdefault(stage, deque(maxlen=WINDOW)).append(duration)

    def since(self, what: str) -> float:
        """Return the seconds since a frame was last counted so; infinite where none was."""
        return time.monotonic() - self._last.get(what, float('-inf'))

    def rate_hz(self) -> float:
        """Return the results per second of the last ten seconds."""
        with self._lock:
            while self._finished and self._finished[0] < time.monotonic() - RECENT_S:
                self._finished.popleft()
            return len(self._finished) / RECENT_S

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


@dataclass(frozen=True)
class Health:
    """What decides how the node is.

    Attributes:
        state: of the lifecycle.
        last_error: that kept the node from its work; empty where there is none.
        wanted: whether frames are to be worked on: someone subscribes, or `lazy` is off.
        active_s: since activation.
        silent_s: since the last frame came in.
        resultless_s: since the last result.
        rejected_s: since a frame was rejected.
        failed_s: since a frame was lost to an error.
        restarted_s: since the worker had to be started anew.
        classes: in the list in force.
        asking_error: why subclasses can't be asked for; empty where they can, or needn't.
        depth_error: why there are no points; empty where there are, or needn't be.
    """

    state: str
    last_error: str = ''
    wanted: bool = True
    active_s: float = 0.0
    silent_s: float = 0.0
    resultless_s: float = 0.0
    rejected_s: float = float('inf')
    failed_s: float = float('inf')
    restarted_s: float = float('inf')
    classes: int = 1
    asking_error: str = ''
    depth_error: str = ''


def judge(health: Health) -> tuple[bytes, str]:
    """Return level and message: what hinders the node, what hinders it most first."""
    if health.state == 'unconfigured' and health.last_error:
        return ERROR, f'not configured: {health.last_error}'
    if health.state != 'active':
        return OK, health.state
    if found := list(problems(health)):
        return found[0][0], '; '.join(message for _, message in found)
    if not health.classes:
        return OK, 'no classes: everything is background'
    if not health.wanted:
        return OK, 'idle: nobody subscribes'
    return OK, 'segmenting'


def problems(health: Health) -> Iterator[tuple[bytes, str]]:
    """Yield level and message of everything that hinders an active node, the worst first."""
    if health.restarted_s < RECENT_S:
        yield ERROR, 'the worker thread had died and was started anew'
    without_result = health.failed_s < health.resultless_s
    if health.failed_s < RECENT_S and without_result:
        yield ERROR, f'frames are lost: {health.last_error}'
    if min(health.silent_s, health.active_s) > SILENT_S:
        yield STALE, f'no frame for {min(health.silent_s, health.active_s):.0f} s'
    if health.failed_s < RECENT_S and not without_result:
        yield WARN, f'a frame was lost: {health.last_error}'
    if health.rejected_s < RECENT_S:
        yield WARN, 'frames are rejected, the log says why'
    if health.depth_error:
        yield WARN, health.depth_error
    if health.asking_error:
        yield WARN, f'no subclasses from the language model: {health.asking_error}'


def make_status(
    name: str, hardware_id: str, health: Health, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Make the message of a node's health, with values to look up."""
    level, message = judge(health)
    return status_message(name, hardware_id, level, message, values)


def status_message(
    name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Make the message of a node's level and values."""
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=format_value(value)) for key, value in values.items()],
    )


def format_value(value: object) -> str:
    """Write a number with three digits after the point at most, all else as it is."""
    return f'{value:.3f}'.rstrip('0').rstrip('.') if isinstance(value, float) else str(value)
