"""Connected components of the masks of an image's classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.segmentation import ClassResult, Segmentation, mask_where

LEAST_SHARE = 0.001  # of the image: 17 x 17 of 640 x 480 pixels, half a patch of the encoders
MOST = 100  # of an image; COCO counts as many detections (Lin et al., ECCV 2014)
NEIGHBOURS = 8


@dataclass(frozen=True, eq=False)
class Component:
    """Pixels of one class that touch each other, by an edge or a corner.

    It may be one thing, a part of one that is hidden in between, or several that touch.

    Attributes:
        number: 1 for the largest of the image, over all classes; of this image alone.
        of: the class, with its score in the image as a whole.
        area: pixels.
        box: x, y, width, height of the smallest box around them.
        confidence: mean of theirs, in [0, 1].
        mask: (height, width) uint8 of the box, 255 on them, else 0.
    """

    number: int
    of: ClassResult
    area: int
    box: tuple[int, int, int, int]
    confidence: float
    mask: NDArray[np.uint8]


class Piece(NamedTuple):
    """A component before it is cut out: its number among those of a class, in the class's box."""

    of: ClassResult
    numbers: NDArray[np.int32]
    number: int
    area: int
    box: tuple[int, int, int, int]


def find_components(
    segmentation: Segmentation, least_share: float = LEAST_SHARE, most: int = MOST
) -> tuple[Component, ...]:
    """Return the connected components of the classes found, the largest first.

    Of equal ones those of the class that is first in the list come first, then the upper ones.

    Args:
        segmentation: of an image.
        least_share: of the image's pixels; smaller components are left out.
        most: number of components; of more the largest.
    """
    least = least_share * segmentation.labels.size
    pieces = [
        piece
        for found in segmentation.classes
        if found.area and found.area >= least
        for piece in pieces_of(found, segmentation.mask_in_box(found), least, most)
    ]
    pieces.sort(key=lambda piece: -piece.area)  # a stable sort
    return tuple(
        cut_out(piece, number, segmentation.confidence)
        for number, piece in enumerate(pieces[:most], start=1)
    )


def pieces_of(found: ClassResult, mask: NDArray[np.uint8], least: float, most: int) -> list[Piece]:
    """Return the largest components of a class, in order: `most` with `least` pixels or more.

    Args:
        found: the class.
        mask: of its box, not 0 on it.
        least: pixels of a component.
        most: number of components.
    """
    _, numbers, statistics_n5, _ = cv2.connectedComponentsWithStats(mask, connectivity=NEIGHBOURS)
    areas_n = statistics_n5[1:, cv2.CC_STAT_AREA]  # component 0 is what the class is not
    order = np.argsort(-areas_n, kind='stable')[:most]
    pieces = []
    for number in (order[areas_n[order] >= least] + 1).tolist():
        left, top, wide, high, area = statistics_n5[number].tolist()
        pieces.append(Piece(found, numbers, number, area, (left, top, wide, high)))
    return pieces


def cut_out(piece: Piece, number: int, confidence_hw: NDArray[np.float32]) -> Component:
    """Return a component with its mask and mean confidence."""
    left, top, width, height = piece.box
    inside = piece.numbers[top : top + height, left : left + width]
    mask = mask_where(inside, piece.number)
    x, y = piece.of.box[0] + left, piece.of.box[1] + top
    mean = cv2.mean(confidence_hw[y : y + height, x : x + width], mask)[0]
    box = (x, y, width, height)
    return Component(number, piece.of, piece.area, box, min(max(mean, 0.0), 1.0), mask)
