"""Where patches lie in an image, window by window, and maps on them at any size.

What lies between patch centres is interpolated bilinearly, within each window; where windows
overlap their values are averaged; the result is resized to the image. All of that is linear and
goes by rows and columns apart, so it is one matrix an axis.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Weights = NDArray[np.floating[Any]]
ROUNDING = 1e-12


@dataclass(frozen=True)
class PatchAxis:
    """Patches along one axis of an image, those of all windows one after another.

    Attributes:
        length: of the encoded image, in pixels.
        starts: of the windows, in pixels.
        window: pixels each of them covers.
        patches: in each of them.
        spread: pixels these are spread over; more than `window` where it was padded.
        before: of those, how many lie before the window.
    """

    length: int
    starts: tuple[int, ...]
    window: int
    patches: int
    spread: int
    before: int = 0

    def weights(self, positions_p: Weights) -> Weights:
        """Return what every patch weighs at positions in pixels, (p, len(starts) * patches)."""
        parts, covers = [], np.zeros(len(positions_p))
        for start in self.starts:
            inside_p = positions_p - start
            covered = (inside_p >= 0) & (inside_p <= self.window)
            sources_p = (inside_p + self.before) * self.patches / self.spread - 0.5
            parts.append(linear_weights(sources_p, self.patches) * covered[:, None])
            covers += covered
        return np.concatenate(parts, axis=1) / covers[:, None]


def linear_weights(sources_p: Weights, count: int) -> Weights:
    """Return what each of `count` values weighs at positions between their indices, (p, count)."""
    sources_p = sources_p.clip(0, count - 1)
    return (1 - np.abs(sources_p[:, None] - np.arange(count))).clip(min=0)


def whole_axis(patches: int) -> PatchAxis:
    """Return the axis of patches that cover an image evenly."""
    return PatchAxis(patches, (0,), patches, patches, patches)


@functools.lru_cache(maxsize=32)
def weights_at(axis: PatchAxis, length: int) -> Weights:
    """Return what every patch weighs at the pixels of an axis resized to `length`, (length, p)."""
    pixels = axis.weights(np.arange(axis.length) + 0.5)
    if length == axis.length:
        return pixels
    sources = (np.arange(length) + 0.5) * (axis.length / length) - 0.5
    return linear_weights(sources, axis.length) @ pixels


@functools.lru_cache(maxsize=32)
def linear_runs(axis: PatchAxis, length: int) -> tuple[tuple[int, int], ...]:
    """Return runs of pixels (from, to) in which weights_at changes evenly.

    They end where a patch centre or the border of a window is passed.
    """
    changes = np.diff(weights_at(axis, length), axis=0)
    runs, start = [], 0
    while start < length:
        stop = start + 1
        while stop < length and np.abs(changes[stop - 1] - changes[start]).max() < ROUNDING:
            stop += 1
        runs.append((start, stop))
        start = stop
    return tuple(runs)


@functools.lru_cache(maxsize=32)
def centre_weights(axis: PatchAxis) -> NDArray[np.float32]:
    """Return what every patch weighs at the centres of one grid, as fine as that of the windows."""
    count = grid_length(axis)
    return axis.weights((np.arange(count) + 0.5) * axis.length / count).astype(np.float32)


def grid_length(axis: PatchAxis) -> int:
    """Return how many patches of the axis' size cover it."""
    return max(1, round(axis.length * axis.patches / axis.spread))


def are_one_grid(axes: tuple[PatchAxis, PatchAxis]) -> bool:
    """Tell whether patches are those of one window that begins with the image."""
    return all(len(axis.starts) == 1 and axis.before == 0 for axis in axes)


def patch_strides(
    axes: tuple[PatchAxis, PatchAxis] | None, grid: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float]:
    """Return how far apart the patches of `average_windows` are in an image, by rows and columns.

    The first lies half a stride from the image's edge.

    Args:
        axes: of the ImageFeatures.
        grid: rows and columns of patches.
        size: height and width of the image in pixels.
    """
    if axes is None or not are_one_grid(axes):  # they cover the image evenly
        return size[0] / grid[0], size[1] / grid[1]
    rows, columns = (
        axis.spread / axis.patches * length / axis.length
        for axis, length in zip(axes, size, strict=True)
    )
    return rows, columns


def average_windows(patches_hwd: torch.Tensor, axes: tuple[PatchAxis, PatchAxis]) -> torch.Tensor:
    """Average (h, w, d) patches of windows onto one grid; those of one window stay as they are."""
    import torch

    if are_one_grid(axes):
        return patches_hwd
    rows_yh, columns_xw = (
        torch.from_numpy(centre_weights(axis)).to(patches_hwd.device, non_blocking=True)
        for axis in axes
    )
    return torch.einsum('yh,xw,hwd->yxd', rows_yh, columns_xw, patches_hwd)
