"""Sliding windows: where they lie, cutting them out, and averaging what they overlap in.

Windows lie on the patch grid of the resized image, so that overlapping windows share patches and
averaging needs no interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along one side; the last one ends where the side ends.

    Args:
        length: of the side in patches.
        window: in patches; a side shorter than a window has one window of its own length.
        stride: in patches, 1 to window.

    Raises:
        ValueError: the stride is below 1 or leaves gaps between windows.
    """
    if not 1 <= stride <= window:
        raise ValueError(f'stride of {stride} patches: expected 1 to {window}, the window')
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def window_origins(grid: tuple[int, int], window: int, stride: int) -> list[tuple[int, int]]:
    """Return the (row, column) every window starts at, in patches, row by row."""
    rows, columns = (window_starts(length, window, stride) for length in grid)
    return [(row, column) for row in rows for column in columns]


def cut_windows(
    image_chw: torch.Tensor, origins: Sequence[tuple[int, int]], size: tuple[int, int], patch: int
) -> torch.Tensor:
    """Cut windows out of an image into (n, c, size[0] * patch, size[1] * patch).

    Args:
        image_chw: (c, H, W), both sides whole patches.
        origins: of the windows, in patches.
        size: of a window, rows and columns, in patches.
        patch: side of a patch in pixels.
    """
    import torch

    height, width = size[0] * patch, size[1] * patch
    corners = [(row * patch, column * patch) for row, column in origins]
    return torch.stack([image_chw[:, y : y + height, x : x + width] for y, x in corners])


def average_windows(
    windows_nhwd: torch.Tensor, origins: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> torch.Tensor:
    """Average windows over the grid, each patch by the number of windows that cover it.

    Averaging is linear: the mean of unit patch features times a descriptor equals the mean of the
    windows' cosines with it, so logits need not exist for averaging them.

    Args:
        windows_nhwd: (n, h, w, d) values per patch.
        origins: of the n windows, in patches.
        grid: rows and columns of the whole image; every patch is covered.

    Returns:
        (rows, columns, d) of the same type.
    """
    rows, columns = windows_nhwd.shape[1:3]
    total_hwd = windows_nhwd.new_zeros((*grid, windows_nhwd.shape[3]))
    coverage_hw1 = windows_nhwd.new_zeros((*grid, 1))
    for window_hwd, (row, column) in zip(windows_nhwd, origins, strict=True):
        total_hwd[row : row + rows, column : column + columns] += window_hwd
        coverage_hw1[row : row + rows, column : column + columns] += 1
    return total_hwd / coverage_hw1
