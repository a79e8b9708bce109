"""A bag's camera frames through the real node over DDS, node and player each a process."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from llmseg_ros.bags.frames import Frame, rejection, to_frame
from llmseg_ros.bags.reading import Bag, BagMessage, known_types, message_to_labels, opened_bag
from llmseg_ros.bags.replay import StampedMessages, Step
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import (
    LABEL_MAP_TOPIC,
    LABELS_TOPIC,
    MASKS_TOPIC,
    NANOSECONDS,
)
from llmseg_ros.config import ConfigError, SegmenterConfig, load_sections
from llmseg_ros.files import writing
from llmseg_ros.ros.isolation import isolated_graph
from llmseg_ros.ros.processes import ProcessError, interruptible, process, wait_for
from llmseg_ros.system.ahead import map_ahead

ANSWERS, PLAYED, PARAMETERS = 'answers', 'played.json', 'parameters.yaml'
REFUSED = 3  # exit code of a player whose last words are for the user
NODE, PLAYER = 'node', 'replay_player'


class LiveReplayError(RuntimeError):
    """A bag can't be played into the node; the message is one sentence that says why."""


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


@dataclass(frozen=True)
class Answer:
    """What the node answered to a frame.

    Attributes:
        labels: (H, W) uint16 ids.
        timings_ms: from sending the frame to receiving the labels, wall time.
        messages: as they came over the wire, by topic.
    """

    labels: NDArray[np.uint16]
    timings_ms: Mapping[str, float]
    messages: Mapping[str, bytes]


def write_parameters(
    path: Path, config: Path, settings: SegmenterConfig, names: Sequence[str], live: bool
) -> None:
    """Write the node's parameter file.

    Args:
        path: of the new file.
        config: file whose settings of the node itself are kept.
        settings: of the segmenter.
        names: class list.
        live: frames come as they come, by the bag's clock; else none may be lost.

    Raises:
        ConfigError: the node's settings in `config` are no settings.
        WriteError: the file can't be written.
    """
    given = load_sections(config).get('node', {})
    if not isinstance(given, Mapping):
        raise ConfigError(f'configuration {config}: node: expected settings by name')
    reliable = {} if live else {'image_reliability': 'reliable'}
    node = {**given, 'autostart': True, 'lazy': True, **reliable}
    sections = json.loads(json.dumps(dataclasses.asdict(settings)))  # tuples as lists
    parameters = {'classes': list(names), 'use_sim_time': live, 'node': node, **sections}
    text = yaml.safe_dump({'/**': {'ros__parameters': parameters}}, allow_unicode=True)
    with writing(path):
        path.write_text(text, encoding='utf-8')


def play(
    bag: Path,
    topic: str,
    folder: Path,
    say: Callable[[str], None],
    compressed: bool,
    masks: bool,
    distinct: bool,
    rate: float | None,
) -> bool:
    """Play a bag's camera into the node; leave ANSWERS and PLAYED in the folder.

    Ctrl-C, SIGTERM and SIGHUP end the play early. No process is left behind.

    Args:
        bag: to play.
        topic: of the camera.
        folder: with the node's PARAMETERS.
        say: called with the number of frames sent.
        compressed: the camera's images are.
        masks: wanted as well as labels.
        distinct: leave out a frame with the stamp of one before.
        rate: of the bag's clock; None to let each frame wait for the answer before.

    Returns:
        Whether the bag was played to its end.

    Raises:
        LiveReplayError: the node or the player failed.
    """
    (folder / 'logs').mkdir()
    transport = 'compressed' if compressed else 'raw'
    node_arguments = ['--ros-args', '--params-file', str(folder / PARAMETERS)]
    node_arguments += ['-p', f'node.image_transport:={transport}']
    arguments = [str(bag), '--topic', topic, '--out', str(folder)]
    arguments += ['--masks'] * masks + ['--distinct'] * distinct
    arguments += [] if rate is None else ['--rate', str(rate)]
    with ExitStack() as started, interruptible(), isolated_graph() as graph:
        environment = {**os.environ, **graph}
        running = {
            module: started.enter_context(process(module, given, folder, environment))
            for module, given in ((NODE, node_arguments), (PLAYER, arguments))
        }
        try:
            wait_for(PLAYER, running, folder, say)
        except ProcessError as error:
            said_why = (error.module, error.code) == (PLAYER, REFUSED)
            words = f'{error.module} ended with code {error.code}: {error.last_words}'
            raise LiveReplayError(error.last_words if said_why else words) from error
        except KeyboardInterrupt:
            return False
    return True


class Answers:
    """What the node answered, by stamp, with what is known of how it came about.

    Attributes:
        played: what was sent.
        arrivals: when the labels of a stamp arrived, nanoseconds of the monotonic clock.
    """

    def __init__(self, bag: Bag, played: Played) -> None:
        def messages(topic: str) -> StampedMessages:
            return StampedMessages(bag, [c for c in bag.connections if c.topic == topic])

        self._bag = bag
        self._labels, self._masks = messages(LABELS_TOPIC), messages(MASKS_TOPIC)
        self.played = played
        self.arrivals = self._labels.times
        self._sent = {frame.number: frame for frame in played.frames}

    def find(self, number: int) -> list[BagMessage]:
        """Return labels, and masks where they were wanted, of a frame; nothing without answer."""
        if number not in self._sent:
            return []
        stamp = self._sent[number].stamp
        found = (self._labels.find(stamp), self._masks.find(stamp))
        return [message for message in found if message is not None]

    def decode(self, number: int, stamp: int, messages: Sequence[BagMessage]) -> Answer:
        """Return what was found for a frame, whose own stamp it is to have."""
        sent = self._sent[number]
        labels = next(m for m in messages if m.connection.topic == LABELS_TOPIC)
        latency_ms = (self.arrivals[sent.stamp] - sent.sent) / 1e6
        raws = {message.connection.topic: message.raw for message in messages}
        if sent.stamp != stamp:
            raws = {m.connection.topic: self._restamped(m, stamp) for m in messages}
        return Answer(
            message_to_labels(self._bag.deserialize(labels)), {'answer': latency_ms}, raws
        )

    def was_sent(self, number: int) -> bool:
        """Tell whether the node was given a frame."""
        return number in self._sent

    def label_map(self) -> bytes | None:
        """Return the last class list the node announced."""
        connections = [c for c in self._bag.connections if c.topic == LABEL_MAP_TOPIC]
        raw = None
        for message in self._bag.messages(connections):
            raw = message.raw
        return raw

    def _restamped(self, message: BagMessage, stamp: int) -> bytes:
        answer = self._bag.deserialize(message)
        time = type(answer.header.stamp)(*divmod(stamp, NANOSECONDS))
        header = dataclasses.replace(answer.header, stamp=time)
        changed = {'header': header}
        if message.connection.topic == MASKS_TOPIC:
            changed['masks'] = [
                dataclasses.replace(m, mask=dataclasses.replace(m.mask, header=header))
                for m in answer.masks
            ]
        answer = dataclasses.replace(answer, **changed)
        return bytes(known_types().serialize_cdr(answer, message.connection.msgtype))


@contextmanager
def opened_answers(folder: Path) -> Iterator[Answers]:
    """Open what a play has left.

    Raises:
        KeyboardInterrupt: it was ended before the first frame.
    """
    played = Played()
    if (folder / PLAYED).exists():
        played = Played.from_json(json.loads((folder / PLAYED).read_text(encoding='utf-8')))
    if not played.frames:
        raise KeyboardInterrupt
    with opened_bag(folder / ANSWERS) as bag:
        yield Answers(bag, played)


def answered_frames(
    bag: Bag,
    camera: Sequence[Connection],
    others: Sequence[Connection],
    answers: Answers,
    workers: int = 2,
) -> Iterator[Step[Answer]]:
    """Yield the camera's frames with their answers, and the other messages, by time.

    A frame that was dropped is a message like the others.

    Raises:
        BagError: the bag is damaged, so that it does not go on.
    """
    ids = {connection.id for connection in camera}
    refused = answers.played.refused

    def with_answers() -> Iterator[tuple[BagMessage, int | None, list[BagMessage]]]:
        number = -1
        for message in bag.messages([*camera, *others]):  # bags are read on one thread
            if message.connection.id not in ids:
                yield message, None, []
                continue
            number += 1
            yield message, number, answers.find(number)

    def decode(item: tuple[BagMessage, int | None, list[BagMessage]]) -> Step[Answer]:
        message, number, found = item
        if number is None:
            return Step(message)
        if number not in refused and not answers.was_sent(number):
            return Step(message)
        try:
            frame: Frame = to_frame(bag, message)
            if number in refused:
                raise BagError(refused[number])
        except BagError as error:  # so the player has not sent it, or the node rejected it
            return Step(message, rejection=rejection(message, error))
        if not found:
            return Step(message)
        return Step(message, frame, answers.decode(number, frame.stamp, found))

    yield from map_ahead(decode, with_answers(), workers)


def live_numbers(played: Played, arrivals: Mapping[int, int]) -> dict[str, Any]:
    """Return how the node fared, each number under the clock that it is in.

    Args:
        played: what was sent.
        arrivals: when the labels of a stamp arrived, nanoseconds of the monotonic clock.
    """
    answered = [frame for frame in played.frames if frame.stamp in arrivals]
    sent_n = np.array([frame.sent for frame in played.frames], np.int64)
    arrived_n = np.array([arrivals[frame.stamp] for frame in answered], np.int64)
    latencies_n = arrived_n - np.array([frame.sent for frame in answered], np.int64)
    numbers: dict[str, Any] = {
        'frames_in': len(played.frames),
        'frames_out': len(answered),
        'frames_dropped': len(played.frames) - len(answered) - played.node.rejected,
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
