"""Bags out of images, there complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from llmseg_ros.bags.reading import COMPRESSED_TYPE
from llmseg_ros.bags.storage import BagError
from llmseg_ros.bags.topics import FRAME_ID, IMAGE_TOPIC, IMAGE_TYPE, NANOSECONDS


@contextmanager
def complete_bag(path: Path) -> Iterator[Path]:
    """Give a path to write a bag to; it becomes `path` once the block is through.

    Raises:
        BagError: there is something of that name.
    """
    if path.exists():
        raise BagError(f'{path} exists, choose another name')
    folder = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    folder.mkdir(parents=True)
    try:
        yield folder / path.name  # file names in the bag are made of its name
        (folder / path.name).rename(path)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def write_compressed_bag(path: Path, files: Sequence[Path], rate: float) -> None:
    """Write image files as they are as CompressedImage messages, `rate` per second.

    Raises:
        BagError: a file is neither JPEG nor PNG, or the bag exists.
    """
    types = get_typestore(Stores.ROS2_JAZZY)
    image, header, time = (
        types.types[name]
        for name in (COMPRESSED_TYPE, 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time')
    )
    with (
        complete_bag(path) as partial,
        Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        topic = f'{IMAGE_TOPIC}/compressed'
        connection = writer.add_connection(topic, COMPRESSED_TYPE, typestore=types)
        for index, file in enumerate(files):
            kind = {'.jpg': 'jpeg', '.jpeg': 'jpeg', '.png': 'png'}.get(file.suffix.lower())
            if kind is None:
                raise BagError(f'{file} is neither JPEG nor PNG: leave out --compressed')
            stamp = NANOSECONDS + round(index * NANOSECONDS / rate)  # 0 means no stamp
            seconds, nanoseconds = divmod(stamp, NANOSECONDS)
            message = image(
                header=header(stamp=time(sec=seconds, nanosec=nanoseconds), frame_id=FRAME_ID),
                format=kind,
                data=np.frombuffer(file.read_bytes(), np.uint8),
            )
            writer.write(connection, stamp, types.serialize_cdr(message, COMPRESSED_TYPE))


def write_camera_bag(path: Path, frames: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """Write (H, W, 3) uint8 RGB frames as rgb8 images into an mcap bag, `rate` per second."""
    types = get_typestore(Stores.ROS2_JAZZY)
    image, header, time = (
        types.types[name]
        for name in (IMAGE_TYPE, 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time')
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(IMAGE_TOPIC, IMAGE_TYPE, typestore=types)
        for index, rgb in enumerate(frames):
            stamp = NANOSECONDS + round(index * NANOSECONDS / rate)  # 0 means no stamp
            height, width = rgb.shape[:2]
            message = image(
                header=header(
                    stamp=time(sec=stamp // NANOSECONDS, nanosec=stamp % NANOSECONDS),
                    frame_id=FRAME_ID,
                ),
                height=height,
                width=width,
                encoding='rgb8',
                is_bigendian=0,
                step=3 * width,
                data=rgb.reshape(-1),
            )
            writer.write(connection, stamp, types.serialize_cdr(message, IMAGE_TYPE))
