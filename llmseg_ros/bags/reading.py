"""Camera frames out of bags of any kind; no ROS needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.image import ImageError, image_to_cvimage
from rosbags.image.image import to_cvtype
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from llmseg_ros.bags.topics import IMAGE_TYPE
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.images import BadImage, compressed_to_rgb, image_to_rgb

COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
NO_COLOURS = ('/compressedDepth', '/depth')  # how topics end whose images are no pictures


class BagError(ValueError):
    """A bag can't be used; the message is one sentence that says what was found."""


class BagMessage(NamedTuple):
    """A message as it lies in a bag; `time` is when it was recorded, in nanoseconds."""

    connection: Connection
    time: int
    raw: bytes


@contextmanager
def opened_bag(path: Path) -> Iterator[AnyReader]:
    """Open a rosbag2 folder or a single .mcap, .db3 or ROS 1 .bag file.

    Raises:
        BagError: it is missing, damaged, or has no messages.
    """
    if path.is_dir() and not (path / 'metadata.yaml').exists():
        files = [file for file in sorted(path.iterdir()) if file.suffix in ('.mcap', '.db3')]
        if len(files) != 1:
            raise BagError(f'{path} has no metadata.yaml and {len(files)} bag files, expected one')
        path = files[0]
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except FileNotFoundError as error:
        raise BagError(f'bag {path} does not exist') from error
    except Exception as error:  # the parsers of the formats raise what they run into
        raise BagError(f'{path} is no bag that can be read: {error}') from error
    try:
        if not reader.message_count:
            raise BagError(f'{path} has no messages')
        yield reader
    finally:
        reader.close()


def read_messages(reader: AnyReader, connections: Sequence[Connection]) -> Iterator[BagMessage]:
    """Yield the messages of some connections by time.

    Raises:
        BagError: the bag is cut off or damaged.
    """
    messages = reader.messages(connections)
    while True:
        try:
            message = next(messages)
        except StopIteration:
            return
        except Exception as error:  # as above
            raise BagError(
                f'{reader.paths[0]} is cut off or damaged: {error or type(error).__name__}'
            ) from error
        yield BagMessage(*message)


def full_type(connection: Connection) -> str:
    """Return the type name of a connection, `pkg/Name` of old bags as `pkg/msg/Name`."""
    package, _, rest = connection.msgtype.partition('/')
    return f'{package}/msg/{rest.removeprefix("msg/")}'


def connections_of(reader: AnyReader, topic: str, types: Sequence[str]) -> list[Connection]:
    """Return the connections of a topic.

    Raises:
        BagError: it isn't in the bag, or is of another type.
    """
    found = [connection for connection in reader.connections if connection.topic == topic]
    if not found:
        raise BagError(f'the bag has no topic {topic}; it has {topics_in_words(reader)}')
    wrong = [full_type(connection) for connection in found if full_type(connection) not in types]
    if wrong:
        raise BagError(
            f'topic {topic} is of type {wrong[0]}, expected {" or ".join(types)}; '
            f'the bag has {topics_in_words(reader)}'
        )
    return found


def find_image_connections(
    reader: AnyReader, topic: str = '', other_than: str = ''
) -> list[Connection]:
    """Return the connections of the camera: of a topic, or of the only one with images.

    A compressed twin of a raw topic and depth images don't count.

    Raises:
        BagError: there is no such topic, it has no messages, or the choice is not clear.
    """
    types = (IMAGE_TYPE, COMPRESSED_TYPE)
    if topic:
        found = connections_of(reader, topic, types)
        if not any(connection.msgcount for connection in found):
            raise BagError(f'topic {topic} has no messages')
        return found
    topics = {c.topic for c in reader.connections if full_type(c) in types and c.msgcount}
    topics = {
        name
        for name in topics - {other_than}
        if name.removesuffix('/compressed') not in topics - {name} and not name.endswith(NO_COLOURS)
    }
    if not topics:
        raise BagError(f'the bag has no camera images; it has {topics_in_words(reader)}')
    if len(topics) > 1:
        raise BagError(f'choose the camera with --image, one of {", ".join(sorted(topics))}')
    return connections_of(reader, topics.pop(), types)


def topics_in_words(reader: AnyReader) -> str:
    """Return the topics with their types."""
    topics = sorted({(c.topic, full_type(c)) for c in reader.connections})
    return ', '.join(f'{topic} ({kind})' for topic, kind in topics) or 'no topics'


def message_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Return the picture of an image message, raw or compressed, as (H, W, 3) uint8 RGB.

    Raises:
        BagError: the node would reject it.
    """
    try:
        if hasattr(message, 'format'):
            return compressed_to_rgb(message)
        return np.require(image_to_rgb(message), requirements=['C', 'W'])
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
