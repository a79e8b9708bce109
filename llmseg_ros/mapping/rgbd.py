"""Frames with depth and a pose, whatever they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.mapping.geometry import Camera, Floats, Matrix, depth_to_points, fit_depth


class RgbdFrame(NamedTuple):
    """A camera frame with its depth.

    Attributes:
        name: to speak of it.
        stamp: in nanoseconds.
        rgb: (H, W, 3) uint8.
        depth: (h, w) float32 metres, NaN where unknown; of the aspect of rgb.
        camera: that took rgb, of its size.
        pose: (4, 4) of the camera's optical frame in the world.
    """

    name: str
    stamp: int
    rgb: NDArray[np.uint8]
    depth: Floats
    camera: Camera
    pose: Matrix


def frame_points(frame: RgbdFrame, farthest_m: float = np.inf) -> Floats:
    """Return the (H, W, 3) points of a frame, organised like its image; NaN where unknown.

    Args:
        frame: with depth of any size.
        farthest_m: depth beyond counts as unknown.

    Raises:
        GeometryError: depth or camera are of another aspect than the image.
    """
    height, width = frame.rgb.shape[:2]
    depth = fit_depth(frame.depth, width, height)
    if farthest_m < np.inf:
        depth = np.where(depth <= farthest_m, depth, np.float32(np.nan))
    return depth_to_points(depth, frame.camera.scaled(width, height))
