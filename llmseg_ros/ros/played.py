"""What was played into the node, and how it fared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.topics import NANOSECONDS

ANSWERS, PLAYED = 'answers', 'played.json'  # what a player leaves in its folder


@dataclass(frozen=True)
class NodeCounts:
    """The node's own counts of frames, as its diagnostics name them."""

    received: int = 0
    published: int = 0
    dropped: int = 0
    rejected: int = 0
    failed: int = 0
    unwanted: int = 0

    @classmethod
    def from_diagnostics(cls, values: Mapping[str, str]) -> NodeCounts:
        """Read the counts, 0 where the node has not said anything yet."""
        keys = ('in', 'out', 'dropped', 'rejected', 'lost to errors', 'nobody wanted')
        return cls(*(int(values.get(f'frames {key}', 0)) for key in keys))

    def __sub__(self, other: NodeCounts) -> NodeCounts:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return NodeCounts(*(mine - its for mine, its in pairs))

    @property
    def settled(self) -> int:
        """Frames that nothing more will come of."""
        return self.published + self.dropped + self.rejected + self.failed + self.unwanted


@dataclass
class SentFrame:
    """A camera frame of the bag.

    Attributes:
        stamp: that it is sent with, in nanoseconds: one no other frame has.
        time: of its recording, in nanoseconds.
        sent: when it was handed to DDS, nanoseconds of the monotonic clock.
        number: of the camera's message in the bag, from 0.
    """

    stamp: int
    time: int
    sent: int = 0
    number: int = 0


@dataclass
class Played:
    """What the player did, and how the node fared meanwhile.

    Attributes:
        frames: in the order they were sent.
        refused: why others were not, by the number of the camera's message.
        begin: when the bag's time `start` was played, nanoseconds of the monotonic clock.
        start: of the bag, in nanoseconds.
        rate: seconds of the bag in a second; None where each frame waited for an answer.
        node: the node's counts of these frames.
        encoder: of the node.
        stages_ms: median and 95th percentile by stage, over the node's last 100 results.
    """

    frames: list[SentFrame] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    begin: int = 0
    start: int = 0
    rate: float | None = None
    node: NodeCounts = field(default_factory=NodeCounts)
    encoder: str = ''
    stages_ms: dict[str, dict[str, float]] = field(default_factory=dict)

    def describe(self, values: Mapping[str, str]) -> None:
        """Take over what the node's diagnostics say about its work."""
        self.encoder = values.get('encoder', '')
        stages = {key.removesuffix(' p50 ms') for key in values if key.endswith(' p50 ms')}
        self.stages_ms = {
            stage: {p: float(values[f'{stage} {p} ms']) for p in ('p50', 'p95')}
            for stage in sorted(stages - {'age'})
        }

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Played:
        frames = [SentFrame(**frame) for frame in data['frames']]
        refused = {int(number): reason for number, reason in data['refused'].items()}
        node = NodeCounts(**data['node'])
        return cls(**{**data, 'frames': frames, 'refused': refused, 'node': node})


def live_numbers(played: Played, arrivals: Mapping[int, int], rejected: int = 0) -> dict[str, Any]:
    """Return how the node fared, each number under the clock that it is in.

    Args:
        played: what was sent.
        arrivals: when the labels of a stamp arrived, nanoseconds of the monotonic clock.
        rejected: how many of what was sent can't be used.
    """
    answered = [frame for frame in played.frames if frame.stamp in arrivals]
    sent_n = np.array([frame.sent for frame in played.frames], np.int64)
    arrived_n = np.array([arrivals[frame.stamp] for frame in answered], np.int64)
    latencies_n = arrived_n - np.array([frame.sent for frame in answered], np.int64)
    numbers: dict[str, Any] = {
        'frames_in': len(played.frames),
        'frames_out': len(answered),
        'frames_dropped': len(played.frames) - len(answered) - rejected,
        'node': {'frames': dataclasses.asdict(played.node), 'stages_ms': played.stages_ms},
        'wall_clock': {
            'latency_ms': spread_ms(latencies_n),
            'out_hz': rate_hz(arrived_n),
        },
    }
    if played.rate is None:
        return numbers
    bag_n = np.array([frame.time for frame in played.frames], np.int64)
    due_n = played.begin + (bag_n - played.start) / played.rate
    intervals_n = np.sort(arrived_n)[1:] - np.sort(arrived_n)[:-1]
    ages_n = played.start + (arrived_n - played.begin) * played.rate
    ages_n -= np.array([frame.stamp for frame in answered], np.int64)
    numbers['wall_clock'] |= {
        'in_hz': rate_hz(sent_n),
        'interval_ms': spread_ms(intervals_n),
        'jitter_ms': round(float(np.std(intervals_n)) / 1e6, 2) if intervals_n.size else None,
        'sent_late_ms': spread_ms(sent_n - due_n),
    }
    return {**numbers, 'rate': played.rate, 'bag_clock': {'age_ms': spread_ms(ages_n)}}


def spread_ms(values: NDArray[Any]) -> dict[str, float] | None:
    """Return median, 95th percentile and largest of times in nanoseconds, None without any."""
    if not values.size:
        return None
    p50, p95 = np.percentile(values, [50, 95])
    found = {'p50': p50, 'p95': p95, 'max': values.max()}
    return {name: round(float(value) / 1e6, 2) for name, value in found.items()}


def rate_hz(times: NDArray[np.int64]) -> float | None:
    """Return events per second from their times in nanoseconds, None below two."""
    if times.size < 2:
        return None
    return round((times.size - 1) * NANOSECONDS / float(times.max() - times.min()), 3)
