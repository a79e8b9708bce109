"""A bag's camera frames through the segmenter, without DDS: the same result every time."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from llmseg_ros.bags.reading import (
    BagError,
    BagMessage,
    connections_of,
    full_type,
    message_to_labels,
    message_to_rgb,
    read_messages,
)
from llmseg_ros.bags.topics import IMAGE_TYPE, NANOSECONDS
from llmseg_ros.evaluation.metrics import IGNORED, confusion_matrix
from llmseg_ros.segmentation import Segmentation, frame_before
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.ahead import map_ahead


class Frame(NamedTuple):
    """A camera frame.

    Attributes:
        stamp: of its header in nanoseconds, the time of recording where the header has none.
        header: the header as it was.
        rgb: (H, W, 3) uint8.
    """

    stamp: int
    header: Any
    rgb: NDArray[np.uint8]


class Labelled(Protocol):
    """What a frame led to, in this process or in the node's.

    Attributes:
        labels: (H, W) uint16 ids.
        timings_ms: wall time by stage.
    """

    @property
    def labels(self) -> NDArray[np.uint16]: ...
    @property
    def timings_ms(self) -> Mapping[str, float]: ...


Result = TypeVar('Result', bound=Labelled)


@dataclass(frozen=True)
class Step(Generic[Result]):
    """A message of the bag; where it is a frame that was segmented, the frame and its result."""

    message: BagMessage
    frame: Frame | None
    result: Result | None


class StampedMessages:
    """The messages of a topic, found by stamp.

    Attributes:
        times: when the message of a stamp was recorded, both in nanoseconds.
    """

    def __init__(self, reader: AnyReader, connections: Sequence[Connection]) -> None:
        """Look through the topic.

        Raises:
            BagError: two of its messages have one stamp.
        """
        self._reader = reader
        self._connections = connections
        self.times: dict[int, int] = {}
        for message in read_messages(reader, connections) if connections else ():
            stamp = stamp_in(message, reader.is2)
            if stamp in self.times:
                topic = message.connection.topic
                raise BagError(f'two messages of {topic} have the stamp {stamp}')
            self.times[stamp] = message.time

    def find(self, stamp: int) -> BagMessage | None:
        """Return the message with a stamp; None where there is none."""
        time = self.times.get(stamp)
        if time is None:
            return None
        for found in self._reader.messages(self._connections, start=time, stop=time + 1):
            message = BagMessage(*found)
            if stamp_in(message, self._reader.is2) == stamp:
                return message
        return None


class TrueLabels:
    """The label images of a topic.

    Attributes:
        messages: by stamp.
    """

    def __init__(self, reader: AnyReader, topic: str) -> None:
        """Look through the topic.

        Raises:
            BagError: it isn't there, isn't of images, or two have one stamp.
        """
        self.messages = StampedMessages(reader, connections_of(reader, topic, (IMAGE_TYPE,)))
        self._deserialize = reader.deserialize
        self._topic = topic

    def decode(self, message: BagMessage, frame: Frame, count: int) -> NDArray[np.uint16]:
        """Return the (H, W) true ids of a frame, IGNORED where unlabelled.

        Raises:
            BagError: the sizes differ, or an id is not below `count`.
        """
        labels = self._deserialize(message.raw, full_type(message.connection))
        return self._checked(message_to_labels(labels), frame, count)

    def _checked(self, truth: NDArray[np.uint16], frame: Frame, count: int) -> NDArray[np.uint16]:
        if truth.shape != frame.rgb.shape[:2]:
            raise BagError(
                f'the label image of {self._topic} with stamp {frame.stamp} is '
                f'{truth.shape[1]}x{truth.shape[0]}, its frame '
                f'{frame.rgb.shape[1]}x{frame.rgb.shape[0]}'
            )
        highest = truth.max(initial=0, where=truth != IGNORED)
        if highest >= count:
            raise BagError(
                f'a label image of {self._topic} has the id {highest}, '
                f'the class list ends at {count - 1}'
            )
        return truth


COUNTS = (
    *('frames', 'labelled', 'compared', 'changed'),
    *('pixels_n', 'presence_changes_n', 'confusion'),
)  # of ReplayScores: what adds up


@dataclass
class ReplayScores:
    """What is counted over the frames of a bag, or of several.

    Attributes:
        names: name by id, that of the background first.
        frames: how many there are.
        labelled: how many of them have true labels.
        compared: pixels of frames that have one of their size before them.
        changed: how many of these have another label than there.
        timings_ms: wall time by stage and in all, a frame each.
        pixels_n: (n,) int64, pixels by id.
        presence_changes_n: (n,) int64, how often each class appeared or vanished from one frame
            to the next.
        confusion: (n, n) int64, of the frames with true labels.
    """

    names: Sequence[str]
    frames: int = 0
    labelled: int = 0
    compared: int = 0
    changed: int = 0
    timings_ms: dict[str, array[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.names)
        self.pixels_n = np.zeros(count, np.int64)
        self.presence_changes_n = np.zeros(count, np.int64)
        self.confusion = np.zeros((count, count), np.int64)
        self._last: NDArray[np.uint16] | None = None
        self._last_present_n: NDArray[np.bool_] | None = None

    def add(self, result: Labelled, truth: NDArray[np.uint16] | None) -> None:
        """Count the next frame."""
        labels = result.labels
        laps = {**result.timings_ms, 'total': sum(result.timings_ms.values())}
        for stage, value in laps.items():
            self.timings_ms.setdefault(stage, array('d')).append(round(value, 3))
        pixels_n = np.bincount(labels.ravel(), minlength=len(self.names))
        present_n = pixels_n > 0
        self.pixels_n += pixels_n
        if self._last_present_n is not None:
            self.presence_changes_n += present_n != self._last_present_n
        if self._last is not None and self._last.shape == labels.shape:
            self.compared += labels.size
            self.changed += np.count_nonzero(labels != self._last)
        self._last, self._last_present_n = labels, present_n
        self.frames += 1
        if truth is not None:
            self.labelled += 1
            self.confusion += confusion_matrix(truth, labels, len(self.names))

    def merge(self, other: ReplayScores) -> None:
        """Add what was counted over another bag, of the same classes."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for stage, values in other.timings_ms.items():
            self.timings_ms.setdefault(stage, array('d')).extend(values)

    def to_record(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        counts: dict[str, Any] = {name: np.asarray(getattr(self, name)).tolist() for name in COUNTS}
        timings_ms = {stage: values.tolist() for stage, values in self.timings_ms.items()}
        return {**counts, 'timings_ms': timings_ms}


def scores_from_record(names: Sequence[str], record: Mapping[str, Any]) -> ReplayScores:
    """Return what to_record wrote.

    Raises:
        KeyError: something is missing.
        TypeError: something is of another kind.
        ValueError: something is of another size.
    """
    scores = ReplayScores(names)
    for name in COUNTS:
        value = getattr(scores, name)
        value += np.array(record[name], np.int64).reshape(np.shape(value))
        setattr(scores, name, value if np.ndim(value) else int(value))
    for stage, values in record['timings_ms'].items():
        scores.timings_ms[stage] = array('d', values)
    return scores


def replay_frames(
    reader: AnyReader,
    camera: Sequence[Connection],
    others: Sequence[Connection],
    segmenter: Segmenter,
    workers: int = 2,
) -> Iterator[Step[Segmentation]]:
    """Segment the camera's frames and hand on the other messages, by time.

    Args:
        reader: of the open bag.
        camera: connections of the camera's topic.
        others: connections whose messages are handed on as they are.
        segmenter: with its classes.
        workers: threads that decode ahead.

    Raises:
        BagError: a frame does not decode, two have one stamp, or the bag is damaged.
    """
    topics = {connection.topic for connection in camera}

    def decode(message: BagMessage) -> tuple[BagMessage, Frame | None]:
        if message.connection.topic not in topics:
            return message, None
        return message, to_frame(reader, message)

    stamps: set[int] = set()
    last: tuple[int, Segmentation] | None = None
    for message, frame in map_ahead(decode, read_messages(reader, [*camera, *others]), workers):
        if frame is None:
            yield Step(message, None, None)
            continue
        refuse_second(frame.stamp, stamps, message)
        result = segmenter.segment(frame.rgb, previous=frame_before(last, frame.stamp))
        last = frame.stamp, result
        yield Step(message, frame, result)


def refuse_second(stamp: int, stamps: set[int], message: BagMessage) -> None:
    """Raise BagError where a frame before had the stamp; note it."""
    if stamp in stamps:
        raise BagError(f'two frames of {message.connection.topic} have the stamp {stamp}')
    stamps.add(stamp)


def count_steps(
    steps: Iterable[Step[Result]],
    truth: TrueLabels | None,
    scores: ReplayScores,
    write: Callable[[Step[Result]], None] | None = None,
    show: Callable[[Frame, Labelled, NDArray[np.uint16] | None], None] | None = None,
) -> Iterator[Frame]:
    """Count the frames into `scores`, on a thread beside the segmentation.

    Args:
        steps: as the bag has them.
        truth: true labels, where there are any.
        scores: to count into.
        write: called with every step.
        show: called with every frame that has a result, and its true ids.

    Yields:
        The frames that are done.

    Raises:
        BagError: true labels can't be used, or are of no frame.
    """

    def with_truth() -> Iterator[tuple[Step[Result], BagMessage | None]]:
        for step in steps:  # bags are read on this thread alone
            yield step, truth.messages.find(step.frame.stamp) if truth and step.frame else None

    def count(item: tuple[Step[Result], BagMessage | None]) -> Frame | None:
        step, labels = item
        if step.frame is not None and step.result is not None:
            true_ids = None
            if truth and labels:
                true_ids = truth.decode(labels, step.frame, len(scores.names))
            scores.add(step.result, true_ids)
            if show:
                show(step.frame, step.result, true_ids)
        if write:
            write(step)
        return step.frame

    for frame in map_ahead(count, with_truth(), 1):
        if frame is not None:
            yield frame
    if truth and scores.frames and not scores.labelled:
        raise BagError('no label image has the stamp of a camera frame')


def to_frame(reader: AnyReader, message: BagMessage) -> Frame:
    """Decode a camera message.

    Raises:
        BagError: it does not decode.
    """
    image = deserialize_image(reader, message)
    return Frame(frame_stamp(message, reader.is2), image.header, message_to_rgb(image))


def deserialize_image(reader: AnyReader, message: BagMessage) -> Any:
    """Return a camera message as rosbags has it.

    Raises:
        BagError: it does not decode.
    """
    try:
        return reader.deserialize(message.raw, full_type(message.connection))
    except Exception as error:  # rosbags raises what its generated code runs into
        raise BagError(
            f'a message of {message.connection.topic} does not decode: {error}'
        ) from error


def frame_stamp(message: BagMessage, is2: bool) -> int:
    """Return what tells a frame from the others: its stamp, the time of recording without one."""
    return stamp_in(message, is2) or message.time


def stamp_in(message: BagMessage, is2: bool) -> int:
    """Return the stamp in nanoseconds of a message that begins with a header.

    Raises:
        BagError: the message is too short.
    """
    # Four bytes come before it: of ROS 2 the encoding, of ROS 1 the header's sequence number.
    order = '>' if is2 and message.raw[1:2] == b'\0' else '<'
    try:
        seconds, nanoseconds = struct.unpack_from(f'{order}iI', message.raw, 4)
    except struct.error as error:
        topic = message.connection.topic
        raise BagError(f'a message of {topic} has {len(message.raw)} bytes') from error
    return int(seconds * NANOSECONDS + nanoseconds)
