"""Points of a ray-cast room, of lenses and sizes of all kinds; bad cameras and poses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmseg_ros.mapping.geometry import (
    Camera,
    GeometryError,
    camera_from_info,
    checked_pose,
    depth_in_metres,
    depth_to_points,
    fit_depth,
    project,
    transform,
)

from ..helpers.room import CAMERA, LENS, POSES, shoot

RATIONAL = (0.4, -0.1, 0.0005, -0.0003, 0.02, 0.7, -0.05, 0.01)
RATIONAL_MODEL = 'rational_polynomial'
LENSES = pytest.mark.parametrize(
    'lens', [(), LENS, RATIONAL], ids=['none', 'plumb_bob', 'rational']
)


@LENSES
@pytest.mark.parametrize('pose', POSES)
def test_points_lie_where_the_rays_hit(lens: tuple[float, ...], pose: Any) -> None:
    camera = replace(CAMERA, distortion=lens)
    shot = shoot(pose, camera)
    points = depth_to_points(depth_in_metres(shot.depth), camera)
    assert points.shape == (120, 160, 3)
    world = transform(points.reshape(-1, 3), pose)
    assert np.abs(world - shot.world.reshape(-1, 3)).max() < 1e-4


@LENSES
def test_points_are_seen_by_their_pixels(lens: tuple[float, ...]) -> None:
    camera = replace(CAMERA, distortion=lens)
    points = depth_to_points(shoot(POSES[0], camera).depth, camera)
    x, y = project(points.reshape(-1, 3), camera).T
    rows, columns = np.mgrid[:120, :160]
    assert np.abs(x - columns.ravel()).max() < 1e-2
    assert np.abs(y - rows.ravel()).max() < 1e-2


def test_thin_prism_and_tilt() -> None:
    """Drivers of some cameras always send the 14 numbers that OpenCV knows."""
    depth = shoot(POSES[0]).depth
    padded = camera_from_info(info(d=[*RATIONAL, *[0.0] * 6], distortion_model=RATIONAL_MODEL))
    points = depth_to_points(depth, replace(CAMERA, distortion=RATIONAL))
    np.testing.assert_allclose(depth_to_points(depth, padded), points, atol=1e-6)
    bent = replace(CAMERA, distortion=(*RATIONAL, 0.002, -0.001, 0.001, 0.002, 0.01, -0.02))
    pixels = project(depth_to_points(depth, bent).reshape(-1, 3), bent)
    rows, columns = np.mgrid[:120, :160]
    assert np.abs(pixels - np.stack([columns, rows], axis=-1).reshape(-1, 2)).max() < 1e-2


def test_a_lens_holds_no_farther_than_it_bends_back() -> None:
    """What OpenCV returns for the corners of this one is seen elsewhere: they have no points."""
    camera = Camera(640, 480, 500, 500, 320, 240, (-0.45, 0.25, 0, 0, -0.08))
    points = depth_to_points(np.ones((480, 640), np.float32), camera)
    unknown = np.isnan(points).all(axis=2)
    assert (np.isnan(points).any(axis=2) == unknown).all()
    assert 0.004 < unknown.mean() < 0.008
    assert unknown[0, 0]
    rows, columns = np.nonzero(~unknown)
    seen = project(points[rows, columns], camera)
    assert np.abs(seen - np.stack([columns, rows], axis=1)).max() < 0.6


@pytest.mark.parametrize('size', [20.0, 1e6, 1e300])
def test_coefficients_of_no_lens(size: float) -> None:
    camera = replace(CAMERA, distortion=(-size, size, size, 0, -size))
    with pytest.raises(GeometryError, match=r'can not be undone for \d+ % of its pixels'):
        depth_to_points(np.ones((120, 160), np.float32), camera)


def test_unknown_depth() -> None:
    values = np.array([[0, 1500]], np.uint16)
    np.testing.assert_allclose(depth_in_metres(values), [[np.nan, 1.5]])
    np.testing.assert_allclose(depth_in_metres(values, 1 / 5000), [[np.nan, 0.3]])
    floats = np.array([[0, -1, np.nan, np.inf, 0.25]], np.float32)
    np.testing.assert_allclose(depth_in_metres(floats), [[np.nan] * 4 + [0.25]])
    with pytest.raises(GeometryError, match='not uint8'):
        depth_in_metres(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize('times', [2, 0.5])
def test_depth_of_another_size(times: float) -> None:
    """What half or twice the pixels see lies on the same wall."""
    width, height = round(160 * times), round(120 * times)
    pose = POSES[0]
    shot = shoot(pose, CAMERA.scaled(width, height))
    points = depth_to_points(fit_depth(shot.depth, 160, 120), CAMERA)
    world = transform(points.reshape(-1, 3), pose)
    error = np.linalg.norm(world - shoot(pose).world.reshape(-1, 3), axis=1)
    assert np.median(error) < 0.04  # half a pixel of depth on slanted walls
    depth = shot.depth
    assert np.isin(fit_depth(depth, 160, 120), depth).all()  # nothing is averaged


@pytest.mark.parametrize('size', [(160, 90), (120, 160), (160, 124)])
def test_another_aspect(size: tuple[int, int]) -> None:
    with pytest.raises(GeometryError, match='another aspect'):
        fit_depth(np.ones((120, 160), np.float32), *size)
    with pytest.raises(GeometryError, match='another aspect'):
        CAMERA.scaled(*size)


def test_scaled_camera_sees_the_same_corners() -> None:
    double = CAMERA.scaled(320, 240)
    corner = np.array([[(-0.5 - CAMERA.cx) / CAMERA.fx, (119.5 - CAMERA.cy) / CAMERA.fy, 1.0]])
    np.testing.assert_allclose(project(corner, double), [[-0.5, 239.5]], atol=1e-9)
    assert double.scaled(160, 120) == CAMERA


def info(**changes: Any) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    k = [120.0, 0, 79.5, 0, 120.0, 59.5, 0, 0, 1]
    values = {'width': 160, 'height': 120, 'k': k, 'd': [], 'distortion_model': 'plumb_bob'}
    return SimpleNamespace(**{**values, 'binning_x': 0, 'binning_y': 0, 'roi': roi, **changes})


def test_camera_info() -> None:
    assert camera_from_info(info()) == CAMERA
    assert camera_from_info(info(d=[0.0] * 5)) == CAMERA
    assert camera_from_info(info(d=LENS)).distortion == LENS
    halved = camera_from_info(info(binning_x=2, binning_y=2))
    assert halved == CAMERA.scaled(80, 60)
    roi = SimpleNamespace(x_offset=40, y_offset=20, width=80, height=60)
    assert camera_from_info(info(roi=roi)) == Camera(80, 60, 120, 120, 39.5, 39.5)
    of_ros1 = info()
    of_ros1.K, of_ros1.D = of_ros1.__dict__.pop('k'), of_ros1.__dict__.pop('d')
    assert camera_from_info(of_ros1) == CAMERA


def test_camera_info_of_rectified_images() -> None:
    """image_proc sends the raw camera's K and D with them: the lens would be undone twice."""
    raw = info(d=LENS, p=[100.0, 0, 80, 0, 0, 101, 60, 0, 0, 0, 1, 0])
    for topic in ('/camera/image_rect', '/depth/image_rect_raw', '/c/image_rect/compressedDepth'):
        assert camera_from_info(raw, topic) == Camera(160, 120, 100, 101, 80, 60)
    for topic in ('/camera/image_raw', '/rectangle/depth'):
        assert camera_from_info(raw, topic) == replace(CAMERA, distortion=LENS)
    without = info(d=LENS, p=[0.0] * 12)
    assert camera_from_info(without, '/camera/image_rect') == CAMERA


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'k': [0.0] * 9}, 'focal lengths of the camera are 0 and 0: it is not calibrated'),
        ({'k': [np.nan] * 9}, 'not all finite'),
        ({'width': 0}, '0x120 pixels'),
        ({'d': [0.1] * 4, 'distortion_model': 'equidistant'}, "model 'equidistant' with 4"),
        ({'d': [0.1] * 13, 'distortion_model': 'rational_polynomial'}, 'with 13 coefficients'),
        ({'d': [np.nan] * 5}, 'not all finite'),
    ],
)
def test_bad_camera_info(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        camera_from_info(info(**changes))


def test_size_of_the_camera() -> None:
    with pytest.raises(GeometryError, match='depth of 80x60 pixels, but the camera has 160x120'):
        depth_to_points(np.ones((60, 80), np.float32), CAMERA)


@pytest.mark.parametrize(
    ('pose', 'message'),
    [
        (np.full((4, 4), np.nan), 'not finite'),
        (np.eye(3), 'not \\(3, 3\\)'),
        (np.diag([1.0, 1, -1, 1]), 'rotation of a pose is none'),
        (np.diag([2.0, 2, 2, 1]), 'rotation of a pose is none'),
        (np.ones((4, 4)), 'rotation of a pose is none'),
    ],
)
def test_bad_poses(pose: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        checked_pose(pose)
