"""What bag files of every kind have in common."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class BagError(ValueError):
    """A bag can't be used; the message is one sentence that says what was found."""


@dataclass(frozen=True, eq=False)
class Connection:
    """A topic as it was recorded; one name may have several, of other types or encodings.

    Attributes:
        id: in its file, or in its bag.
        topic: name.
        msgtype: type name, `pkg/msg/Name` in ROS; '' where the file does not say.
        encoding: of the messages: cdr, ros1, protobuf, json ...
        msgcount: messages.
        definition: of the type, as it was recorded.
        definition_encoding: ros2msg, ros2idl, ros1msg, jsonschema ...; '' without a definition.
        metadata: what the recorder noted besides, as the quality of service offered.
    """

    id: int
    topic: str
    msgtype: str
    encoding: str
    msgcount: int
    definition: bytes = b''
    definition_encoding: str = ''
    metadata: Mapping[str, str] = field(default_factory=dict)


class Stored(NamedTuple):
    """A message in a file: when it was recorded, in nanoseconds, on which connection, its bytes."""

    time: int
    connection: int
    raw: bytes


class Storage(Protocol):
    """An open bag file.

    Attributes:
        connections: of the file.
        start_time: of the first message, in nanoseconds; 0 without one.
        end_time: of the last.
        notes: a sentence each on what is missing of the file; reading may add some.
    """

    connections: list[Connection]
    start_time: int
    end_time: int
    notes: list[str]

    def messages(
        self, connections: Collection[int], start: int | None = None, stop: int | None = None
    ) -> Iterator[Stored]:
        """Yield the messages of some connections by time, from `start` until before `stop`."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


Piece = tuple[int, Callable[[], Iterator[Stored]]]
"""The time of the first message of a piece, and what opens it."""


def in_time_order(pieces: Iterable[Piece]) -> Iterator[Stored]:
    """Yield the messages of pieces that are each in order; a piece is opened when it is due.

    So no more of a bag is in memory than what overlaps in time. Of equal times the piece named
    first comes first.
    """
    waiting: list[tuple[int, int, Stored | None, Iterator[Stored]]] = []
    openers = {}
    for number, (time, opener) in enumerate(pieces):
        openers[number] = opener
        waiting.append((time, number, None, iter(())))
    heapq.heapify(waiting)
    while waiting:
        _, number, message, rest = waiting[0]
        if message is None:
            rest = openers.pop(number)()
        else:
            yield message
        following = next(rest, None)
        if following is None:
            heapq.heappop(waiting)
        else:
            heapq.heapreplace(waiting, (following.time, number, following, rest))


def ros_type(name: str) -> str:
    """Return a type name as ROS 2 has it, `pkg/Name` of old bags as `pkg/msg/Name`."""
    return re.sub(r'^(\w+)/(\w+)$', r'\1/msg/\2', name)
