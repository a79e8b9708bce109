"""Poses between poses, gaps, jumps, and chains of frames."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from llmseg_ros.mapping.geometry import GeometryError
from llmseg_ros.mapping.poses import FrameTree, PoseTrack, StampedPose, pose_from_quaternion

SECOND = 1_000_000_000


def turned(degrees: float, x: float = 0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('z', degrees, degrees=True).as_matrix()
    pose[0, 3] = x
    return pose


def track(*poses: tuple[float, np.ndarray]) -> PoseTrack:
    return PoseTrack(StampedPose(int(time * SECOND), pose) for time, pose in poses)


def test_between_two_poses() -> None:
    found = track((1, turned(0)), (2, turned(90, 4))).at(int(1.25 * SECOND))
    np.testing.assert_allclose(found, turned(22.5, 1), atol=1e-12)


def test_poses_that_are_known_are_exact() -> None:
    poses = track((1, turned(10)), (3, turned(20)))
    np.testing.assert_array_equal(poses.at(SECOND), turned(10))
    np.testing.assert_array_equal(poses.at(3 * SECOND), turned(20))


@pytest.mark.parametrize('time', [0.99, 2.5, 4.01])
def test_no_pose_before_after_and_in_a_gap(time: float) -> None:
    poses = track((1, turned(0)), (2, turned(0)), (3.5, turned(0)), (4, turned(0)))
    assert poses.at(int(time * SECOND)) is None


def test_order_of_arrival_does_not_matter_within_a_second() -> None:
    poses = track((1, turned(0)), (1.6, turned(0, 6)), (1.2, turned(0, 2)), (1.2, turned(0, 3)))
    np.testing.assert_allclose(poses.at(int(1.1 * SECOND)), turned(0, 1.5))


def test_stamps_that_jump_back() -> None:
    with pytest.raises(GeometryError, match=r'jump back by 8\.00 s: these are two recordings'):
        track((1, turned(0)), (10, turned(0)), (2, turned(0)))


@pytest.mark.parametrize(
    ('translation', 'quaternion', 'message'),
    [
        ((0, 0, 0), (0, 0, 0, 0), 'length 0, expected 1'),
        ((0, 0, 0), (0, 0, 1, 1), r'length 1\.41'),
        ((0, 0, 0), (0, 0, 0, np.nan), 'not finite'),
        ((0, np.inf, 0), (0, 0, 0, 1), 'not finite'),
        ((0, 0, 0), (0, 1e200, 0, 1), r'length 1e\+200'),
    ],
)
def test_what_is_no_pose(translation: tuple, quaternion: tuple, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        pose_from_quaternion(translation, quaternion)


def test_quaternion() -> None:
    quaternion = Rotation.from_euler('z', 30, degrees=True).as_quat()
    np.testing.assert_allclose(pose_from_quaternion((5, 0, 0), quaternion), turned(30, 5))


def test_frames_that_hang_on_each_other() -> None:
    tree = FrameTree()
    assert not tree
    tree.add_fixed('camera', 'base', turned(0, 1))
    tree.add_moving('base', 'odom', track((1, turned(90)), (2, turned(90, 2))))
    tree.add_moving('odom', 'map', track((1, turned(0, 10)), (2, turned(0, 10))))
    assert tree
    assert tree.chain('camera') == ['camera', 'base', 'odom', 'map']
    found = tree.pose('camera', 'map', int(1.5 * SECOND))
    assert found is not None
    np.testing.assert_allclose(found[:3, 3], (11, 1, 0), atol=1e-12)
    in_odom = tree.pose('camera', 'odom', int(1.5 * SECOND))
    assert in_odom is not None
    np.testing.assert_allclose(in_odom[:3, 3], (1, 1, 0), atol=1e-12)
    assert tree.pose('camera', 'map', 5 * SECOND) is None
    np.testing.assert_array_equal(tree.pose('map', 'map', 0), np.eye(4))


def test_frames_that_do_not_hang_together() -> None:
    tree = FrameTree()
    tree.add_fixed('camera', 'base', np.eye(4))
    with pytest.raises(GeometryError, match='camera does not hang on map, but on base'):
        tree.pose('camera', 'map', 0)
    with pytest.raises(GeometryError, match='lidar does not hang on map, but on nothing'):
        tree.pose('lidar', 'map', 0)
    tree.add_fixed('base', 'camera', np.eye(4))
    with pytest.raises(GeometryError, match='camera hangs on itself by way of base'):
        tree.chain('camera')
    with pytest.raises(GeometryError, match='not finite'):
        tree.add_fixed('camera', 'base', np.full((4, 4), np.nan))
