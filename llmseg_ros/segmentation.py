"""The result of segmenting one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.classes import BACKGROUND_ID, name_key

STREAM_GAP_NS = 2_000_000_000  # between frames that may still show the same scene


class Gated(Protocol):
    """What the gate of the next frame asks of a frame."""

    @property
    def candidates(self) -> frozenset[int]:
        """Ids of the classes that passed the gate; 0 where a name that no class may be did."""


AnyGated = TypeVar('AnyGated', bound=Gated)


@dataclass(frozen=True)
class ClassResult:
    """One class of the vocabulary in one image.

    Attributes:
        id: label value, 1 or more.
        name: class name.
        score: how strongly the image as a whole shows the class, in [0, 1].
        area: pixels labelled with the class.
        box: x, y, width, height of the smallest box around them; zeros where area is 0.
    """

    id: int
    name: str
    score: float
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """How probable background and each candidate are on the patches, before refinement.

    Attributes:
        ids: (k,) uint16 label values, background first.
        probabilities_khw: (k, h, w) float32 in [0, 1], over the whole image.
    """

    ids: NDArray[np.uint16]
    probabilities_khw: NDArray[np.float32]


@dataclass(frozen=True)
class Segmentation:
    """Labels of one image, and what led to them.

    Attributes:
        labels: (H, W) uint16; 0 background, else the id of a class.
        confidence: (H, W) float32 in [0, 1], the probability of the label given.
        classes: every class of the vocabulary, in its order, found or not.
        version: of the class list the labels belong to.
        timings_ms: wall time by stage (encode, gate, fuse, refine).
        candidates: ids of the classes that passed the gate, for the gate of the next frame; 0
            where a name that no class may be did.
    """

    labels: NDArray[np.uint16]
    confidence: NDArray[np.float32]
    classes: tuple[ClassResult, ...]
    version: int
    timings_ms: Mapping[str, float]
    candidates: frozenset[int] = frozenset()

    @property
    def found(self) -> tuple[ClassResult, ...]:
        """The classes with at least one pixel, largest first."""
        return tuple(sorted((c for c in self.classes if c.area), key=lambda c: -c.area))

    def mask_in_box(self, found: ClassResult) -> NDArray[np.uint8]:
        """Return the mask of a class, cropped to its box: (height, width), 255 on it, else 0."""
        x, y, width, height = found.box
        return mask_where(self.labels[y : y + height, x : x + width], found.id)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the (H, W) bool mask of a class.

        Raises:
            KeyError: the class is not in the list.
        """
        for result in self.classes:
            if name_key(result.name) == name_key(name):
                return self.labels == result.id
        raise KeyError(f'{name!a} is not in the class list {[c.name for c in self.classes]}')


def background_only(
    rgb: NDArray[np.uint8], version: int, timings_ms: dict[str, float]
) -> Segmentation:
    """Return the segmentation of an image under an empty class list."""
    shape = rgb.shape[:2]
    labels = np.full(shape, BACKGROUND_ID, dtype=np.uint16)
    return Segmentation(labels, np.ones(shape, dtype=np.float32), (), version, timings_ms)


def mask_where(numbers_hw: NDArray[np.integer[Any]], number: int) -> NDArray[np.uint8]:
    """Return the (H, W) mask, 255 inside, of where numbers are this one.

    cv2.compare is as fast, but takes a single pixel for a number.
    """
    mask = (numbers_hw == number).view(np.uint8)
    mask *= 255
    return mask


def frame_before(last: tuple[int, AnyGated] | None, stamp: int) -> AnyGated | None:
    """Return the last frame where it was a moment before the stamp, in nanoseconds."""
    if last is None or not 0 <= stamp - last[0] <= STREAM_GAP_NS:
        return None
    return last[1]
