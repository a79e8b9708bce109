"""What a running node publishes of a frame, put together as pages show it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from llmseg_ros.formats.image_messages import image_to_rgb
from llmseg_ros.live.frames import ClassShare, LiveFrame
from llmseg_ros.msg import ClassMaskArray
from llmseg_ros.ros.camera import seconds
from llmseg_ros.visualize import colour_labels, label_contours

MOST_FRAMES = 8  # of which a part is missing
NEEDED = ('labels', 'confidence', 'overlay')
TOPICS: Mapping[str, type] = {
    'labels': Image,
    'confidence': Image,
    'overlay': Image,
    'masks': ClassMaskArray,
}
Parts = dict[str, Any]  # messages of one frame by topic


class PartCollector:
    """Gather the messages of a frame by the stamp they share."""

    def __init__(self) -> None:
        self._frames: OrderedDict[float, Parts] = OrderedDict()

    def add(self, topic: str, message: Any) -> Parts | None:
        """Take a message in; return the frame's parts once all that is needed is there."""
        parts = self._frames.setdefault(seconds(message), {})
        if topic == 'labels':
            parts.clear()  # without stamps every frame has the same: labels come first
        parts[topic] = message
        if all(topic in parts for topic in NEEDED):
            del self._frames[seconds(message)]
            return parts
        while len(self._frames) > MOST_FRAMES:
            self._frames.popitem(last=False)
        return None


def to_live_frame(number: int, parts: Parts, ids: list[int], age_ms: float | None) -> LiveFrame:
    """Put the parts of a frame together.

    Args:
        number: of the frame.
        parts: labels, confidence and overlay; masks where they came in time.
        ids: of the class list in force.
        age_ms: of the result.

    Raises:
        BadImage: a picture can't be read.
        ValueError: the labels can't be read.
    """
    labels = image_to_labels(parts['labels'])
    masks = parts.get('masks')
    scores = {mask.class_id: float(mask.score) for mask in masks.masks} if masks else {}
    counts = np.bincount(labels.ravel(), minlength=max(ids, default=0) + 1)
    return LiveFrame(
        number,
        '',
        without_labels(image_to_rgb(parts['overlay']), labels),
        labels,
        np.ascontiguousarray(image_to_rgb(parts['confidence'])[..., 0]),
        tuple(ClassShare(i, float(counts[i]) / labels.size, scores.get(i)) for i in ids),
        masks.label_version if masks else 0,
        age_ms=age_ms,
    )


def image_to_labels(message: Image) -> NDArray[np.uint16]:
    """Return the (H, W) ids of a label image of the node's.

    Raises:
        ValueError: its data is too short for its size.
    """
    dtype = np.dtype(np.uint8 if message.encoding == 'mono8' else np.uint16)
    dtype = dtype.newbyteorder('>' if message.is_bigendian else '<')
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    values = np.ascontiguousarray(rows[:, : message.width * dtype.itemsize]).view(dtype)
    return values.astype(np.uint16)


def without_labels(shown: NDArray[np.uint8], labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return the picture below an overlay, but for the contours drawn on it.

    The overlay is half the picture and half the class colour, so 2 overlay - colour is the
    picture again, to the rounding.
    """
    inside = (labels > 0) & ~label_contours(labels)
    below = np.clip(2 * shown.astype(np.int16) - colour_labels(labels), 0, 255).astype(np.uint8)
    return np.where(inside[..., None], below, shown)
