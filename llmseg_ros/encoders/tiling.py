"""Sizes that images are encoded at, and sliding windows over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmseg_ros.method.patches import PatchAxis

if TYPE_CHECKING:
    import torch


def fit_grid(
    height: int, width: int, patch: int, short_side: int, long_side: int
) -> tuple[int, int]:
    """Return the patch grid (rows, columns) an image is resized to.

    The scale is the largest that keeps the short side at or below short_side and the long side at
    or below long_side; each side is then rounded to whole patches, at least one. So the number of
    patches is bounded by about short_side * long_side / patch**2, whatever the image.

    Args:
        height: of the image in pixels, 1 or more.
        width: of the image in pixels, 1 or more.
        patch: side of a patch in pixels.
        short_side: target in pixels.
        long_side: limit in pixels.

    Raises:
        ValueError: the image has no pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f'an image of {width}x{height} pixels has nothing to encode')
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, round(height * scale / patch)), max(1, round(width * scale / patch))


def fit_size(
    height: int, width: int, patch: int, short_side: int, long_side: int, fit: str
) -> tuple[int, int]:
    """Return the size in pixels (height, width) an image is resized to.

    By `round` it is that of fit_grid; else sides are as long as the scale makes them, as mmseg has
    it, but not shorter than a patch.

    Args:
        height: of the image in pixels, 1 or more.
        width: of the image in pixels, 1 or more.
        patch: side of a patch in pixels.
        short_side: target in pixels.
        long_side: limit in pixels.
        fit: `round`, `cut`, `pad` or `pad_end`.

    Raises:
        ValueError: the image has no pixels.
    """
    rows, columns = fit_grid(height, width, patch, short_side, long_side)
    if fit == 'round':
        return rows * patch, columns * patch
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(patch, int(height * scale + 0.5)), max(patch, int(width * scale + 0.5))


def patch_axis(length: int, window: int, stride: int, patch: int, fit: str) -> PatchAxis:
    """Return where patches lie along a side that is cut into windows.

    Args:
        length: of the side in pixels.
        window: in pixels; as long as the side or longer: there is one, the whole side.
        stride: of windows, in pixels.
        patch: in pixels.
        fit: what becomes of pixels beyond the last whole patch of a window: `round` and `cut`
            leave them out, `pad` adds zeros around the window, `pad_end` after it. The patches are
            taken to cover the window evenly, with `pad` the zeros as well.
    """
    window = min(window, length)
    starts = tuple(window_starts(length, window, min(stride, window)))
    if fit in ('round', 'cut'):
        return PatchAxis(length, starts, window, window // patch, window)
    patches = math.ceil(window / patch)
    if fit == 'pad_end':
        return PatchAxis(length, starts, window, patches, window)
    padded = patches * patch
    return PatchAxis(length, starts, window, patches, padded, (padded - window) // 2)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along one side; the last one ends where the side ends.

    Args:
        length: of the side.
        window: in the same unit; a side shorter than a window has one window of its own length.
        stride: likewise, 1 to window.

    Raises:
        ValueError: the stride is below 1 or leaves gaps between windows.
    """
    if not 1 <= stride <= window:
        raise ValueError(f'stride of {stride}: expected 1 to {window}, the window')
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def cut_windows(
    image_chw: torch.Tensor, axes: tuple[PatchAxis, PatchAxis], patch: int
) -> torch.Tensor:
    """Cut windows out of an image, row by row, zeros around them where patches need it.

    Args:
        image_chw: (c, H, W).
        axes: where the windows lie.
        patch: side of a patch in pixels.

    Returns:
        (n, c, rows * patch, columns * patch) of a window's rows and columns of patches.
    """
    import torch

    rows, columns = axes
    windows_nchw = torch.stack(
        [
            image_chw[:, y : y + rows.window, x : x + columns.window]
            for y in rows.starts
            for x in columns.starts
        ]
    )
    margins = []
    for axis in (columns, rows):
        after = axis.patches * patch - axis.window - axis.before
        margins += [axis.before, after]  # below 0: cut off
    return torch.nn.functional.pad(windows_nchw, margins)


def join_windows(patches_nhwd: torch.Tensor, axes: tuple[PatchAxis, PatchAxis]) -> torch.Tensor:
    """Put the (n, h, w, d) patches of windows side by side, (rows * h, columns * w, d)."""
    rows, columns = (len(axis.starts) for axis in axes)
    return patches_nhwd.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
