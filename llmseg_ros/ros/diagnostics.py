"""The node's health as diagnostics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from llmseg_ros.system.frame_statistics import FrameStatistics

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
RECENT_S = 10.0  # what happened within is worth a warning
SILENT_S = 3.0  # without a frame from the camera


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
        cameras: how each of several does, by name.
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
    cameras: Mapping[str, Health] = field(default_factory=dict)


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
    yield from problems_of_cameras(health.cameras)
    if health.rejected_s < RECENT_S:
        yield WARN, 'frames are rejected, the log says why'
    if health.depth_error:
        yield WARN, health.depth_error
    if health.asking_error:
        yield WARN, f'no subclasses from the language model: {health.asking_error}'


def problems_of_cameras(cameras: Mapping[str, Health]) -> Iterator[tuple[bytes, str]]:
    """Yield the problems of each camera; no more than a warning unless all of them have them."""
    found = {name: list(problems(health)) for name, health in cameras.items()}
    worst = {of_camera[0][0] if of_camera else OK for of_camera in found.values()}
    level = worst.pop() if len(worst) == 1 else WARN
    for name, of_camera in found.items():
        for _, message in of_camera:
            yield level, f'{name}: {message}'


def frame_values(counts: FrameStatistics) -> dict[str, object]:
    """Return what became of frames, and how long it took, to look up."""
    values: dict[str, object] = {
        'frames in': counts.received,
        'frames out': counts.published,
        'frames dropped': counts.dropped,
        'frames above the rate': counts.above_rate,
        'frames rejected': counts.rejected,
        'frames lost to errors': counts.failed,
        'frames nobody wanted': counts.unwanted,
        'clouds out': counts.clouds,
        'frames without depth': counts.without_depth,
        'results per second': counts.rate_hz(),
    }
    for stage, (median, p95) in counts.percentiles_ms().items():
        values[f'{stage} p50 ms'], values[f'{stage} p95 ms'] = median, p95
    return values


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
