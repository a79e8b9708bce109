"""Pictures of a map: from above, and as one would see it standing behind the camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.files import replacing, writing
from llmseg_ros.mapping.geometry import Matrix
from llmseg_ros.mapping.voxels import Voxels
from llmseg_ros.reports.pictures import photograph
from llmseg_ros.visualize import Rgb, add_legend, colour_labels

SIZE = (1280, 960)
FIELD_OF_VIEW = 0.9  # width by distance
ELEVATION = np.deg2rad(35)
TURNS = {'left': np.deg2rad(35.0), 'right': np.deg2rad(-35.0)}  # from where the cameras looked
LARGEST_SPLAT = 48  # pixels
DRAWN_AT_ONCE = 1 << 20  # pixels
OVERLAP = 1.3  # of squares, so that slanted walls have no gaps
ABOVE_CAMERA_M = 0.3  # ceilings hide what is below
NEAR_AXIS = np.cos(np.deg2rad(35))
BACKGROUND = (228, 233, 240)  # unlike white walls
PALE, PALEST = 140, 215  # of background that was black and white
TRIMMED = 0.5  # percent of the voxels to each side that don't count for what fits


class Scene(NamedTuple):
    """What is drawn.

    Attributes:
        points: (n, 3) metres.
        colours: (n, 3) uint8.
        voxel_m: edge of a point's square.
        up, ahead: (3,) directions of the world: up, and where the cameras looked, level.
    """

    points: Matrix
    colours: Rgb
    voxel_m: float
    up: Matrix
    ahead: Matrix


def make_scene(voxels: Voxels, poses_n44: Matrix, voxel_m: float) -> Scene:
    """Colour the voxels, leave out what hangs above the cameras, and find what is up.

    Args:
        voxels: of the map.
        poses_n44: (n, 4, 4) of the cameras, at least one.
        voxel_m: edge of a voxel in metres.
    """
    up = upward(poses_n44)
    ahead = level(poses_n44[:, :3, 2].mean(axis=0), up)
    highest = (poses_n44[:, :3, 3] @ up).max() + ABOVE_CAMERA_M
    below = voxels.centres @ up <= highest
    if not below.any():
        below[:] = True
    colours = cloud_colours(voxels.rgb, voxels.labels)
    return Scene(voxels.centres[below], colours[below], voxel_m, up, ahead)


def upward(poses_n44: Matrix) -> Matrix:
    """Return what is up: the axis of the world next to the mean up of the cameras.

    Cameras look down or up as often as not; where no axis is near, it is their mean itself.
    """
    mean = -poses_n44[:, :3, 1].mean(axis=0)
    mean /= np.linalg.norm(mean) or 1.0
    axis = int(np.abs(mean).argmax())
    if abs(mean[axis]) < NEAR_AXIS:
        return np.asarray(mean, np.float64)
    return np.asarray(np.sign(mean[axis]) * np.eye(3)[axis], np.float64)


def level(direction: Matrix, up: Matrix) -> Matrix:
    """Return the level part of a direction with length 1, any where it has none."""
    flat = direction - (direction @ up) * up
    if np.linalg.norm(flat) < 1e-3:
        flat = np.cross(up, np.eye(3)[int(np.abs(up).argmin())])
    return np.asarray(flat / np.linalg.norm(flat), np.float64)


def cloud_colours(rgb: Rgb, labels: NDArray[np.uint16]) -> Rgb:
    """Return (n, 3) colours: of the class, as light as the camera saw it; background pale grey.

    One of the classes' colours is a grey, too: it is darker than all of the background.
    """
    known = np.where(labels == IGNORED, 0, labels)
    grey = cv2.cvtColor(rgb[None], cv2.COLOR_RGB2GRAY)[0] if len(rgb) else np.zeros(0, np.uint8)
    lightness = (0.55 + 0.45 * grey / 255)[:, None]
    colours = colour_labels(known[None])[0] * lightness
    plain = np.repeat(PALE + (PALEST - PALE) * (grey[:, None] / 255), 3, axis=1)
    return np.where((known == 0)[:, None], plain, colours).astype(np.uint8)


def write_views(
    folder: Path, scene: Scene, names: Mapping[int, str], labels: NDArray[np.uint16]
) -> list[tuple[str, str]]:
    """Write top.png, view_left.png and view_right.png with legends; return titles and data URIs.

    Args:
        folder: to write into.
        scene: to draw.
        names: of the classes by id.
        labels: of all voxels.

    Raises:
        WriteError: they can't be written.
    """
    counts = np.bincount(labels, minlength=IGNORED + 1)
    found = sorted((i for i in names if i and counts[i]), key=lambda i: -counts[i])
    legend = [(i, f'{names[i]} {100 * counts[i] / len(labels):.1f} %') for i in found]
    drawn = {'top': draw_top(scene)}
    drawn |= {f'view_{way}': draw_perspective(scene, turn) for way, turn in TURNS.items()}
    for name, picture in drawn.items():
        path = folder / f'{name}.png'
        with writing(path), replacing(path) as partial:
            Image.fromarray(add_legend(picture, legend, scale=1.5)).save(partial, format='PNG')
    titles = {'top': 'from above', 'view_left': 'from the left', 'view_right': 'from the right'}
    return [(titles[name], photograph(picture)) for name, picture in drawn.items()]


def draw_top(scene: Scene) -> Rgb:
    """Draw the map from above, where the cameras looked upwards, with a metre for scale."""
    right = np.cross(scene.ahead, scene.up)
    placed = scene.points @ np.stack([right, -scene.ahead, -scene.up], axis=1)
    low, high = extent(placed)
    width, height = SIZE
    scale = 0.92 * min(width / (high[0] - low[0]), height / (high[1] - low[1]))
    middle = (low + high)[:2] / 2
    pixels = (placed[:, :2] - middle) * scale + (width / 2, height / 2)
    splat = np.full(len(pixels), scene.voxel_m * scale)
    picture = paint(pixels, placed[:, 2], splat, scene.colours)
    return with_metre(picture, scale)


def draw_perspective(scene: Scene, turn: float) -> Rgb:
    """Draw the map from above and behind the cameras, turned about what is up."""
    right = np.cross(scene.ahead, scene.up)
    level_way = np.cos(turn) * scene.ahead + np.sin(turn) * right
    ahead = np.cos(ELEVATION) * level_way - np.sin(ELEVATION) * scene.up
    side = np.cross(ahead, scene.up)
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(ahead, side), ahead], axis=1)
    low, high = extent(scene.points @ axes)
    placed = scene.points @ axes - (low + high) / 2
    half = (high - low) / 2
    width, height = SIZE
    focal = width / FIELD_OF_VIEW
    distance = half[2] + 1.05 * focal * max(half[0] / (width / 2), half[1] / (height / 2))
    placed[:, 2] += distance
    placed, colours = (a[placed[:, 2] > 0.1 * distance] for a in (placed, scene.colours))
    pixels = placed[:, :2] / placed[:, 2:] * focal + (width / 2, height / 2)
    return paint(pixels, placed[:, 2], scene.voxel_m * focal / placed[:, 2], colours)


def extent(placed: Matrix) -> tuple[Matrix, Matrix]:
    """Return the lower and upper corner of nearly all points, never with a side of nothing."""
    low, high = np.percentile(placed, [TRIMMED, 100 - TRIMMED], axis=0)
    thin = np.maximum(0, 0.1 - (high - low)) / 2
    return low - thin, high + thin


def paint(pixels: Matrix, depth: Matrix, splat: Matrix, colours: Rgb) -> Rgb:
    """Draw points as squares, near ones before far ones.

    Args:
        pixels: (n, 2) x and y of the middles.
        depth: (n,) what is less lies before what is more.
        splat: (n,) edges of the squares in pixels.
        colours: (n, 3).
    """
    width, height = SIZE
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    flat = picture.reshape(-1, 3)
    edges = np.clip(np.ceil(OVERLAP * splat), 1, LARGEST_SPLAT).astype(np.int64)
    corner = np.floor(pixels - (edges / 2)[:, None] + 0.5).astype(np.int64)
    far_first = np.argsort(-depth)
    drawn = np.cumsum(edges[far_first] ** 2)
    ends = np.searchsorted(drawn, np.arange(DRAWN_AT_ONCE, drawn[-1:].sum(), DRAWN_AT_ONCE))
    for part in np.split(far_first, ends):
        counts = edges[part] ** 2
        point, edge = np.repeat(part, counts), np.repeat(edges[part], counts)
        within = np.arange(len(point)) - np.repeat(np.cumsum(counts) - counts, counts)
        x, y = corner[point, 0] + within % edge, corner[point, 1] + within // edge
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        # Of equal indices the last one counts: the nearest.
        flat[y[inside] * width + x[inside]] = colours[point[inside]]
    return picture


def with_metre(picture: Rgb, scale: float) -> Rgb:
    """Draw a bar of one metre, or of what fits, into the lower left corner."""
    metres = next((m for m in (1, 5, 10, 50, 100, 1000) if m * scale > 60), 1)
    start, end = (30, SIZE[1] - 30), (30 + round(metres * scale), SIZE[1] - 30)
    cv2.line(picture, start, end, (0, 0, 0), 3)
    place = (start[0], start[1] - 10)
    cv2.putText(picture, f'{metres} m', place, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    return picture
