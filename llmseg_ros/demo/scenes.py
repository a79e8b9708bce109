"""Camera frames made of public-domain photographs by panning a window over them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 480
MARGIN = 1.15  # how much larger than the window the photograph is at least
SWAY = 0.15  # how far the window moves at most, as a share of its size


@dataclass(frozen=True)
class Scene:
    """A photograph of skimage.data.

    Attributes:
        name: the class a person would name it by.
        photograph: name of the function in skimage.data.
        middle: what the window moves around, as shares of the photograph's width and height.
    """

    name: str
    photograph: str
    middle: tuple[float, float] = (0.5, 0.5)


# All four are CC0 or public domain, as their docstrings in skimage.data say, and lie in the
# scikit-image package itself.
SCENES = (
    Scene('cat', 'chelsea', (0.6, 0.5)),
    Scene('cup', 'coffee'),
    Scene('person', 'astronaut', (0.5, 0.35)),
    Scene('rocket', 'rocket'),
)


def load_photograph(scene: Scene) -> NDArray[np.uint8]:
    """Return a scene's photograph, (H, W, 3) uint8 RGB, larger than the window on both sides."""
    import skimage.data

    photograph = getattr(skimage.data, scene.photograph)()
    height, width = photograph.shape[:2]
    scale = MARGIN * max(WIDTH / width, HEIGHT / height)
    size = (math.ceil(width * scale), math.ceil(height * scale))
    return np.asarray(cv2.resize(photograph, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def pan(
    photograph: NDArray[np.uint8], count: int, middle: tuple[float, float] = (0.5, 0.5)
) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` (480, 640, 3) windows that go round a point of a photograph once."""
    height, width = photograph.shape[:2]
    for index in range(count):
        angle = 2 * math.pi * index / count
        x = window_start(width, WIDTH, middle[0], math.cos(angle))
        y = window_start(height, HEIGHT, middle[1], math.sin(angle))
        yield np.ascontiguousarray(photograph[y : y + HEIGHT, x : x + WIDTH])


def window_start(length: int, window: int, middle: float, swing: float) -> int:
    """Return where a window begins along one side, `swing` (-1 to 1) away from the middle."""
    start = middle * length - window / 2 + swing * SWAY * window / 2
    return round(min(max(start, 0), length - window))


def camera_frames(per_scene: int) -> Iterator[tuple[Scene, NDArray[np.uint8]]]:
    """Yield the frames of all scenes, one scene after the other."""
    for scene in SCENES:
        for frame in pan(load_photograph(scene), per_scene, scene.middle):
            yield scene, frame
