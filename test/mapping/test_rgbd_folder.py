"""Folders of RGB-D frames, whole and of all kinds of broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from llmseg_ros.evaluation.datasets import DatasetError
from llmseg_ros.mapping.geometry import GeometryError
from llmseg_ros.mapping.rgbd import frame_points
from llmseg_ros.mapping.rgbd_folder import (
    RgbdError,
    in_nanoseconds,
    is_rgbd_folder,
    open_rgbd_folder,
    read_rgbd_folder,
)

from ..helpers.room import CAMERA, POSES, shoot, write_room


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return write_room(tmp_path / 'room')


def tum_line(stamp: str, pose: np.ndarray) -> str:
    numbers = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
    return ' '.join([stamp, *map(repr, map(float, numbers))])


def test_the_room(room: Path) -> None:
    assert is_rgbd_folder(room)
    frames = list(read_rgbd_folder(open_rgbd_folder(room)))
    assert [frame.name for frame in frames] == ['000', '001']
    for frame, pose in zip(frames, POSES, strict=True):
        shot = shoot(pose)
        np.testing.assert_allclose(frame.pose, pose, atol=1e-12)
        np.testing.assert_array_equal(frame.rgb, shot.rgb)
        np.testing.assert_allclose(frame.depth, shot.depth, atol=0.00051)  # whole millimetres
        assert frame.camera == CAMERA
        assert frame_points(frame).shape == (120, 160, 3)
        near = frame_points(frame, farthest_m=3.0)
        np.testing.assert_array_equal(np.isnan(near[..., 2]), frame.depth > 3.0)


def test_poses_of_tum_by_number(room: Path) -> None:
    (room / 'trajectory.log').unlink()
    lines = ['# stamp tx ty tz qx qy qz qw', tum_line('17.5', POSES[0]), tum_line('18', POSES[1])]
    (room / 'trajectory.txt').write_text('\n'.join(lines))
    frames = list(read_rgbd_folder(open_rgbd_folder(room)))
    assert [frame.stamp for frame in frames] == [17_500_000_000, 18_000_000_000]
    for frame, pose in zip(frames, POSES, strict=True):
        np.testing.assert_allclose(frame.pose, pose, atol=1e-9)


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    """Poses are by line: 10 after 9 or the map is torn apart."""
    room = write_room(tmp_path / 'room', [POSES[0]] * 12)
    for path in sorted((*(room / 'color').iterdir(), *(room / 'depth').iterdir())):
        path.rename(path.with_name(f'view_{int(path.stem)}{path.suffix}'))
    (room / 'color' / '._view_0.png').write_bytes(b'left behind by an archiver')
    found = open_rgbd_folder(room)
    assert [files.color.stem for files in found.frames] == [f'view_{n}' for n in range(12)]
    assert [files.depth.stem for files in found.frames] == [f'view_{n}' for n in range(12)]


@pytest.mark.parametrize(
    ('text', 'stamp'),
    [
        ('1305031102.175304', 1_305_031_102_175_304_000),
        ('1.305031102e9', 1_305_031_102_000_000_000),
        ('-0.5', -500_000_000),
    ],
)
def test_stamps_are_not_rounded(text: str, stamp: int) -> None:
    assert in_nanoseconds(text) == stamp


def test_poses_of_tum_by_stamp(room: Path) -> None:
    """Names that are stamps get the pose of their time; one has none."""
    (room / 'trajectory.log').unlink()
    for folder in ('color', 'depth'):
        (room / folder / '000.png').rename(room / folder / '1305031102.25.png')
        (room / folder / '001.png').rename(room / folder / '1305031109.000001.png')
    left, right = np.eye(4), np.eye(4)
    right[0, 3] = 1
    lines = [tum_line('1305031102.000', left), tum_line('1305031102.500', right)]
    (room / 'trajectory.txt').write_text('\n'.join(lines))
    folder = open_rgbd_folder(room)
    assert [files.pose is None for files in folder.frames] == [False, True]
    (frame,) = read_rgbd_folder(folder)
    assert frame.stamp == 1_305_031_102_250_000_000
    np.testing.assert_allclose(frame.pose[:3, 3], (0.5, 0, 0))


def test_units_and_lens(room: Path) -> None:
    intrinsics = json.loads((room / 'intrinsics.json').read_text())
    intrinsics |= {'depth_scale': 5000, 'distortion': [0.1, 0, 0, 0]}
    (room / 'intrinsics.json').write_text(json.dumps(intrinsics))
    frame = next(read_rgbd_folder(open_rgbd_folder(room)))
    np.testing.assert_allclose(frame.depth, shoot(POSES[0]).depth / 5, atol=0.0002)
    assert frame.camera.distortion == (0.1, 0, 0, 0)


def test_large_photographs_with_small_depth(room: Path) -> None:
    path = room / 'color' / '000.png'
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (320, 240)))
    frame = next(read_rgbd_folder(open_rgbd_folder(room)))
    assert frame.camera == CAMERA.scaled(320, 240)
    points = frame_points(frame)
    assert points.shape == (240, 320, 3)


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(room: Path) -> None:
        (room / name).write_text(change((room / name).read_text()))

    return spoil


def remove(*names: str) -> Callable[[Path], None]:
    def spoil(room: Path) -> None:
        for name in names:
            (room / name).unlink()

    return spoil


def with_key(key: str, value: object) -> Callable[[Path], None]:
    return rewrite('intrinsics.json', lambda text: json.dumps(json.loads(text) | {key: value}))


def as_tum(*lines: str) -> Callable[[Path], None]:
    def spoil(room: Path) -> None:
        (room / 'trajectory.log').unlink()
        (room / 'trajectory.txt').write_text('\n'.join(lines))

    return spoil


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (remove('depth/001.png'), 'depth has no image 001: of 2 colour and 1 depth images 1 have'),
        (remove('color/000.png'), 'color has no image 000: of 1 colour and 2 depth images 1 have'),
        (remove('color/000.png', 'color/001.png'), 'color has no JPEG or PNG files'),
        (remove('intrinsics.json'), r'intrinsics\.json is missing'),
        (rewrite('intrinsics.json', lambda _: '{'), r'intrinsics\.json is no JSON object'),
        (rewrite('intrinsics.json', lambda _: '[1]'), r'intrinsics\.json is no JSON object'),
        (rewrite('intrinsics.json', lambda t: t.replace('"fx"', '"f"')), 'json has no fx'),
        (with_key('fx', 0), 'focal lengths of the camera are 0 and 120: it is not calibrated'),
        (rewrite('intrinsics.json', lambda t: t.replace('160', '1e400')), 'no JSON object of num'),
        (with_key('fx', 'wide'), r'intrinsics\.json is no JSON object of numbers'),
        (with_key('depth_scale', 0), 'depth_scale 0, expected units a metre'),
        (remove('trajectory.log'), r'has neither trajectory\.log nor trajectory\.txt'),
        (
            rewrite('trajectory.log', lambda t: ''.join(t.splitlines(True)[:7])),
            r'expected 5 for each frame',
        ),
        (
            rewrite('trajectory.log', lambda t: ''.join(t.splitlines(True)[:5])),
            'has 1 poses, but there are 2 images',
        ),
        (
            rewrite('trajectory.log', lambda t: t.replace('0.0 0.0 0.0 1.0', 'nan 0 0 1')),
            r'trajectory\.log, line 1: a pose has numbers that are not finite',
        ),
        (
            rewrite('trajectory.log', lambda t: t.replace('0.0 0.0 0.0 1.0', '0 0 0 x')),
            r'trajectory\.log, line 1: what is there is no number',
        ),
        (
            rewrite('trajectory.log', lambda t: t.replace('0.0 0.0 0.0 1.0', '1 1 1 1')),
            'line 1: the rotation of a pose is none',
        ),
        (as_tum('1 0 0 0 0 0 0 1', '2 0 0 0 0 0 0'), r'txt, line 2: 7 numbers, expected stamp'),
        (as_tum('1 0 0 0 0 0 0 1', '2 0 0 0 0 0 0 0'), 'line 2: the quaternion of a pose has'),
        (as_tum('1 0 0 nan 0 0 0 1'), 'line 1: a pose has numbers that are not finite'),
        (as_tum('now 0 0 0 0 0 0 1'), 'line 1: what is there is no number'),
        (as_tum('1e300 0 0 0 0 0 0 1'), 'line 1: the stamp is no time in seconds'),
        (as_tum('inf 0 0 0 0 0 0 1'), 'line 1: what is there is no number'),
    ],
)
def test_broken_folders(room: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(room)
    with pytest.raises(RgbdError, match=message):
        open_rgbd_folder(room)


def test_half_a_folder(room: Path) -> None:
    for path in (room / 'depth').iterdir():
        path.unlink()
    (room / 'depth').rmdir()
    assert is_rgbd_folder(room)
    with pytest.raises(RgbdError, match='room has no folder depth'):
        open_rgbd_folder(room)


def test_stamps_without_poses(room: Path) -> None:
    as_tum('5 0 0 0 0 0 0 1')(room)
    for folder in ('color', 'depth'):
        for name in ('000', '001'):
            (room / folder / f'{name}.png').rename(room / folder / f'{name}.25.png')
    with pytest.raises(RgbdError, match='has no pose at the stamp of any image'):
        open_rgbd_folder(room)


@pytest.mark.parametrize(('folder', 'error'), [('color', DatasetError), ('depth', RgbdError)])
def test_cut_off_images(room: Path, folder: str, error: type[Exception]) -> None:
    path = room / folder / '001.png'
    path.write_bytes(path.read_bytes()[:200])
    frames = read_rgbd_folder(open_rgbd_folder(room))
    with pytest.raises(error, match=r'001\.png'):
        list(frames)


def test_depth_of_eight_bits(room: Path) -> None:
    cv2.imwrite(str(room / 'depth' / '000.png'), np.zeros((120, 160), np.uint8))
    with pytest.raises(RgbdError, match='mode L, depth images have 16 bits and one channel'):
        list(read_rgbd_folder(open_rgbd_folder(room)))


def test_another_aspect(room: Path) -> None:
    cv2.imwrite(str(room / 'depth' / '000.png'), np.ones((120, 120), np.uint16))
    frame = next(read_rgbd_folder(open_rgbd_folder(room)))
    with pytest.raises(GeometryError, match='depth of 120x120 pixels is of another aspect'):
        frame_points(frame)
    cv2.imwrite(str(room / 'color' / '000.png'), np.ones((120, 120, 3), np.uint8))
    with pytest.raises(RgbdError, match=r'000\.png: 120x120 pixels are of another aspect'):
        next(read_rgbd_folder(open_rgbd_folder(room)))
