"""Camera frames out of the messages of a bag, each with a stamp, and what is wrong with others."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.reading import Bag, BagMessage, message_to_rgb
from llmseg_ros.bags.storage import BagError
from llmseg_ros.bags.topics import NANOSECONDS


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


class Rejection(NamedTuple):
    """A message that can't be used, and costs only itself.

    Attributes:
        topic: that it is of.
        recorded: when, in nanoseconds.
        stamp: of its header in nanoseconds, None where it has none.
        reason: why, in a sentence.
    """

    topic: str
    recorded: int
    stamp: int | None
    reason: str


class Stamps:
    """The stamps of the frames so far, to tell them apart."""

    def __init__(self, distinct: bool) -> None:
        """Expect each stamp once where they are `distinct`, as true labels need it."""
        self._distinct = distinct
        self._seen: set[int] = set()
        self._free: dict[int, int] = {}  # by stamp that frames have had: where to look for one

    def add(self, message: BagMessage) -> int:
        """Return a stamp that no frame before has: the frame's, or nanoseconds after it.

        Raises:
            BagError: the message is too short, or has the stamp of one before.
        """
        stamp = frame_stamp(message)
        if self._distinct and stamp in self._seen:
            topic = message.connection.topic
            raise BagError(f'two messages of {topic} have the stamp {stamp}')
        free = self._free.get(stamp, stamp)
        while free in self._seen:
            free += 1
        self._free[stamp] = free + 1
        self._seen.add(free)
        return free


def to_frame(bag: Bag, message: BagMessage, sixteen_bit: str = 'high_byte') -> Frame:
    """Decode a camera message; sixteen_bit is message_to_rgb's.

    Raises:
        BagError: it does not decode.
    """
    image = bag.deserialize(message)
    return Frame(frame_stamp(message), image.header, message_to_rgb(image, sixteen_bit))


def rejection(message: BagMessage, error: BagError) -> Rejection:
    """Return why a message can't be used."""
    try:
        stamp = stamp_in(message)
    except BagError:
        stamp = None
    return Rejection(message.connection.topic, message.time, stamp, str(error))


def frame_stamp(message: BagMessage) -> int:
    """Return the stamp of a frame, the time of recording where it has none.

    Raises:
        BagError: the message is too short.
    """
    return stamp_in(message) or message.time


def stamp_in(message: BagMessage) -> int:
    """Return the stamp in nanoseconds of a message that begins with a header.

    Raises:
        BagError: the message is too short.
    """
    try:
        return stamp_at_begin(message.raw, in_cdr=message.connection.encoding == 'cdr')
    except struct.error as error:
        topic = message.connection.topic
        raise BagError(f'a message of {topic} has {len(message.raw)} bytes') from error


def stamp_at_begin(raw: bytes, in_cdr: bool) -> int:
    """Return the stamp in nanoseconds of bytes that begin with a header.

    Raises:
        struct.error: they are too few.
    """
    # Four bytes come before it: in CDR the encoding, in ROS 1 the header's sequence number.
    order = '>' if in_cdr and raw[1:2] == b'\0' else '<'
    seconds, nanoseconds = struct.unpack_from(f'{order}iI', raw, 4)
    return int(seconds * NANOSECONDS + nanoseconds)
