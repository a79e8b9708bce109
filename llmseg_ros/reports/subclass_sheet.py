"""A picture of every subclass of a class: where on an image it wins over the class's name."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.evaluation.subclass_check import ClassCheck, Contest
from llmseg_ros.files import replacing
from llmseg_ros.visualize import add_legend, add_line, contact_sheet, overlay

COLUMNS = 3
TILE_WIDTH = 420
CLASS_ID, WON_ID = 1, 2  # the labels of a Sight


def write_sheet(checked: ClassCheck, path: Path) -> None:
    """Write the sheet of a class as a PNG, a tile for each subclass.

    Raises:
        OSError: it can't be written.
        ValueError: the class was found in no image.
    """
    from PIL import Image

    tiles = [tile(contest, checked) for contest in checked.contests if contest.sight]
    if not tiles:
        raise ValueError(f'{checked.name} was found in no image')
    sheet = contact_sheet(tiles, min(COLUMNS, len(tiles)), TILE_WIDTH)
    legend = [(CLASS_ID, f'{checked.name}: its name is above'), (WON_ID, 'the subclass is above')]
    with replacing(path) as partial:
        Image.fromarray(add_legend(sheet, legend)).save(partial, format='PNG')


def tile(contest: Contest, checked: ClassCheck) -> NDArray[np.uint8]:
    """Return the image of a subclass with the patches it wins, and a line that says how many."""
    sight = contest.sight
    assert sight is not None
    height = math.ceil(sight.rgb.shape[0] * TILE_WIDTH / sight.rgb.shape[1])
    size = TILE_WIDTH, height
    rgb = np.asarray(cv2.resize(sight.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels = cv2.resize(sight.labels_hw, size, interpolation=cv2.INTER_NEAREST)
    share = f'{100 * contest.won / checked.patches:.1f} %' if contest.won else 'never'
    return add_line(
        overlay(rgb, np.asarray(labels)), f'{contest.name}: {share}, {Path(sight.image).name}'
    )
