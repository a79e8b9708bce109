"""Bags out of images, there complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
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
    with complete_bag(path) as partial, opened_writer(partial, compressed=True) as write:
        for index, file in enumerate(files):
            kind = {'.jpg': 'jpeg', '.jpeg': 'jpeg', '.png': 'png'}.get(file.suffix.lower())
            if kind is None:
                raise BagError(f'{file} is neither JPEG nor PNG: leave out --compressed')
            write(
                stamp_of(index / rate),
                {'format': kind, 'data': np.frombuffer(file.read_bytes(), np.uint8)},
            )


def write_camera_bag(path: Path, frames: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """Write (H, W, 3) uint8 RGB frames as rgb8 images into an mcap bag, `rate` per second."""
    write_timed_bag(path, ((index / rate, rgb) for index, rgb in enumerate(frames)))


def write_timed_bag(
    path: Path, frames: Iterable[tuple[float, NDArray[np.uint8]]], jpeg: bool = False
) -> int:
    """Write frames into an mcap bag at their times; return how many.

    Args:
        path: of the bag.
        frames: the time in seconds, 0 or later, and the (H, W, 3) uint8 RGB picture.
        jpeg: compress them, as compressed_image_transport does with its defaults.
    """
    count = 0
    with opened_writer(path, jpeg) as write:
        for count, (seconds, rgb) in enumerate(frames, start=1):  # noqa: B007
            write(stamp_of(seconds), jpeg_fields(rgb) if jpeg else raw_fields(rgb))
    return count


def stamp_of(seconds: float) -> int:
    """Return the stamp in nanoseconds of a time: one second later, because 0 means no stamp."""
    return NANOSECONDS + round(seconds * NANOSECONDS)


@contextmanager
def opened_writer(
    path: Path, compressed: bool
) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """Open a bag for a camera; give what writes an image: its stamp and fields."""
    types = get_typestore(Stores.ROS2_JAZZY)
    kind = COMPRESSED_TYPE if compressed else IMAGE_TYPE
    topic = f'{IMAGE_TOPIC}/compressed' if compressed else IMAGE_TOPIC
    image, header, time = (
        types.types[name] for name in (kind, 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time')
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=types)

        def write(stamp: int, fields: Mapping[str, Any]) -> None:
            seconds, nanoseconds = divmod(stamp, NANOSECONDS)
            begin = header(stamp=time(sec=seconds, nanosec=nanoseconds), frame_id=FRAME_ID)
            message = image(header=begin, **fields)
            writer.write(connection, stamp, types.serialize_cdr(message, kind))

        yield write


def raw_fields(rgb: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the fields of an (H, W, 3) RGB picture as rgb8."""
    height, width = rgb.shape[:2]
    return {
        'height': height,
        'width': width,
        'encoding': 'rgb8',
        'is_bigendian': 0,
        'step': 3 * width,
        'data': rgb.reshape(-1),
    }


def jpeg_fields(rgb: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the fields of an (H, W, 3) RGB picture as JPEG of OpenCV's default quality."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return {
        'format': 'rgb8; jpeg compressed bgr8',
        'data': cv2.imencode('.jpg', bgr)[1].reshape(-1),
    }
