"""Maps over an image: resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resize_maps(maps_khw: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resize (k, h, w) maps bilinearly to (k, H, W); the same tensor where nothing changes."""
    import torch

    height, width = shape
    if maps_khw.shape[1:] == (height, width):
        return maps_khw
    # maps that lie pixel by pixel in memory, as the CRF's do, are resized many times slower
    maps_1khw = maps_khw.contiguous()[None]
    return torch.nn.functional.interpolate(maps_1khw, (height, width), mode='bilinear')[0]
