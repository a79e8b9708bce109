"""A room of planes and boxes, ray-cast: exact depth, labels and poses for the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.mapping.geometry import Camera

WIDTH, HEIGHT = 160, 120
CAMERA = Camera(WIDTH, HEIGHT, 120.0, 120.0, 79.5, 59.5)
LENS = (-0.28, 0.09, 0.0007, -0.0004, -0.01)  # plumb_bob
ROOM = (np.array([-3.0, -4.0, 0.0]), np.array([3.0, 4.0, 2.5]))  # its inside, z up
FLOOR, WALL, TABLE, CHAIR = 0, 1, 2, 3
NAMES = ('wall', 'table', 'chair')
BOXES = (
    (np.array([-0.6, 1.0, 0.0]), np.array([0.8, 2.0, 0.75]), TABLE),
    (np.array([1.2, 0.5, 0.0]), np.array([1.7, 1.0, 0.9]), CHAIR),
)
COLOURS = np.array([(120, 110, 100), (200, 200, 190), (150, 90, 40), (40, 80, 160)], np.uint8)


@dataclass(frozen=True)
class Shot:
    """What a camera sees: (H, W) metres and labels, (H, W, 3) colours, (H, W, 3) world points."""

    depth: NDArray[np.float32]
    labels: NDArray[np.uint16]
    rgb: NDArray[np.uint8]
    world: NDArray[np.float64]
    pose: NDArray[np.float64]


def looking(position: Sequence[float], target: Sequence[float]) -> NDArray[np.float64]:
    """Return the pose of a camera at a position that looks at a target, z of the world up."""
    ahead = np.subtract(target, position)
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    pose[:3, 3] = position
    return pose


POSES = (looking((-1.5, -2.0, 1.4), (0.5, 1.5, 0.5)), looking((1.8, -1.5, 1.6), (0.2, 1.5, 0.4)))


def true_rays(camera: Camera) -> NDArray[np.float64]:
    """Return the (H, W, 3) rays of the pixels with z = 1, by Newton from the lens equations."""
    y, x = np.mgrid[: camera.height, : camera.width].astype(float)
    wanted = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy], axis=-1)
    if not camera.distortion:
        return np.concatenate([wanted, np.ones((*wanted.shape[:2], 1))], axis=-1)
    rays = wanted.copy()
    for _ in range(50):
        rays -= distorted(rays, camera.distortion) - wanted
    assert np.abs(distorted(rays, camera.distortion) - wanted).max() < 1e-12
    return np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1)


def distorted(rays: NDArray[np.float64], lens: Sequence[float]) -> NDArray[np.float64]:
    """Distort (..., 2) rays (Brown 1966, with the rational terms of OpenCV)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*lens, *(0.0,) * (8 - len(lens)))
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def shoot(pose: NDArray[np.float64], camera: Camera = CAMERA) -> Shot:
    """Cast a ray through every pixel."""
    rays = true_rays(camera) @ pose[:3, :3].T
    start = pose[:3, 3]
    with np.errstate(divide='ignore', invalid='ignore'):
        walls = np.where(rays > 0, (ROOM[1] - start) / rays, (ROOM[0] - start) / rays)
        distance = walls.min(axis=-1)
        at_floor = (walls.argmin(axis=-1) == 2) & (rays[..., 2] < 0)
        labels = np.where(at_floor, FLOOR, WALL)
        for low, high, label in BOXES:
            sides = np.stack([(low - start) / rays, (high - start) / rays])
            near, far = sides.min(axis=0).max(axis=-1), sides.max(axis=0).min(axis=-1)
            hit = (near < far) & (near > 0) & (near < distance)
            distance, labels = np.where(hit, near, distance), np.where(hit, label, labels)
    world = start + rays * distance[..., None]
    # Rays have z = 1 in the camera: how far along them is depth.
    return Shot(distance.astype(np.float32), labels.astype(np.uint16), COLOURS[labels], world, pose)


def write_room(folder: Path, poses: Sequence[NDArray[np.float64]] = POSES) -> Path:
    """Write views of the room as a folder of RGB-D frames."""
    for name in ('color', 'depth'):
        (folder / name).mkdir(parents=True)
    lines = []
    for index, pose in enumerate(poses):
        shot = shoot(pose)
        millimetres = np.rint(shot.depth * 1000).astype(np.uint16)
        cv2.imwrite(str(folder / 'color' / f'{index:03}.png'), shot.rgb[..., ::-1])
        cv2.imwrite(str(folder / 'depth' / f'{index:03}.png'), millimetres)
        lines.append(f'{index} {index} {index + 1}')
        lines += [' '.join(map(repr, row)) for row in pose.tolist()]
    (folder / 'trajectory.log').write_text('\n'.join(lines) + '\n')
    names = ('width', 'height', 'fx', 'fy', 'cx', 'cy')
    intrinsics = {name: getattr(CAMERA, name) for name in names} | {'depth_scale': 1000}
    (folder / 'intrinsics.json').write_text(json.dumps(intrinsics))
    return folder


def circle(count: int) -> list[NDArray[np.float64]]:
    """Return poses on an arc that look at the table."""
    angles = np.linspace(-2.4, -0.8, count)
    return [looking((2.2 * np.cos(a), 1 + 2.2 * np.sin(a), 1.5), (0.2, 1.5, 0.4)) for a in angles]
