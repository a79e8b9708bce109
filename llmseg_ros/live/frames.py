"""A segmented frame as pages show it, and its bytes on the socket."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.segmentation import ClassMaps

LONGEST_SIDE = 1280  # pixels, of what is sent
JPEG_QUALITY = 85
MOST_MAPS = 16  # classes whose map is sent, those most probable somewhere


class ClassShare(NamedTuple):
    """How much of a frame a class has.

    Attributes:
        id: label value.
        share: part of the pixels, in [0, 1].
        score: how strongly the image as a whole shows the class, in [0, 1]; None if not known.
    """

    id: int
    share: float
    score: float | None


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A segmented frame.

    Attributes:
        number: of the frame, from 1.
        name: of its file or scene; may be empty.
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint16 ids, 0 background.
        confidence: (H, W) uint8, 255 is probability 1.
        classes: those of the list, found or not.
        version: of the class list.
        maps: probabilities of the candidates by patch; None where they are not known.
        timings_ms: by stage.
        age_ms: from the frame's capture to its result; None if not known.
    """

    number: int
    name: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    confidence: NDArray[np.uint8]
    classes: tuple[ClassShare, ...]
    version: int
    maps: ClassMaps | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    age_ms: float | None = None


def encode_frame(frame: LiveFrame) -> bytes:
    """Return a frame as one message: length and text of a JSON header, then its parts.

    The parts are, of the picture scaled down to 1280 pixels: a JPEG of it, a PNG of the labels as
    indices into the header's `ids`, a grey JPEG of the confidence, and the maps as bytes, 255 for
    probability 1. A PNG of more than 256 ids has their low byte in red, the high one in green.
    """
    rgb, labels, confidence = (scale_down(array) for array in shown(frame))
    ids, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    map_ids, maps_khw = strongest_maps(frame.maps)
    parts = [
        encode('.jpg', rgb[..., ::-1]),
        encode_index(index, wide=len(ids) > 256),
        encode('.jpg', confidence),
        maps_khw.tobytes(),
    ]
    header = {
        'frame': frame.number,
        'name': frame.name,
        'width': frame.rgb.shape[1],
        'height': frame.rgb.shape[0],
        'ids': ids.tolist(),
        'wide': len(ids) > 256,
        'classes': [[c.id, rounded(c.share), rounded(c.score)] for c in frame.classes],
        'version': frame.version,
        'maps': {'ids': map_ids, 'shape': maps_khw.shape[1:]} if frame.maps else None,
        'timings_ms': {stage: round(ms, 1) for stage, ms in frame.timings_ms.items()},
        'age_ms': None if frame.age_ms is None else round(frame.age_ms, 1),
        'parts': [len(part) for part in parts],
    }
    text = json.dumps(header).encode()
    return b''.join((struct.pack('<I', len(text)), text, *parts))


def shown(frame: LiveFrame) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return frame.rgb, frame.labels, frame.confidence


def scale_down(array: NDArray[Any]) -> NDArray[Any]:
    """Return a picture, labels or confidence no longer than what is sent; labels stay ids."""
    height, width = array.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return array
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_NEAREST if array.dtype == np.uint16 else cv2.INTER_AREA
    return np.asarray(cv2.resize(array, size, interpolation=how))


def encode(suffix: str, pixels: NDArray[np.uint8]) -> bytes:
    settings = {
        '.jpg': [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        '.png': [cv2.IMWRITE_PNG_COMPRESSION, 1],
    }
    return cv2.imencode(suffix, np.ascontiguousarray(pixels), settings[suffix])[1].tobytes()


def encode_index(index: NDArray[np.integer], wide: bool) -> bytes:
    """Return (H, W) indices as a grey PNG; wide ones as colours, low byte red, high byte green."""
    if not wide:
        return encode('.png', index.astype(np.uint8))
    bgr = np.zeros((*index.shape, 3), np.uint8)
    bgr[..., 2], bgr[..., 1] = index & 255, index >> 8
    return encode('.png', bgr)


def strongest_maps(maps: ClassMaps | None) -> tuple[list[int], NDArray[np.uint8]]:
    """Return the ids and (k, h, w) bytes of the maps that are sent, the strongest first."""
    if maps is None:
        return [], np.zeros((0, 0, 0), np.uint8)
    highest = maps.probabilities_khw.max(axis=(1, 2))
    chosen = np.argsort(-highest, kind='stable')[:MOST_MAPS]
    maps_khw = np.rint(255 * maps.probabilities_khw[chosen]).astype(np.uint8)
    return maps.ids[chosen].tolist(), maps_khw


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
