"""Depth images, cameras and poses: pixels to points and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]

# Drivers fill rational_polynomial up to the 12 or 14 numbers that OpenCV knows.
MODELS = {
    '': (0, 4, 5, 8, 12, 14),
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (0, 8, 12, 14),
}
ROTATION_TOLERANCE = 1e-2  # files round their matrices
RECTIFIED = re.compile(r'/image_rect\w*(/\w+)?$')
MOST = 0.5  # share of the pixels without a ray above which the lens is wrong
SEEN_AT = 0.5  # pixels: a ray that the lens puts farther from its pixel is none


class GeometryError(ValueError):
    """Depth, camera or pose can't be used; the message is one sentence that says why."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with lens distortion, as sensor_msgs/CameraInfo and OpenCV have it.

    Attributes:
        width, height: of its images in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels; (0, 0) is the middle of the first pixel.
        distortion: k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]], plumb_bob, or rational
            with thin prism and tilt; () for none.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise GeometryError(f'the camera has images of {self.width}x{self.height} pixels')
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not np.isfinite(numbers).all():
            raise GeometryError('the intrinsics of the camera are not all finite numbers')
        if self.fx <= 0 or self.fy <= 0:
            raise GeometryError(
                f'the focal lengths of the camera are {self.fx:g} and {self.fy:g}: '
                'it is not calibrated'
            )
        if len(self.distortion) not in MODELS['']:
            raise GeometryError(
                f'the camera has {len(self.distortion)} distortion coefficients, '
                'expected 4 or 5 of plumb_bob or 8, 12 or 14 of rational_polynomial'
            )

    @property
    def matrix(self) -> Matrix:
        """The (3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def scaled(self, width: int, height: int) -> Camera:
        """Return the camera as if its images had been scaled.

        Raises:
            GeometryError: the new size has another aspect, by more than a pixel.
        """
        if (width, height) == (self.width, self.height):
            return self
        if abs(self.height * width / self.width - height) >= 1:
            raise GeometryError(
                f'{width}x{height} pixels are of another aspect than the '
                f'{self.width}x{self.height} of the camera'
            )
        x, y = width / self.width, height / self.height
        centre = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return Camera(width, height, self.fx * x, self.fy * y, *centre, self.distortion)


def camera_from_info(info: Any, topic: str = '') -> Camera:
    """Return the camera of a sensor_msgs/CameraInfo of ROS 1 or 2; binning and ROI are applied.

    Args:
        info: the message; image_proc leaves K and D in it, which are of the raw image.
        topic: of its images. Those of topics such as image_rect are rectified: P is theirs.

    Raises:
        GeometryError: it is not calibrated, or its lens is of another model.
    """
    k, d = (getattr(info, name, None) for name in ('k', 'd'))
    k, d = (info.K if k is None else k), (info.D if d is None else d)
    if RECTIFIED.search(topic):
        p = info.p if hasattr(info, 'p') else info.P
        k, d = (k if p[0] == 0 else (p[0], 0, p[2], 0, p[5], p[6])), ()
    model = info.distortion_model
    distortion = tuple(float(value) for value in d)
    if not any(distortion):
        distortion = ()
    elif len(distortion) not in MODELS.get(model, ()):
        raise GeometryError(
            f'distortion model {model[:32]!a} with {len(distortion)} coefficients is not '
            'supported; plumb_bob and rational_polynomial are: rectify the images first'
        )
    binning = max(info.binning_x, 1), max(info.binning_y, 1)
    roi = info.roi
    width, height = (roi.width or info.width), (roi.height or info.height)
    return Camera(
        width // binning[0],
        height // binning[1],
        float(k[0]) / binning[0],
        float(k[4]) / binning[1],
        (float(k[2]) - roi.x_offset + 0.5) / binning[0] - 0.5,
        (float(k[5]) - roi.y_offset + 0.5) / binning[1] - 0.5,
        distortion,
    )


@lru_cache(maxsize=1)
def _metres_table(unit_m: float) -> Floats:
    table = (np.arange(65536) * unit_m).astype(np.float32)
    table[0] = np.nan
    return table


def depth_in_metres(depth: NDArray[Any], unit_m: float = 0.001) -> Floats:
    """Return a depth image in metres, NaN where it is unknown.

    Args:
        depth: (H, W) uint16 in `unit_m`, 0 unknown, or float32 in metres, unknown where it is
            not finite or not above 0.
        unit_m: of uint16, in metres.

    Raises:
        GeometryError: it is of another kind.
    """
    if depth.ndim != 2 or depth.dtype not in (np.uint16, np.float32):
        raise GeometryError(
            'depth images are 16 bit whole numbers or 32 bit floats of one channel, '
            f'not {depth.dtype} of shape {depth.shape}'
        )
    if depth.dtype == np.uint16:
        return np.take(_metres_table(unit_m), depth)
    known = (depth > 0) & (depth < np.inf)
    return np.where(known, depth, np.float32(np.nan))


def fit_depth(depth: Floats, width: int, height: int) -> Floats:
    """Return a depth image in another size, nearest: depth is never averaged over an edge.

    Raises:
        GeometryError: it is of another aspect, by more than a pixel.
    """
    rows, columns = depth.shape
    if (columns, rows) == (width, height):
        return depth
    if abs(rows * width / columns - height) >= max(1, height / rows):
        raise GeometryError(
            f'depth of {columns}x{rows} pixels is of another aspect than the image of '
            f'{width}x{height}: it has to be registered to the image'
        )
    resized = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.float32)


@lru_cache(maxsize=4)
def pixel_rays(camera: Camera) -> Floats:
    """Return where the ray of each pixel meets the plane z = 1, (H, W, 2) x and y.

    NaN where the lens can not be undone: models of lenses hold no farther out than they were
    calibrated.
    """
    grid = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack(grid, axis=-1).astype(np.float64)
    if camera.distortion:
        exact = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
        flat = cv2.undistortPoints(
            pixels.reshape(-1, 1, 2), camera.matrix, np.array(camera.distortion), criteria=exact
        )
        rays = flat.reshape(pixels.shape)
        ahead = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1)
        seen = project(ahead.reshape(-1, 3), camera).reshape(pixels.shape)
        rays[~(np.abs(seen - pixels) < SEEN_AT).all(axis=-1)] = np.nan
    else:
        rays = (pixels - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    rays = rays.astype(np.float32)
    rays.setflags(write=False)  # it is shared
    return rays


def depth_to_points(depth: Floats, camera: Camera) -> Floats:
    """Return the (H, W, 3) points of a depth image in metres, in the optical frame of the camera.

    x is right, y down, z ahead; NaN where the depth is, or where the lens can not be undone.

    Args:
        depth: (H, W) metres, NaN where unknown, of the camera's size.
        camera: that took it.

    Raises:
        GeometryError: the sizes differ, or the lens is none.
    """
    if depth.shape != (camera.height, camera.width):
        raise GeometryError(
            f'depth of {depth.shape[1]}x{depth.shape[0]} pixels, but the camera has '
            f'{camera.width}x{camera.height}'
        )
    rays = pixel_rays(camera)
    points = np.empty((*depth.shape, 3), np.float32)
    np.multiply(rays[..., 0], depth, out=points[..., 0])
    np.multiply(rays[..., 1], depth, out=points[..., 1])
    points[..., 2] = depth
    if camera.distortion:
        blind = np.isnan(rays[..., 0])
        if blind.mean() > MOST:
            raise GeometryError(
                f'the distortion of the camera can not be undone for {100 * blind.mean():.0f} % of '
                'its pixels: it is of another lens or model'
            )
        points[blind, 2] = np.nan
    return points


def project(points: NDArray[Any], camera: Camera) -> Matrix:
    """Return the (n, 2) pixels where (n, 3) points with z above 0 are seen."""
    if camera.distortion:
        zeros = np.zeros(3)
        flat = points.reshape(-1, 1, 3).astype(np.float64)
        pixels, _ = cv2.projectPoints(
            flat, zeros, zeros, camera.matrix, np.array(camera.distortion)
        )
        return np.asarray(pixels.reshape(-1, 2), np.float64)
    plane = points[:, :2] / points[:, 2:]
    return np.asarray(plane * (camera.fx, camera.fy) + (camera.cx, camera.cy), np.float64)


def checked_pose(pose: NDArray[Any]) -> Matrix:
    """Return a (4, 4) pose that takes points of the camera into the world.

    Raises:
        GeometryError: it has numbers that are not finite, or its rotation is none.
    """
    pose = np.asarray(pose, np.float64)
    if pose.shape != (4, 4):
        raise GeometryError(f'a pose is a matrix of 4x4 numbers, not {pose.shape}')
    if not np.isfinite(pose).all():
        raise GeometryError('a pose has numbers that are not finite')
    turn = pose[:3, :3]
    is_rotation = np.allclose(turn.T @ turn, np.eye(3), atol=ROTATION_TOLERANCE)
    if not is_rotation or np.linalg.det(turn) < 0 or (pose[3] != (0, 0, 0, 1)).any():
        raise GeometryError('the rotation of a pose is none')
    return pose


def transform(points: NDArray[Any], pose: Matrix) -> Matrix:
    """Return (n, 3) points moved by a (4, 4) pose."""
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3], np.float64)


def inverse(pose: Matrix) -> Matrix:
    """Return the (4, 4) pose of the world in the camera."""
    return np.asarray(np.linalg.inv(pose), np.float64)
