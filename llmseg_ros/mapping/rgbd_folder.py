"""Folders of RGB-D frames: color/, depth/, intrinsics.json and a trajectory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llmseg_ros.evaluation.datasets import read_rgb
from llmseg_ros.formats.image_files import (
    SIXTEEN_BIT_GREY,
    ImageFileError,
    grey_values,
    opened_image,
)
from llmseg_ros.mapping.geometry import (
    Camera,
    Floats,
    GeometryError,
    Matrix,
    checked_pose,
    depth_in_metres,
)
from llmseg_ros.mapping.poses import PoseTrack, StampedPose, pose_from_quaternion
from llmseg_ros.mapping.rgbd import RgbdFrame
from llmseg_ros.system.ahead import map_ahead

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
TRAJECTORIES = ('trajectory.log', 'trajectory.txt')
STAMP = re.compile(r'(\d+)\.(\d{1,9})$')  # seconds as TUM writes them
FRAME_NS = 1_000_000_000 // 30  # between frames whose names are no stamps


class RgbdError(ValueError):
    """A folder of RGB-D frames can't be used; the message is one sentence that names the file."""


class FrameFiles(NamedTuple):
    """The files of a frame, and its pose; None where the trajectory has none at its stamp."""

    stamp: int
    color: Path
    depth: Path
    pose: Matrix | None


class RgbdFolder(NamedTuple):
    """What lies in a folder.

    Attributes:
        frames: by name.
        camera: of the colour images.
        unit_m: of the depth images.
    """

    frames: Sequence[FrameFiles]
    camera: Camera
    unit_m: float


def is_rgbd_folder(path: Path) -> bool:
    """Tell a folder of RGB-D frames, whole or not, from others."""
    return (path / 'color').is_dir() or (path / 'depth').is_dir()


def open_rgbd_folder(folder: Path) -> RgbdFolder:
    """Look through a folder: that everything is there, and that the poses are poses.

    Raises:
        RgbdError: something is missing, or can't be used.
    """
    for name in ('color', 'depth'):
        if not (folder / name).is_dir():
            raise RgbdError(f'{folder} has no folder {name}')
    path = next((p for p in (folder / name for name in TRAJECTORIES) if p.exists()), None)
    if path is None:
        raise RgbdError(f'{folder} has neither {" nor ".join(TRAJECTORIES)}')
    return open_rgbd_files(folder / 'color', folder / 'depth', folder / 'intrinsics.json', path)


def open_rgbd_files(color: Path, depth: Path, intrinsics: Path, trajectory: Path) -> RgbdFolder:
    """Look through images, depth, intrinsics and poses, wherever they lie.

    Raises:
        RgbdError: something is missing, or can't be used.
    """
    pairs = frame_pairs(color, depth)
    camera, unit_m = read_intrinsics(intrinsics)
    stamps, poses = frame_poses(trajectory, [path for path, _ in pairs])
    frames = [FrameFiles(s, *pair, p) for s, pair, p in zip(stamps, pairs, poses, strict=True)]
    if all(frame.pose is None for frame in frames):
        raise RgbdError(f'{trajectory} has no pose at the stamp of any image')
    return RgbdFolder(frames, camera, unit_m)


def frame_pairs(color: Path, depth: Path) -> list[tuple[Path, Path]]:
    """Return the colour and depth files of each frame, by name.

    Raises:
        RgbdError: there are none, or one of a pair is missing.
    """
    for folder in (color, depth):
        if not folder.is_dir():
            raise RgbdError(f'{folder} is no folder')
    colors = by_stem(color, IMAGE_SUFFIXES)
    depths = by_stem(depth, ('.png',))
    if not colors:
        raise RgbdError(f'{color} has no JPEG or PNG files')
    alone = sorted(colors.keys() ^ depths.keys())
    if alone:
        missing = depth if alone[0] in colors else color
        raise RgbdError(
            f'{missing} has no image {alone[0]}: of {len(colors)} colour and {len(depths)} depth '
            f'images {len(alone)} have no partner of their name'
        )
    return [(path, depths[stem]) for stem, path in colors.items()]


def by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files that end so by their stems, in the order of their numbers.

    2 comes before 10, whether or not names are filled up with zeros.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.name[0] != '.']
    if all(STAMP.match(path.stem) for path in found):
        found.sort(key=lambda path: in_nanoseconds(path.stem))
    else:
        found.sort(key=lambda path: (number_order(path.stem), path.name))
    return {path.stem: path for path in found}


def number_order(name: str) -> list[str | int]:
    """Return what sorts names by their text and the numbers in it."""
    return [int(part) if n % 2 else part for n, part in enumerate(re.split(r'(\d+)', name))]


def read_intrinsics(path: Path) -> tuple[Camera, float]:
    """Read fx fy cx cy in pixels, width, height, depth_scale in units a metre, and distortion.

    Returns:
        The camera, and the unit of depth in metres.

    Raises:
        RgbdError: it is missing or damaged, or is of no camera.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        scale = float(values.get('depth_scale', 1000))
        camera = Camera(
            width=int(values['width']),
            height=int(values['height']),
            fx=float(values['fx']),
            fy=float(values['fy']),
            cx=float(values['cx']),
            cy=float(values['cy']),
            distortion=tuple(map(float, values.get('distortion', ()))),
        )
    except FileNotFoundError as error:
        raise RgbdError(f'{path} is missing') from error
    except GeometryError as error:
        raise RgbdError(f'{path}: {error}') from error
    except KeyError as error:
        raise RgbdError(f'{path} has no {error.args[0]}') from error
    except (ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise RgbdError(f'{path} is no JSON object of numbers') from error
    if not 0 < scale < np.inf:
        raise RgbdError(f'{path} has depth_scale {scale:g}, expected units a metre, as 1000')
    return camera, 1 / scale


def frame_poses(path: Path, images: Sequence[Path]) -> tuple[list[int], list[Matrix | None]]:
    """Return stamp and pose of each image.

    Names that are stamps get the pose of that time, others the n-th pose for the n-th image.

    Raises:
        RgbdError: there are fewer poses than images, or one is none.
    """
    is_log = path.suffix == '.log'
    trajectory = read_log(path) if is_log else read_tum(path)
    matches = [STAMP.match(image.stem) for image in images]
    if not is_log and all(matches):
        stamps = [in_nanoseconds(match[0]) for match in matches if match]
        try:
            track = PoseTrack(trajectory)
        except GeometryError as error:
            raise RgbdError(f'{path}: {error}') from error
        return stamps, [track.at(stamp) for stamp in stamps]
    if len(trajectory) != len(images):
        raise RgbdError(f'{path} has {len(trajectory)} poses, but there are {len(images)} images')
    if is_log:
        return [index * FRAME_NS for index in range(len(images))], [p for _, p in trajectory]
    return [stamp for stamp, _ in trajectory], [pose for _, pose in trajectory]


def in_nanoseconds(seconds: str) -> int:
    """Return a time in decimal seconds as whole nanoseconds, without rounding.

    Raises:
        ValueError: it is no number.
        GeometryError: it is beyond what stamps can hold.
    """
    try:
        found = int(Decimal(seconds).scaleb(9))
    except ArithmeticError as error:
        raise ValueError(f'{seconds} is no number of seconds') from error
    if abs(found) >> 63:
        raise GeometryError('the stamp is no time in seconds')
    return found


def read_log(path: Path) -> list[StampedPose]:
    """Read a trajectory.log: per frame a line of numbers and a 4x4 camera-to-world matrix.

    Raises:
        RgbdError: it is cut off, or a pose is none.
    """
    lines = read_lines(path)
    if len(lines) % 5:
        raise RgbdError(f'{path} has {len(lines)} lines, expected 5 for each frame')
    poses = []
    for start in range(0, len(lines), 5):
        number = lines[start][0]
        try:
            rows = [[float(text) for text in line.split()] for _, line in lines[start + 1 :][:4]]
            pose = checked_pose(np.array(rows))
        except ValueError as error:  # of float and of ragged rows, and GeometryError
            raise RgbdError(f'{path}, line {number}: {in_words(error)}') from error
        poses.append(StampedPose(start // 5 * FRAME_NS, pose))
    return poses


def read_tum(path: Path) -> list[StampedPose]:
    """Read a trajectory.txt of TUM: stamp tx ty tz qx qy qz qw, comments after #.

    Raises:
        RgbdError: a line is of another form, or its pose is none.
    """
    poses = []
    for number, line in read_lines(path):
        texts = line.replace(',', ' ').split()
        try:
            if len(texts) != 8:
                raise GeometryError(f'{len(texts)} numbers, expected stamp and 7 of the pose')
            values = [float(text) for text in texts[1:]]
            stamp = in_nanoseconds(texts[0])
            poses.append(StampedPose(stamp, pose_from_quaternion(values[:3], values[3:])))
        except ValueError as error:
            raise RgbdError(f'{path}, line {number}: {in_words(error)}') from error
    return poses


def in_words(error: ValueError) -> str:
    return str(error) if isinstance(error, GeometryError) else 'what is there is no number'


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return number and text of the lines of a file that are neither empty nor comments."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise RgbdError(f'{path} can not be read as text') from error
    numbered = ((n, line.partition('#')[0].strip()) for n, line in enumerate(text.split('\n'), 1))
    return [(number, line) for number, line in numbered if line]


def read_rgbd_folder(
    folder: RgbdFolder, sixteen_bit: str = 'high_byte', workers: int = 2
) -> Iterator[RgbdFrame]:
    """Yield the frames that have a pose, decoded ahead; sixteen_bit is read_rgb's.

    Raises:
        RgbdError: depth does not open, or an image is of another kind or aspect than expected.
        DatasetError: a colour image does not open.
    """

    def read(files: FrameFiles) -> RgbdFrame:
        assert files.pose is not None
        rgb = read_rgb(files.color, sixteen_bit)
        height, width = rgb.shape[:2]
        try:
            camera = folder.camera.scaled(width, height)
        except GeometryError as error:
            raise RgbdError(f'{files.color}: {error}') from error
        depth = read_depth(files.depth, folder.unit_m)
        return RgbdFrame(files.color.stem, files.stamp, rgb, depth, camera, files.pose)

    yield from map_ahead(read, [f for f in folder.frames if f.pose is not None], workers)


def read_depth(path: Path, unit_m: float) -> Floats:
    """Read a depth image as (H, W) float32 metres, NaN where unknown.

    Raises:
        RgbdError: it does not open, or is not of 16 bits and one channel.
    """
    try:
        with opened_image(path) as image:
            if image.mode not in SIXTEEN_BIT_GREY:
                raise RgbdError(
                    f'{path} is of mode {image.mode}, depth images have 16 bits and one channel'
                )
            return depth_in_metres(grey_values(image), unit_m)
    except ImageFileError as error:
        raise RgbdError(f'{path}: {error}') from error
