"""The camera frames of a bag as ROS 2 sends them, each with a stamp of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from llmseg_ros.bags.frames import Stamps, to_frame
from llmseg_ros.bags.reading import Bag, BagMessage, known_types
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import NANOSECONDS
from llmseg_ros.ros.played import SentFrame


def first_good_frame(bag: Bag, connections: Sequence[Connection]) -> tuple[SentFrame, bytes]:
    """Return the first frame of the camera that can be used.

    Raises:
        BagError: there is none.
    """
    refused: dict[int, str] = {}
    for found in camera_frames(bag, connections, refused, distinct=False, check=True):
        return found
    raise BagError(f'none of the {len(refused)} frames can be used: {refused[0]}')


def camera_frames(
    bag: Bag,
    connections: Sequence[Connection],
    refused: dict[int, str],
    distinct: bool,
    check: bool,
) -> Iterator[tuple[SentFrame, bytes]]:
    """Yield the frames of the camera, still to be sent, and what is to be sent.

    Args:
        bag: to read.
        connections: of the camera.
        refused: takes up why other frames are left out, by their number.
        distinct: leave out a frame with the stamp of one before.
        check: leave out a frame that the node would reject.

    Raises:
        BagError: the bag is damaged, so that it does not go on.
    """
    stamps = Stamps(distinct)
    for number, message in enumerate(bag.messages(connections)):
        try:
            stamp = stamps.add(message)
            decode = to_frame if check else Bag.deserialize
            decode(bag, message)
            sent = SentFrame(stamp, message.time, number=number)
            yield sent, with_stamp(to_cdr(message), stamp)
        except BagError as error:
            refused[number] = str(error)
        except struct.error:
            refused[number] = f'ROS 2 has no stamp of {stamp} ns'


def to_cdr(message: BagMessage) -> bytes:
    """Return a camera message as ROS 2 sends it."""
    if message.connection.encoding == 'cdr':
        return message.raw
    return bytes(known_types().ros1_to_cdr(message.raw, message.connection.msgtype))


def with_stamp(raw: bytes, stamp: int) -> bytes:
    """Return a message, beginning with a header, with another stamp in nanoseconds."""
    order = '<' if raw[1] else '>'
    return raw[:4] + struct.pack(f'{order}iI', *divmod(stamp, NANOSECONDS)) + raw[12:]
