"""The demo's two bags: the camera frames that go in, the messages that come out."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from llmseg_ros.files import shipped_path

IMAGE_TOPIC = '/camera/image'
IMAGE_TYPE = 'sensor_msgs/msg/Image'
FRAME_ID = 'camera'
CLASSES_TOPIC = '/seg/classes'
LABELS_TOPIC = '/seg/labels'
MASKS_TOPIC = '/seg/masks'
LABEL_MAP_TOPIC = '/seg/label_map'
DIAGNOSTICS_TOPIC = '/diagnostics'
RECEIVED_TYPES = {
    LABELS_TOPIC: IMAGE_TYPE,
    MASKS_TOPIC: 'llmseg_ros/msg/ClassMaskArray',
    LABEL_MAP_TOPIC: 'llmseg_ros/msg/LabelMap',
    DIAGNOSTICS_TOPIC: 'diagnostic_msgs/msg/DiagnosticArray',
}
MESSAGES = ('ClassInfo', 'ClassList', 'ClassMask', 'ClassMaskArray', 'LabelMap')
NANOSECONDS = 1_000_000_000


def message_types() -> Typestore:
    """Return the types of ROS 2 Jazzy and our own messages."""
    types = get_typestore(Stores.ROS2_JAZZY)
    for name in MESSAGES:
        text = shipped_path(f'msg/{name}.msg').read_text(encoding='utf-8')
        types.register(get_types_from_msg(text, f'llmseg_ros/msg/{name}'))
    return types


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


@dataclass
class Received:
    """What the recording process received, by the stamp of the camera frame in nanoseconds.

    Attributes:
        labels: (H, W) label images.
        arrivals: when each label image arrived, in nanoseconds since the epoch.
        masks: class names of the masks.
        versions: class list version that the masks were made under.
        names: class names by id, of all versions.
        encoder: as the node's diagnostics name it.
    """

    labels: dict[int, NDArray[np.integer]] = field(default_factory=dict)
    arrivals: dict[int, int] = field(default_factory=dict)
    masks: dict[int, list[str]] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    encoder: str = ''


def read_received(path: Path) -> Received:
    """Read the bag of received labels, masks, label maps and diagnostics."""
    received = Received()
    with AnyReader([path]) as reader:
        for connection, arrival, raw in reader.messages():
            message: Any = reader.deserialize(raw, connection.msgtype)
            if connection.topic == LABEL_MAP_TOPIC:
                received.names.update({entry.id: entry.name for entry in message.classes})
            elif connection.topic == MASKS_TOPIC:
                received.masks[stamp_of(message)] = [mask.class_name for mask in message.masks]
                received.versions[stamp_of(message)] = message.label_version
            elif connection.topic == LABELS_TOPIC:
                received.labels[stamp_of(message)] = label_array(message)
                received.arrivals[stamp_of(message)] = arrival
            elif connection.topic == DIAGNOSTICS_TOPIC:
                values = {v.key: v.value for status in message.status for v in status.values}
                received.encoder = values.get('encoder', received.encoder)
    return received


def read_camera_frames(path: Path, stamps: Container[int]) -> dict[int, NDArray[np.uint8]]:
    """Return the camera frames with these stamps, each (H, W, 3) uint8 RGB."""
    frames = {}
    with AnyReader([path]) as reader:
        for connection, stamp, raw in reader.messages():
            if stamp in stamps:
                message: Any = reader.deserialize(raw, connection.msgtype)
                frames[stamp] = message.data.reshape(message.height, message.width, 3)
    return frames


def stamp_of(message: Any) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    return int(message.header.stamp.sec) * NANOSECONDS + int(message.header.stamp.nanosec)


def label_array(message: Any) -> NDArray[np.integer]:
    """Return the (H, W) ids of a label image, mono8 or mono16."""
    dtype = np.dtype(np.uint8 if message.encoding == 'mono8' else np.uint16)
    dtype = dtype.newbyteorder('>' if message.is_bigendian else '<')
    rows = message.data.reshape(message.height, message.step)
    return np.ascontiguousarray(rows[:, : message.width * dtype.itemsize]).view(dtype)
