"""Bags of a few messages for the tests."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mcap.writer
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from llmseg_ros.bags.frames import to_frame
from llmseg_ros.bags.reading import find_image_connections, opened_bag

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
STRING = 'std_msgs/msg/String'
SECOND = 1_000_000_000


def header(stamp: int, frame_id: str = 'camera') -> Any:
    time = TYPES.types['builtin_interfaces/msg/Time'](*divmod(stamp, SECOND))
    return TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)


def image(
    pixels: NDArray[Any],
    encoding: str,
    stamp: int = SECOND,
    padding: int = 0,
    width: int | None = None,
) -> Any:
    """Make an image message with unused bytes at the end of every row, or of a wrong width."""
    height, width = pixels.shape[0], width or pixels.shape[1]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return TYPES.types[IMAGE](
        header(stamp), height, width, encoding, 0, padded.shape[1], padded.reshape(-1)
    )


def compressed(data: bytes, stamp: int = SECOND) -> Any:
    return TYPES.types[COMPRESSED](header(stamp), 'jpeg', np.frombuffer(data, np.uint8))


def string(text: str) -> Any:
    return TYPES.types[STRING](text)


def write_bag(
    path: Path,
    messages: Sequence[tuple[str, str, Any]],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Write (topic, type, message) a second apart, from second 1 on."""
    writer = Writer(path, version=9, storage_plugin=storage)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for index, (topic, kind, message) in enumerate(messages, start=1):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            raw = TYPES.serialize_cdr(message, kind)
            writer.write(connections[topic], index * SECOND, raw)
    return path


def write_bags(photographs: Path, folder: Path, count: int) -> Path:
    """Write bags bag0, bag1 ... of the photographs with true labels, in another order each."""
    paths = sorted((photographs / 'images').iterdir())
    folder.mkdir(parents=True)
    for number in range(count):
        messages: list[tuple[str, str, Any]] = []
        for index in range(len(paths)):
            path = paths[(index * (1 + number % 2) + number) % len(paths)]
            stamp = (1 + index) * SECOND
            rgb = np.array(Image.open(path).convert('RGB'))
            labels = np.array(Image.open(photographs / 'labels' / path.name))
            messages.append(('/camera', IMAGE, image(rgb, 'rgb8', stamp)))
            messages.append(('/truth', IMAGE, image(labels, 'mono8', stamp)))
        write_bag(folder / f'bag{number}', messages)
    return folder


def write_ros1_bag(path: Path, rgb: NDArray[np.uint8]) -> Path:
    """Write one rgb8 image, of second 1, into a bag of ROS 1."""
    types = get_typestore(Stores.ROS1_NOETIC)
    time = types.types['builtin_interfaces/msg/Time'](1, 0)
    header = types.types['std_msgs/msg/Header'](0, time, 'camera')
    height, width = rgb.shape[:2]
    message = types.types[IMAGE](header, height, width, 'rgb8', 0, 3 * width, rgb.reshape(-1))
    with Writer1(path) as writer:
        connection = writer.add_connection('/camera/image', IMAGE, typestore=types)
        writer.write(connection, SECOND, types.serialize_ros1(message, IMAGE))
    return path


class Channel(NamedTuple):
    """A topic of an mcap file: with a type or without, its definition in whatever encoding."""

    topic: str = '/camera'
    msgtype: str = IMAGE
    schema_encoding: str = 'ros2msg'
    definition: bytes = TYPES.generate_msgdef(IMAGE, ros_version=2)[0].encode()
    encoding: str = 'cdr'


def write_mcap(
    path: Path,
    channels: Sequence[Channel],
    messages: Sequence[tuple[int, int, bytes]],
    profile: str = 'ros2',
    **options: Any,
) -> Path:
    """Write (index of a channel, time of recording, message) with options of the mcap package."""
    with path.open('wb') as file:
        writer = mcap.writer.Writer(file, **options)
        writer.start(profile)
        numbers = []
        for topic, msgtype, *schema, encoding in channels:
            schema_id = writer.register_schema(msgtype, *schema) if msgtype else 0
            numbers.append(writer.register_channel(topic, encoding, schema_id))
        for channel, time, raw in messages:
            writer.add_message(numbers[channel], time, raw, publish_time=time)
        writer.finish()
    return path


def picture(seconds: int, value: int = 0, size: tuple[int, int] = (2, 3)) -> bytes:
    """Return an rgb8 image of one grey as CDR."""
    pixels = np.full((*size, 3), value or seconds, np.uint8)
    return bytes(TYPES.serialize_cdr(image(pixels, 'rgb8', seconds * SECOND), IMAGE))


def pictures(count: int, channel: int = 0) -> list[tuple[int, int, bytes]]:
    """Return images of seconds 1, 2 ..., each of the grey of its second."""
    return [(channel, s * SECOND, picture(s)) for s in range(1, count + 1)]


def record_ends(path: Path) -> list[int]:
    """Return where the records of an mcap file end, the magic bytes before them included."""
    content, ends = path.read_bytes(), [8]
    while ends[-1] < len(content) - 8:
        (length,) = struct.unpack_from('<Q', content, ends[-1] + 1)
        ends.append(ends[-1] + 9 + length)
    return ends


def write_humble_db3(
    path: Path, topics: Sequence[tuple[str, str]], messages: Sequence[tuple[int, int, bytes]]
) -> sqlite3.Connection:
    """Write a bag file as Humble's recorder does, without definitions; return it open."""
    database = sqlite3.connect(path)
    database.executescript(
        'CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);'
        "INSERT INTO schema VALUES(3, 'humble');"
        'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
        ' serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);'
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,'
        ' timestamp INTEGER NOT NULL, data BLOB NOT NULL);'
        'CREATE INDEX timestamp_idx ON messages (timestamp ASC);'
    )
    for index, (topic, kind) in enumerate(topics):
        row = (index, topic, kind, 'cdr', '')
        database.execute('INSERT INTO topics VALUES(?, ?, ?, ?, ?)', row)
    add_to_db3(database, messages)
    return database


def add_to_db3(
    database: sqlite3.Connection, messages: Sequence[tuple[int, int, bytes]], commit: bool = True
) -> None:
    """Append (id of a topic, time of recording, message)."""
    query = 'INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)'
    database.executemany(query, messages)
    if commit:
        database.commit()


def contents(path: Path) -> list[tuple[str, str, str, int, bytes]]:
    """Return topic, type, encoding, time and bytes of all messages of a bag."""
    with opened_bag(path) as bag:
        return [
            (c.topic, c.msgtype, c.encoding, time, raw)
            for c, time, raw in bag.messages(bag.connections)
        ]


def greys(path: Path, topic: str = '') -> list[int]:
    """Return the value of the first pixel of every camera frame of a bag."""
    with opened_bag(path) as bag:
        messages = bag.messages(find_image_connections(bag, topic))
        return [int(to_frame(bag, message).rgb[0, 0, 0]) for message in messages]


def notes_of(path: Path) -> list[str]:
    """Return what is said about a bag that was read to its end."""
    with opened_bag(path) as bag:
        for _ in bag.messages(bag.connections):
            pass
        return bag.notes


def read_topic(path: Path, topic: str) -> list[Any]:
    """Return the messages of a topic."""
    with opened_bag(path) as bag:
        wanted = [connection for connection in bag.connections if connection.topic == topic]
        return [bag.deserialize(message) for message in bag.messages(wanted)]


def png(rgb: NDArray[np.uint8]) -> bytes:
    """Return a picture as PNG."""
    written, data = cv2.imencode('.png', rgb[..., ::-1])
    assert written
    return data.tobytes()
