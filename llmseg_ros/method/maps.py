"""Maps over an image: resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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


def enlarge(map_hw: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Return a resized copy of one map in the memory of the host, as resize_maps does to 1e-5."""
    import cv2

    size = shape[1], shape[0]
    whole_hw = np.ascontiguousarray(map_hw)
    if map_hw.shape == tuple(shape):
        return np.array(whole_hw)
    return np.asarray(cv2.resize(whole_hw, size, interpolation=cv2.INTER_LINEAR), np.float32)
