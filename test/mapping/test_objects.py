"""Objects of a map: touching voxels of one class."""

from __future__ import annotations

import numpy as np
import pytest

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.objects import find_objects
from llmseg_ros.mapping.voxels import Voxels

EDGE = 0.1


def voxels_at(*cells: tuple[int, int, int, int]) -> Voxels:
    """Return voxels at cells, each x, y, z and its label."""
    table = np.array(cells).reshape(-1, 4)
    count = len(table)
    return Voxels(
        table[:, :3] * EDGE,
        np.zeros((count, 3), np.uint8),
        table[:, 3].astype(np.uint16),
        np.linspace(0, 1, count, dtype=np.float32),
        np.ones(count, np.int32),
    )


def test_voxels_that_share_a_corner_are_one_object() -> None:
    (one, other) = find_objects(voxels_at((0, 0, 0, 3), (1, 1, 1, 3), (3, 1, 1, 3)), EDGE)
    assert (one.label, one.voxels, one.probability) == (3, 2, 0.25)
    np.testing.assert_allclose(one.centre, (0.05, 0.05, 0.05))
    np.testing.assert_allclose(one.size, (0.2, 0.2, 0.2))
    assert (other.voxels, other.probability) == (1, 1)
    np.testing.assert_allclose(other.centre, (0.3, 0.1, 0.1))


def test_classes_are_kept_apart_and_background_is_no_object() -> None:
    found = find_objects(
        voxels_at((0, 0, 0, 1), (1, 0, 0, 2), (2, 0, 0, 0), (3, 0, 0, IGNORED), (-1, 0, 0, 2)),
        EDGE,
    )
    assert sorted((of.label, of.voxels) for of in found) == [(1, 1), (2, 1), (2, 1)]


def test_small_objects_are_left_out_and_large_ones_come_first() -> None:
    row = [(0, y, 0, 5) for y in range(4)]
    block = [(9 + x, y, 0, 6) for x in range(3) for y in range(3)]
    found = find_objects(voxels_at((20, 20, 20, 7), *row, *block), EDGE, least_voxels=2)
    assert [(of.label, of.voxels) for of in found] == [(6, 9), (5, 4)]


@pytest.mark.parametrize('cells', [[], [(0, 0, 0, 0)]], ids=['empty', 'background'])
def test_no_objects(cells: list[tuple[int, int, int, int]]) -> None:
    assert find_objects(voxels_at(*cells), EDGE) == []


def test_groups_are_those_of_a_dense_grid() -> None:
    from scipy.ndimage import label

    rng = np.random.default_rng(0)
    grid = rng.random((12, 11, 10)) < 0.12
    cells = [(*cell, 1) for cell in np.argwhere(grid).tolist()]
    _, count = label(grid, np.ones((3, 3, 3)))
    found = find_objects(voxels_at(*cells), EDGE)
    assert len(found) == count > 10
    assert sum(of.voxels for of in found) == grid.sum()
