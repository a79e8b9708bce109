"""Camera frames out of bags of any kind; no ROS needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from rosbags.image import ImageError, image_to_cvimage
from rosbags.image.image import to_cvtype
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from llmseg_ros.bags.files import ZSTD_MAGIC, files_of, opened_file
from llmseg_ros.bags.storage import BagError, Connection, Storage, Stored, in_time_order
from llmseg_ros.bags.topics import IMAGE_TYPE, message_types
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.formats.image_messages import BadImage, picture_to_rgb

COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
IN_ROS = ('cdr', 'ros1')  # how messages are encoded that can be decoded
NO_COLOURS = ('/compressedDepth', '/depth')  # how topics end whose images are no pictures


class BagMessage(NamedTuple):
    """A message as it lies in a bag; `time` is when it was recorded, in nanoseconds."""

    connection: Connection
    time: int
    raw: bytes


class Bag:
    """An open bag, of one file or several.

    Attributes:
        path: as it was named.
        connections: of all its files; what they have in common is one.
        start_time: of the first message, in nanoseconds.
        end_time: of the last.
        is_ros1: whether all its messages are of ROS 1.
    """

    def __init__(self, path: Path, storages: Sequence[Storage], notes: list[str]) -> None:
        """Take over open files, with a sentence each on what else was odd about the bag."""
        self.path = path
        self._storages = storages
        self._notes = notes
        self._ids: list[dict[int, int]] = []  # by file: id in the bag by id in the file
        self.connections: list[Connection] = []
        known: dict[tuple[Any, ...], int] = {}
        for storage in storages:
            ids = {}
            for its in storage.connections:
                key = (its.topic, its.msgtype, its.encoding, its.definition)
                ids[its.id] = number = known.setdefault(key, len(known))
                if number == len(self.connections):
                    self.connections.append(dataclasses.replace(its, id=number, msgcount=0))
                total = self.connections[number].msgcount + its.msgcount
                mine = dataclasses.replace(self.connections[number], msgcount=total)
                self.connections[number] = mine
            self._ids.append(ids)
        filled = [s for s in storages if any(c.msgcount for c in s.connections)]
        self.start_time = min((s.start_time for s in filled), default=0)
        self.end_time = max((s.end_time for s in filled), default=0)

    @property
    def notes(self) -> list[str]:
        """A sentence each on what of the bag could not be read until now."""
        return [*self._notes, *(note for storage in self._storages for note in storage.notes)]

    @property
    def message_count(self) -> int:
        """How many messages it has."""
        return sum(connection.msgcount for connection in self.connections)

    @property
    def is_ros1(self) -> bool:
        """Whether all its messages are of ROS 1."""
        return all(connection.encoding == 'ros1' for connection in self.connections)

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[BagMessage]:
        """Yield the messages of some connections by time, from `start` until before `stop`.

        Raises:
            BagError: the bag is cut off or damaged, so that it does not go on.
        """
        wanted = {connection.id for connection in connections}
        pieces = []
        for storage, ids in zip(self._storages, self._ids, strict=True):
            its = {local for local, number in ids.items() if number in wanted}
            if its:
                opener = functools.partial(self._messages_of, storage, ids, its, start, stop)
                pieces.append((storage.start_time, opener))
        for time, number, raw in in_time_order(pieces):
            connection = self.connections[number]
            yield BagMessage(connection, time, decompressed_message(connection, raw))

    def deserialize(self, message: BagMessage) -> Any:
        """Return a message of a type that is known here, without what the bag says about it.

        Raises:
            BagError: it does not decode.
        """
        kind, topic = message.connection.msgtype, message.connection.topic
        try:
            if message.connection.encoding == 'ros1':
                return ros1_types().deserialize_ros1(message.raw, kind)
            return known_types().deserialize_cdr(message.raw, kind)
        except Exception as error:  # rosbags raises what its generated code runs into
            raise BagError(
                f'a message of {topic} does not decode: {error or type(error).__name__}'
            ) from error

    def _messages_of(
        self,
        storage: Storage,
        ids: dict[int, int],
        wanted: Collection[int],
        start: int | None,
        stop: int | None,
    ) -> Iterator[Stored]:
        for time, local, raw in storage.messages(wanted, start, stop):
            yield Stored(time, ids[local], raw)


@functools.cache
def known_types() -> Typestore:
    """Return the types of ROS 2 and our own, read once."""
    return message_types()


@functools.cache
def ros1_types() -> Typestore:
    """Return the types of ROS 1, read once."""
    return get_typestore(Stores.ROS1_NOETIC)


def decompressed_message(connection: Connection, raw: bytes) -> bytes:
    """Return a message without its compression, where it has one: no CDR begins like that."""
    if connection.encoding != 'cdr' or not raw.startswith(ZSTD_MAGIC):
        return raw
    unpacking = zstandard.ZstdDecompressor().decompressobj()
    try:
        plain = unpacking.decompress(raw)
    except zstandard.ZstdError:
        return raw  # which does not decode: it costs this message
    return plain if unpacking.eof else raw


@contextmanager
def opened_bag(path: Path) -> Iterator[Bag]:
    """Open a rosbag2 folder or a single file of a bag, of ROS 2 or ROS 1.

    Of a bag with several files those that can't be read are left out, and named in its notes.

    Raises:
        BagError: it is missing, or none of it can be read.
    """
    notes: list[str] = []
    files = files_of(path, notes)
    with ExitStack() as stack:
        storages, problems = [], []
        for file in files:
            try:
                storages.append(opened_file(file, stack, notes))
            except BagError as error:
                problems.append(str(error))
        if not storages:
            raise BagError('; '.join(problems[:1]))
        yield Bag(path, storages, [*notes, *(f'left out: {problem}' for problem in problems)])


def connections_of(bag: Bag, topic: str, types: Sequence[str]) -> list[Connection]:
    """Return the connections of a topic that are of some types; others of its name don't count.

    Raises:
        BagError: it isn't in the bag, or is of another type.
    """
    named = [connection for connection in bag.connections if connection.topic == topic]
    if not named:
        raise BagError(f'the bag has no topic {topic}; it has {topics_in_words(bag)}')
    found = [c for c in named if c.msgtype in types and c.encoding in IN_ROS]
    if not found:
        raise BagError(
            f'topic {topic} is of type {type_in_words(named[0])}, expected {" or ".join(types)}; '
            f'the bag has {topics_in_words(bag)}'
        )
    return found


def find_image_connections(bag: Bag, topic: str = '', other_than: str = '') -> list[Connection]:
    """Return the connections of the camera: of a topic, or of the only one with images.

    A compressed twin of a raw topic and depth images don't count.

    Raises:
        BagError: there is no such topic, it has no messages, or the choice is not clear.
    """
    types = (IMAGE_TYPE, COMPRESSED_TYPE)
    if not bag.message_count:
        readable = '; '.join(['', *bag.notes]).replace('; ', ' that can be read: ', 1)
        raise BagError(f'{bag.path} has no messages{readable}')
    if topic:
        found = connections_of(bag, topic, types)
        if not any(connection.msgcount for connection in found):
            raise BagError(f'topic {topic} has no messages')
        return found
    images = [c for c in bag.connections if c.msgtype in types and c.encoding in IN_ROS]
    topics = {connection.topic for connection in images if connection.msgcount}
    topics = {
        name
        for name in topics - {other_than}
        if name.removesuffix('/compressed') not in topics - {name} and not name.endswith(NO_COLOURS)
    }
    if not topics:
        raise BagError(f'the bag has no camera images; it has {topics_in_words(bag)}')
    if len(topics) > 1:
        raise BagError(f'choose the camera with --image, one of {", ".join(sorted(topics))}')
    return connections_of(bag, topics.pop(), types)


def topics_in_words(bag: Bag) -> str:
    """Return the topics with their types."""
    topics = sorted({(c.topic, type_in_words(c)) for c in bag.connections})
    return ', '.join(f'{topic} ({kind})' for topic, kind in topics) or 'no topics'


def type_in_words(connection: Connection) -> str:
    """Return the type of a topic, and its encoding where that is none of ROS."""
    kind = connection.msgtype or 'no type'
    encoding = connection.encoding or 'unknown encoding'
    return kind if connection.encoding in IN_ROS else f'{kind} in {encoding}'


def message_to_rgb(message: Any, sixteen_bit: str = 'high_byte') -> NDArray[np.uint8]:
    """Return the picture of an image message, raw or compressed, as (H, W, 3) uint8 RGB.

    Args:
        message: of either type.
        sixteen_bit: high_byte or stretch: how 16 bits become 8.

    Raises:
        BagError: the node would reject it.
    """
    try:
        return np.require(picture_to_rgb(message, sixteen_bit), requirements=['C', 'W'])
    except BadImage as error:
        raise BagError(f'an image can not be used: {error}') from error


def message_to_labels(message: Any) -> NDArray[np.uint16]:
    """Return the (H, W) values of a label image, 65535 where a pixel is unlabelled.

    Raises:
        BagError: it isn't one of 8 or 16 bits, or is too short.
    """
    if message.encoding not in ('mono8', '8UC1', 'mono16', '16UC1', '16SC1'):
        raise BagError(f'label images are mono8, mono16 or 16SC1, not {message.encoding[:32]!a}')
    try:
        values: NDArray[Any] = np.ascontiguousarray(image_to_cvimage(without_padding(message)))
    except (ImageError, ValueError, TypeError) as error:
        raise BagError(f'a label image does not decode: {error}') from error
    if values.dtype != np.uint8:
        return values.view(np.uint16)
    labels = values.astype(np.uint16)
    labels[values == 255] = IGNORED
    return labels


def without_padding(message: Any) -> Any:
    """Return an image message whose rows follow each other without padding.

    Raises:
        ValueError: its data is too short for its size.
    """
    _, _, kind, channels = to_cvtype(message.encoding)
    row = message.width * channels * np.dtype(kind).itemsize
    if not row or message.step < row or len(message.data) < message.step * message.height:
        raise ValueError(
            f'{message.width}x{message.height} {message.encoding} with step {message.step} '
            f'in {len(message.data)} bytes'
        )
    if message.step == row:
        return message
    rows = message.data[: message.step * message.height].reshape(message.height, message.step)
    return dataclasses.replace(message, step=row, data=rows[:, :row].reshape(-1))
