"""What the demo received: the messages of the node by the stamp of their camera frame."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.reading import opened_bag
from llmseg_ros.bags.topics import (
    DIAGNOSTICS_TOPIC,
    LABEL_MAP_TOPIC,
    LABELS_TOPIC,
    MASKS_TOPIC,
    NANOSECONDS,
    RECEIVED_TYPES,
)


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
    with opened_bag(path) as bag:
        for found in bag.messages([c for c in bag.connections if c.topic in RECEIVED_TYPES]):
            connection, arrival, _ = found
            message = bag.deserialize(found)
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
    with opened_bag(path) as bag:
        for found in bag.messages(bag.connections):
            stamp = found.time
            if stamp in stamps:
                message = bag.deserialize(found)
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
