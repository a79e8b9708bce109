"""Bags of a few messages for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

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
