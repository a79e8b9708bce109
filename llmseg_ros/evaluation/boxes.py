"""Masks against boxes, where boxes are all that is known of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.classes import name_key
from llmseg_ros.evaluation.datasets import (
    DatasetError,
    check_names,
    files_in,
    read_lines,
    read_rgb,
)
from llmseg_ros.formats.image_files import is_image_name
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.system.ahead import map_ahead

if TYPE_CHECKING:
    from llmseg_ros.segmenter import Segmenter

SHOWN, POINTED, MASK, INSIDE = range(4)


class Box(NamedTuple):
    """A named box; x and y in pixels, the right column and the lower row belong to it."""

    name: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class BoxedImage:
    """An image and the boxes in it."""

    id: str
    image: Path
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class BoxedDataset:
    """Images with boxes.

    Attributes:
        name: for reports.
        classes: what is evaluated; ids are 1.. in this order.
        images: sorted by id; their boxes are of these classes only.
        left_out: names of boxes that are none of the classes.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[BoxedImage, ...]
    left_out: tuple[str, ...]


def boxed_dataset(root: Path, classes: Sequence[str] = ()) -> BoxedDataset:
    """Open a folder with images/ and boxes/.

    boxes/NAME.txt has a line `name left top right bottom` for every box in images/NAME.*, in
    pixels; it may be empty.

    Args:
        root: the folder.
        classes: to evaluate, else every name in the boxes. Spaces and hyphens don't count when
            names are compared: boxes are often named `pottedplant`.

    Raises:
        DatasetError: the folder is not of this layout, a box can't be read, or no box has one of
            the classes.
    """
    images = [path for path in files_in(root / 'images') if is_image_name(path)]
    if not images:
        raise DatasetError(f'{root / "images"} has no images')
    boxes = {path: read_boxes(root / 'boxes' / f'{path.stem}.txt') for path in images}
    names = sorted({box.name for found in boxes.values() for box in found})
    classes = tuple(classes) or tuple(names)
    check_names(classes, 'the classes to evaluate')
    class_of = {joined(name): name for name in classes}
    left_out = tuple(name for name in names if joined(name) not in class_of)
    if len(left_out) == len(names):
        raise DatasetError(
            f'no box in {root / "boxes"} has one of the classes; there are {", ".join(names)}'
        )
    boxed = (
        BoxedImage(
            path.stem,
            path,
            tuple(
                box._replace(name=class_of[joined(box.name)])
                for box in boxes[path]
                if joined(box.name) in class_of
            ),
        )
        for path in images
    )
    return BoxedDataset(root.name, classes, tuple(boxed), left_out)


def joined(name: str) -> str:
    """Return what two spellings of a name have in common."""
    return name_key(name).replace(' ', '').replace('-', '')


def read_boxes(path: Path) -> tuple[Box, ...]:
    """Read a line `name left top right bottom` per box; a name may have spaces.

    Raises:
        DatasetError: the file is not there, or a line is something else.
    """
    if path.is_file() and not path.stat().st_size:
        return ()
    lines = read_lines(path, 'a line `name left top right bottom` per box')
    return tuple(parse_box(line, path) for line in lines)


def parse_box(line: str, path: Path) -> Box:
    """Read a line of a file of boxes.

    Raises:
        DatasetError: it is none.
    """
    try:
        name, *edges = line.rsplit(maxsplit=4)
        box = Box(name, *map(int, edges))
        if box.right < box.left or box.bottom < box.top:
            raise ValueError
    except (TypeError, ValueError):
        raise DatasetError(f'{path}: {line[:80]!a} is no `name left top right bottom`') from None
    return box


def score_boxed_images(
    segmenter: Segmenter, dataset: BoxedDataset, workers: int = 2
) -> Iterator[tuple[NDArray[np.int64], Mapping[str, float]]]:
    """Segment the images in their order; yield count_boxes and the wall time by stage of each.

    Raises:
        DatasetError: an image can't be read.
    """
    rule = segmenter.config.images.sixteen_bit
    rgbs = map_ahead(lambda item: read_rgb(item.image, rule), dataset.images, workers)
    images = map_ahead(segmenter.find, rgbs, int(segmenter.overlaps))
    for item, found in zip(dataset.images, images, strict=True):
        result = segmenter.finish(found)
        yield count_boxes(result, item.boxes, dataset.classes), result.timings_ms


def count_boxes(
    result: Segmentation, boxes: Sequence[Box], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Count how an image's masks lie in its boxes.

    Returns:
        (c, 4) int64 by class: 1 where the image has boxes of it, 1 where besides the mask's surest
        pixel lies in one, pixels of the mask, and those of them that lie in boxes.
    """
    counts_c4 = np.zeros((len(classes), 4), np.int64)
    for index, name in enumerate(classes):
        own = [box for box in boxes if box.name == name]
        boxed_hw = np.zeros(result.labels.shape, bool)
        for box in own:
            boxed_hw[max(0, box.top) : box.bottom + 1, max(0, box.left) : box.right + 1] = True
        mask_hw = result.labels == index + 1
        counts_c4[index, SHOWN] = bool(own)
        if mask_hw.any():
            point = surest_pixel(mask_hw, result.confidence)
            counts_c4[index, POINTED] = boxed_hw[point]
            counts_c4[index, MASK] = np.count_nonzero(mask_hw)
            counts_c4[index, INSIDE] = np.count_nonzero(mask_hw & boxed_hw)
    return counts_c4


def surest_pixel(mask_hw: NDArray[np.bool_], confidence_hw: NDArray[np.float32]) -> tuple[int, int]:
    """Return row and column of a mask's largest confidence, of equals the one deepest inside.

    After a CRF many pixels have confidence 1, and the first of them would be at an upper edge.
    """
    best = confidence_hw[mask_hw].max()
    depth_hw = cv2.distanceTransform(mask_hw.astype(np.uint8), cv2.DIST_L2, 5)
    depth_hw[~mask_hw | (confidence_hw < best)] = -1
    row, column = np.unravel_index(depth_hw.argmax(), depth_hw.shape)
    return int(row), int(column)


def pointing_accuracy(counts_c4: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return by class the share of images with boxes of it whose surest pixel lies in one.

    The pointing game (Zhang et al., ECCV 2016) with a mask for a heat map; NaN without boxes.
    """
    with np.errstate(invalid='ignore'):
        return counts_c4[:, POINTED] / counts_c4[:, SHOWN]


def mask_in_box(counts_c4: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return by class the share of the pixels of its masks that lie in its boxes, NaN without any.

    A mask in an image that has no box of the class lies outside.
    """
    with np.errstate(invalid='ignore'):
        return counts_c4[:, INSIDE] / counts_c4[:, MASK]
