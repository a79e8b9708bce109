"""A bag's camera frames through the segmenter, without DDS: the same result every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from llmseg_ros.demo.bags import IMAGE_TYPE, stamp_of
from llmseg_ros.evaluation.bag import (
    BagError,
    BagMessage,
    connections_of,
    full_type,
    message_to_labels,
    message_to_rgb,
    read_messages,
)
from llmseg_ros.evaluation.evaluate import map_ahead
from llmseg_ros.evaluation.metrics import IGNORED, confusion_matrix
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.segmenter import Segmenter


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


class TrueLabels:
    """The label images of a topic, found by stamp."""

    def __init__(self, reader: AnyReader, topic: str) -> None:
        """Look through the topic.

        Raises:
            BagError: it isn't there, isn't of images, or two have one stamp.
        """
        self._reader = reader
        self._topic = topic
        self._connections = connections_of(reader, topic, (IMAGE_TYPE,))
        self._time_of_stamp: dict[int, int] = {}
        for message in read_messages(reader, self._connections):
            stamp = stamp_of(reader.deserialize(message.raw, full_type(message.connection)))
            if stamp in self._time_of_stamp:
                raise BagError(f'two label images of {topic} have the stamp {stamp}')
            self._time_of_stamp[stamp] = message.time

    def find(self, frame: Frame, count: int) -> NDArray[np.uint16] | None:
        """Return the (H, W) true ids of a frame, IGNORED where unlabelled; None without any.

        Raises:
            BagError: the sizes differ, or an id is not below `count`.
        """
        time = self._time_of_stamp.get(frame.stamp)
        if time is None:
            return None
        for message in self._reader.messages(self._connections, start=time, stop=time + 1):
            labels = self._reader.deserialize(message[2], full_type(message[0]))
            if stamp_of(labels) == frame.stamp:
                return self._checked(message_to_labels(labels), frame, count)
        return None

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


@dataclass
class ReplayScores:
    """What is counted over the frames of a bag.

    Attributes:
        names: name by id, that of the background first.
        timings_ms: wall time by stage, a frame each.
        shares: share of the pixels by id, a frame each.
        changed: share of the pixels whose label is another one than in the frame before.
        confusion: (n, n) int64, of the frames with true labels.
        labelled: how many these are.
    """

    names: Sequence[str]
    timings_ms: list[Mapping[str, float]] = field(default_factory=list)
    shares: list[NDArray[np.float64]] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    labelled: int = 0

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.names),) * 2, np.int64)
        self._last: NDArray[np.uint16] | None = None

    def add(self, result: Segmentation, truth: NDArray[np.uint16] | None) -> None:
        """Count the next frame."""
        labels = result.labels
        self.timings_ms.append(result.timings_ms)
        self.shares.append(np.bincount(labels.ravel(), minlength=len(self.names)) / labels.size)
        if self._last is not None and self._last.shape == labels.shape:
            self.changed.append(float(np.mean(labels != self._last)))
        self._last = labels
        if truth is not None:
            self.labelled += 1
            self.confusion += confusion_matrix(truth, labels, len(self.names))

    def presence_changes(self) -> NDArray[np.int64]:
        """Return how often each class appeared or vanished from one frame to the next, by id."""
        present_fn = np.array(self.shares) > 0
        return np.count_nonzero(present_fn[1:] != present_fn[:-1], axis=0)


def replay_frames(
    reader: AnyReader,
    camera: Sequence[Connection],
    others: Sequence[Connection],
    segmenter: Segmenter,
    workers: int = 2,
) -> Iterator[tuple[BagMessage, Frame | None, Segmentation | None]]:
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
    last: Segmentation | None = None
    for message, frame in map_ahead(decode, read_messages(reader, [*camera, *others]), workers):
        if frame and frame.stamp in stamps:
            raise BagError(f'two frames of {message.connection.topic} have the stamp {frame.stamp}')
        if frame is None:
            yield message, None, None
            continue
        stamps.add(frame.stamp)
        last = segmenter.segment(frame.rgb, previous=last)
        yield message, frame, last


def to_frame(reader: AnyReader, message: BagMessage) -> Frame:
    """Decode a camera message.

    Raises:
        BagError: it does not decode.
    """
    try:
        image: Any = reader.deserialize(message.raw, full_type(message.connection))
    except Exception as error:  # rosbags raises what its generated code runs into
        raise BagError(
            f'a message of {message.connection.topic} does not decode: {error}'
        ) from error
    return Frame(stamp_of(image) or message.time, image.header, message_to_rgb(image))
