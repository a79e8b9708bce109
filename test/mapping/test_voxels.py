"""The voxel map: votes by hand, the room, ids that go on, and its limit."""

from __future__ import annotations

import numpy as np
import pytest

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.geometry import GeometryError, depth_to_points
from llmseg_ros.mapping.voxels import VoxelMap

from ..helpers.room import CAMERA, COLOURS, FLOOR, POSES, shoot

EYE = np.eye(4)


def view(*pixels: tuple[float, float, float, int, float]) -> tuple[np.ndarray, ...]:
    """Return points, labels, confidence and colours of pixels: x, y, z, label, sureness."""
    values = np.array([pixels])
    points = values[..., :3].astype(np.float32)
    labels, confidence = values[..., 3].astype(np.uint16), values[..., 4].astype(np.float32)
    rgb = np.full((*labels.shape, 3), 100, np.uint8)
    return points, labels, confidence, rgb


def test_three_views_that_contradict_each_other() -> None:
    voxels = VoxelMap(voxel_m=1.0)
    here = (-0.3, -0.2, 1.0)
    voxels.add(*view((*here, 1, 0.9)), EYE)
    voxels.add(*view((*here, 2, 0.6)), EYE)
    voxels.add(*view((*here, 2, 0.5), (0.2, 0.3, 0.6, 2, 0.3), (*here, 1, 0.1)), EYE)
    found = voxels.voxels()
    # Views have a vote each, shared by their pixels: (0.5 + 0.3) / 3 and 0.1 / 3 in the third.
    one, two = 0.9 + 0.1 / 3, 0.6 + 0.8 / 3
    np.testing.assert_allclose(found.centres, [[0, 0, 1]])
    assert (found.labels.tolist(), found.views.tolist()) == ([1], [3])
    np.testing.assert_allclose(found.probability, [one / (one + two)], rtol=1e-6)
    voxels.add(*view((*here, 2, 0.2)), EYE)
    found = voxels.voxels()
    assert (found.labels.tolist(), found.views.tolist()) == ([2], [4])
    np.testing.assert_allclose(found.probability, [(two + 0.2) / (one + two + 0.2)], rtol=1e-6)


def test_equal_votes_and_none() -> None:
    voxels = VoxelMap(voxel_m=1.0)
    voxels.add(*view((0, 0, 1, 7, 0.5), (1, 0, 1, IGNORED, 1)), EYE)
    voxels.add(*view((0, 0, 1, 3, 0.5), (2, 0, 1, 4, 0)), EYE)
    found = voxels.voxels()
    assert found.labels.tolist() == [3, IGNORED, IGNORED]
    assert found.probability.tolist() == [0.5, 0, 0]
    assert found.views.tolist() == [2, 1, 1]


def test_unknown_points_are_nowhere() -> None:
    voxels = VoxelMap()
    nan = float('nan')
    voxels.add(*view((nan, nan, nan, 1, 1)), EYE)
    assert len(voxels) == 0
    assert len(voxels.voxels().labels) == 0
    assert voxels.rows_at(np.zeros((2, 3))).tolist() == [-1, -1]
    voxels.add(*view((nan, nan, nan, 1, 1), (0, 0, 1, 2, 1)), EYE)
    assert voxels.voxels().labels.tolist() == [2]


def test_the_room() -> None:
    """Every voxel holds the points that fell into it, and says what most of them are."""
    voxels = VoxelMap(voxel_m=0.1)
    shots = [shoot(pose) for pose in POSES]
    expected: dict[tuple[int, ...], dict[int, float]] = {}
    for shot in shots:
        points = depth_to_points(shot.depth, CAMERA)
        sure = np.full(shot.labels.shape, 0.8, np.float32)
        voxels.add(points, shot.labels, sure, shot.rgb, shot.pose)
        cells = np.rint(shot.world.reshape(-1, 3) / 0.1).astype(int)
        seen: dict[tuple[int, ...], list[int]] = {}
        for cell, label in zip(map(tuple, cells.tolist()), shot.labels.ravel(), strict=True):
            seen.setdefault(cell, []).append(int(label))
        for cell, labels in seen.items():
            votes = expected.setdefault(cell, {})
            for label in set(labels):
                votes[label] = votes.get(label, 0) + 0.8 * labels.count(label) / len(labels)
    found = voxels.voxels()
    cells = [tuple(cell) for cell in np.rint(found.centres / 0.1).astype(int).tolist()]
    inner = interior(expected.keys() & set(cells), shots)
    assert len(inner) > 500
    wrong = 0
    for cell, label, probability in zip(cells, found.labels, found.probability, strict=True):
        if cell in inner:
            votes = expected[cell]
            wrong += abs(probability - max(votes.values()) / sum(votes.values())) > 1e-4
            wrong += votes[int(label)] < max(votes.values()) - 1e-4
    assert wrong == 0
    at_floor = (found.centres[:, 2] < 0.01) & (found.probability == 1)
    assert (found.labels[at_floor] == FLOOR).mean() > 0.8
    pure = found.probability == 1
    np.testing.assert_array_equal(found.rgb[pure], COLOURS[found.labels[pure]])


def interior(cells: set[tuple[int, ...]], shots: list) -> set[tuple[int, ...]]:
    """Return the cells no point of which lies where rounding decides on the cell."""
    edge = set()
    for shot in shots:
        world = shot.world.reshape(-1, 3) / 0.1
        close = (np.abs(np.abs(world - np.rint(world)) - 0.5) < 1e-3).any(axis=1)
        for shift in np.ndindex(2, 2, 2):
            moved = np.rint(world[close] + (np.array(shift) * 2 - 1) * 2e-3).astype(int)
            edge |= set(map(tuple, moved.tolist()))
    return cells - edge


def test_points_find_their_voxels() -> None:
    voxels = VoxelMap(voxel_m=0.05)
    shot = shoot(POSES[0])
    points = depth_to_points(shot.depth, CAMERA)
    ones = np.ones(shot.labels.shape, np.float32)
    voxels.add(points, shot.labels, ones, shot.rgb, shot.pose)
    found = voxels.voxels()
    rows = voxels.rows_at(found.centres)
    assert rows.tolist() == list(range(len(found.labels)))
    assert voxels.rows_at(np.array([[0.0, 0.0, 50.0], [1e9, 0, 0]])).tolist() == [-1, -1]


def test_far_from_the_origin() -> None:
    """Metres of a map projection don't cost precision."""
    far = POSES[0].copy()
    far[:3, 3] += (500_000, 5_400_000, 0)
    shot = shoot(POSES[0])
    ones = np.ones(shot.labels.shape, np.float32)
    cells = []
    for pose in (POSES[0], far):
        voxels = VoxelMap(voxel_m=0.05)
        voxels.add(depth_to_points(shot.depth, CAMERA), shot.labels, ones, shot.rgb, pose)
        cells.append(np.rint(voxels.voxels().centres / 0.05).astype(np.int64))
    shifted = set(map(tuple, (cells[1] - (10_000_000, 108_000_000, 0)).tolist()))
    assert len(shifted ^ set(map(tuple, cells[0].tolist()))) < 0.01 * len(cells[0])


def test_a_pose_that_jumps_is_refused() -> None:
    voxels = VoxelMap(voxel_m=0.05)
    voxels.add(*view((0, 0, 1, 1, 1)), EYE)
    away = EYE.copy()
    away[0, 3] = 1e6
    with pytest.raises(GeometryError, match='the pose jumps'):
        voxels.add(*view((0, 0, 1, 1, 1)), away)


@pytest.mark.parametrize('metres', [1e18, -1e300])
def test_a_first_pose_out_of_this_world_is_refused(metres: float) -> None:
    voxels = VoxelMap(voxel_m=0.05)
    away = EYE.copy()
    away[1, 3] = metres
    with pytest.raises(GeometryError, match=r'm from the origin, too far for voxels of 0\.05 m'):
        voxels.add(*view((0, 0, 1, 1, 1)), away)
    assert (len(voxels), voxels.views) == (0, 0)


def test_the_regions_seen_longest_ago_are_forgotten() -> None:
    voxels = VoxelMap(voxel_m=1.0, limit=10)
    for step in range(6):
        pose = EYE.copy()
        pose[0, 3] = 100 * step
        voxels.add(*view(*((x, 0, 1, step, 0.5) for x in range(3))), pose)
        assert len(voxels) <= 10
    found = voxels.voxels()
    assert sorted(set(found.labels.tolist())) == [3, 4, 5]
    assert voxels.forgotten == 9
    back = EYE.copy()
    back[0, 3] = 400
    voxels.add(*view((0, 0, 1, 9, 2)), back)
    found = voxels.voxels()
    again = found.labels == 9
    assert found.centres[again].tolist() == [[400, 0, 1]]
    np.testing.assert_allclose(found.probability[again], [0.8])
    assert found.views[again].tolist() == [2]


def test_one_region_above_the_limit() -> None:
    voxels = VoxelMap(voxel_m=0.1, limit=20)
    voxels.add(*view(*((0.1 * x, 0, 1, 1, 1) for x in range(12))), EYE)
    voxels.add(*view(*((0.1 * x, 0, 1, 2, 1) for x in range(12, 30))), EYE)
    assert len(voxels) == 18  # nine tenths: forgetting is rare
    assert voxels.forgotten == 12
    assert set(voxels.voxels().labels.tolist()) == {2}


@pytest.mark.parametrize(('size', 'limit'), [(0.0, 1), (-1.0, 1), (float('nan'), 1), (0.1, 0)])
def test_impossible_maps(size: float, limit: int) -> None:
    with pytest.raises(GeometryError, match='voxels above 0 m and a limit of at least 1'):
        VoxelMap(size, limit)
