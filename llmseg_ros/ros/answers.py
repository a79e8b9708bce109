"""What the node answered to the frames that were played into it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.frames import Frame, rejection, to_frame
from llmseg_ros.bags.reading import Bag, BagMessage, known_types, message_to_labels, opened_bag
from llmseg_ros.bags.replay import StampedMessages, Step
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import LABEL_MAP_TOPIC, LABELS_TOPIC, MASKS_TOPIC, NANOSECONDS
from llmseg_ros.ros.played import ANSWERS, PLAYED, Played
from llmseg_ros.system.ahead import map_ahead


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


class Answers:
    """What the node answered, by stamp, with what is known of how it came about.

    Attributes:
        played: what was sent.
        arrivals: when the labels of a stamp arrived, nanoseconds of the monotonic clock.
        rejected: numbers of the frames sent that can't be used, as far as they were looked at.
    """

    def __init__(self, bag: Bag, played: Played) -> None:
        def messages(topic: str) -> StampedMessages:
            return StampedMessages(bag, [c for c in bag.connections if c.topic == topic])

        self._bag = bag
        self._labels, self._masks = messages(LABELS_TOPIC), messages(MASKS_TOPIC)
        self.played = played
        self.arrivals = self._labels.times
        self.rejected: set[int] = set()
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
    sixteen_bit: str,
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
            frame: Frame = to_frame(bag, message, sixteen_bit)
            if number in refused:
                raise BagError(refused[number])
        except BagError as error:  # so the player has not sent it, or the node rejected it
            if answers.was_sent(number):
                answers.rejected.add(number)
            return Step(message, rejection=rejection(message, error))
        if not found:
            return Step(message)
        return Step(message, frame, answers.decode(number, frame.stamp, found))

    yield from map_ahead(decode, with_answers(), workers)
