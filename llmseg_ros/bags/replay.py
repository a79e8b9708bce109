"""A bag's camera frames through the segmenter, without DDS: the same result every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.frames import Frame, Rejection, Stamps, rejection, stamp_in, to_frame
from llmseg_ros.bags.reading import Bag, BagMessage, connections_of, message_to_labels
from llmseg_ros.bags.scores import Labelled, ReplayScores
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import IMAGE_TYPE
from llmseg_ros.candidates import Found
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.geometry import Camera
from llmseg_ros.segmentation import Segmentation, frame_before
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.ahead import map_ahead

Result = TypeVar('Result', bound=Labelled)


class FramePoints(NamedTuple):
    """Where a frame's pixels lie.

    Attributes:
        points: (H, W, 3) float32 metres in the camera's frame, NaN where unknown.
        camera: of the frame's size.
        pose: (4, 4) of the camera in the world, None where it is unknown.
    """

    points: NDArray[np.float32]
    camera: Camera
    pose: NDArray[np.float64] | None


@dataclass(frozen=True)
class Step(Generic[Result]):
    """A message of the bag.

    Attributes:
        message: as it lies there.
        frame: where it is a frame that was segmented.
        result: of the frame.
        rejection: where it is a frame that can't be used.
        points: of the frame, where they were asked for and the bag has depth of it.
    """

    message: BagMessage
    frame: Frame | None = None
    result: Result | None = None
    rejection: Rejection | None = None
    points: FramePoints | None = None


class StampedMessages:
    """The messages of a topic, found by stamp.

    Attributes:
        times: when the message of a stamp was recorded, both in nanoseconds.
        rejections: of messages without a stamp, and with that of one before.
    """

    def __init__(self, bag: Bag, connections: Sequence[Connection]) -> None:
        """Look through the topic."""
        self._bag = bag
        self._connections = connections
        self.times: dict[int, int] = {}
        self.rejections: list[Rejection] = []
        for message in bag.messages(connections):
            try:
                stamp = stamp_in(message)
                if stamp in self.times:
                    topic = message.connection.topic
                    raise BagError(f'two messages of {topic} have the stamp {stamp}')
            except BagError as error:
                self.rejections.append(rejection(message, error))
                continue
            self.times[stamp] = message.time

    def find(self, stamp: int) -> BagMessage | None:
        """Return the message with a stamp; None where there is none."""
        time = self.times.get(stamp)
        if time is None:
            return None
        for message in self._bag.messages(self._connections, start=time, stop=time + 1):
            if len(message.raw) >= 12 and stamp_in(message) == stamp:
                return message
        return None


class TrueLabels:
    """The label images of a topic.

    Attributes:
        messages: by stamp.
    """

    def __init__(self, bag: Bag, topic: str) -> None:
        """Look through the topic.

        Raises:
            BagError: it isn't there, or isn't of images.
        """
        self.messages = StampedMessages(bag, connections_of(bag, topic, (IMAGE_TYPE,)))
        self._deserialize = bag.deserialize
        self._topic = topic

    def decode(self, message: BagMessage, frame: Frame) -> NDArray[np.uint16]:
        """Return the (H, W) true ids of a frame, IGNORED where unlabelled.

        Raises:
            BagError: it does not decode, or the sizes differ.
        """
        truth = message_to_labels(self._deserialize(message))
        if truth.shape != frame.rgb.shape[:2]:
            raise BagError(
                f'the label image of {self._topic} with stamp {frame.stamp} is '
                f'{truth.shape[1]}x{truth.shape[0]}, its frame '
                f'{frame.rgb.shape[1]}x{frame.rgb.shape[0]}'
            )
        return truth

    def check_ids(self, truth: NDArray[np.uint16], count: int) -> None:
        """Check that all ids are below `count`.

        Raises:
            BagError: one is not: labels and class list don't belong together.
        """
        highest = truth.max(initial=0, where=truth != IGNORED)
        if highest >= count:
            raise BagError(
                f'a label image of {self._topic} has the id {highest}, '
                f'the class list ends at {count - 1}'
            )


def replay_frames(
    bag: Bag,
    camera: Sequence[Connection],
    others: Sequence[Connection],
    segmenter: Segmenter,
    distinct: bool = False,
    workers: int = 2,
) -> Iterator[Step[Segmentation]]:
    """Segment the camera's frames and hand on the other messages, by time.

    Args:
        bag: to read.
        camera: connections of the camera's topic.
        others: connections whose messages are handed on as they are.
        segmenter: with its classes.
        distinct: reject a frame with the stamp of one before.
        workers: threads that decode ahead.

    Raises:
        BagError: the bag is damaged, so that it does not go on.
    """
    ids = {connection.id for connection in camera}
    sixteen_bit = segmenter.config.images.sixteen_bit

    def decode(message: BagMessage) -> Step[Segmentation]:
        if message.connection.id not in ids:
            return Step(message)
        try:
            return Step(message, to_frame(bag, message, sixteen_bit))
        except BagError as error:
            return Step(message, rejection=rejection(message, error))

    stamps = Stamps(distinct)
    last: tuple[int, Found] | None = None

    def find(step: Step[Segmentation]) -> tuple[Step[Segmentation], Found | None]:
        nonlocal last
        message, frame = step.message, step.frame
        if message.connection.id not in ids:
            return step, None
        try:
            stamps.add(message)
        except BagError as error:
            step = Step(message, rejection=step.rejection or rejection(message, error))
        if frame is None or step.rejection:
            return step, None
        found = segmenter.find(frame.rgb, frame_before(last, frame.stamp))
        last = frame.stamp, found
        return step, found

    decoded = map_ahead(decode, bag.messages([*camera, *others]), workers)
    for step, found in map_ahead(find, decoded, int(segmenter.overlaps)):
        yield replace(step, result=segmenter.finish(found)) if found else step


def count_steps(
    steps: Iterable[Step[Result]],
    truth: TrueLabels | None,
    scores: ReplayScores,
    write: Callable[[Step[Result]], None] | None = None,
    show: Callable[[Frame, Labelled, NDArray[np.uint16] | None], None] | None = None,
) -> Iterator[Step[Result]]:
    """Count the frames into `scores`, on a thread beside the segmentation.

    Args:
        steps: as the bag has them.
        truth: true labels, where there are any.
        scores: to count into.
        write: called with every step.
        show: called with every frame that has a result, and its true ids.

    Yields:
        The frames that are done or rejected.

    Raises:
        BagError: no frame can be used, or no true labels.
    """
    for unused in truth.messages.rejections if truth else ():
        scores.reject_labels(unused)

    def with_truth() -> Iterator[tuple[Step[Result], BagMessage | None]]:
        for step in steps:  # bags are read on this thread alone
            yield step, truth.messages.find(step.frame.stamp) if truth and step.frame else None

    def true_ids(message: BagMessage | None, frame: Frame) -> Any:
        if truth is None or message is None:
            return None
        try:
            ids = truth.decode(message, frame)
        except BagError as error:
            scores.reject_labels(rejection(message, error))
            return None
        truth.check_ids(ids, len(scores.names))
        return ids

    def count(item: tuple[Step[Result], BagMessage | None]) -> Step[Result]:
        step, labels = item
        if step.rejection:
            scores.reject(step.rejection)
        if step.frame is not None and step.result is not None:
            ids = true_ids(labels, step.frame)
            scores.add(step.result, ids)
            if show:
                show(step.frame, step.result, ids)
        if write:
            write(step)
        return step

    for step in map_ahead(count, with_truth(), 1):
        if step.frame is not None or step.rejection:
            yield step
    scores.check(truth is not None)
