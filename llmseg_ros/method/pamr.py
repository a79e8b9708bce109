"""Pixel-adaptive mask refinement in torch (Araslanov and Roth, CVPR 2020), for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    import torch

DILATIONS = (8, 16)
ITERATIONS = 10
STD_SHARE = 0.1
EPSILON = 1e-8


def refine_pamr(
    maps_khw: torch.Tensor, rgb_3hw: torch.Tensor, shared: Shared | None = None
) -> torch.Tensor:
    """Average every pixel's values with those of neighbours of like colour, ten times.

    Args:
        maps_khw: (k, H, W), probabilities or any other maps.
        rgb_3hw: (3, H, W) float, any scale, on the same device.
        shared: of the image; the affinities, most of the time, go with the image alone.

    Returns:
        (k, H, W); what sums to 1 over k does so still.
    """
    shared = shared or Shared()
    affinity_nhw = shared.once(('pamr', rgb_3hw.shape), lambda: affinities(rgb_3hw))
    return spread_over_neighbours(maps_khw, affinity_nhw)


def spread_over_neighbours(maps_khw: torch.Tensor, affinity_nhw: torch.Tensor) -> torch.Tensor:
    """Take the mean of every pixel's neighbours in (k, H, W) by their affinity, ten times."""
    import torch

    for _ in range(ITERATIONS):
        averaged_khw = torch.zeros_like(maps_khw)
        for affinity_hw, neighbour_khw in zip(affinity_nhw, _neighbours(maps_khw), strict=True):
            averaged_khw.addcmul_(affinity_hw, neighbour_khw)
        maps_khw = averaged_khw
    return maps_khw


def affinities(rgb_3hw: torch.Tensor) -> torch.Tensor:
    """Compare every pixel of a (3, H, W) image with its 8 neighbours at each dilation.

    Returns:
        (n, H, W) softmax over n of -mean_rgb |x_i - x_j| / (0.1 std), by channel; std is that of
        the neighbours and the pixel, which counts once for every dilation, as published.
    """
    import torch

    distance_nhw: torch.Tensor | None = None
    for channel_1hw in rgb_3hw.split(1):
        neighbours_nhw = torch.cat(list(_neighbours(channel_1hw)))
        centres_nhw = channel_1hw.expand(len(DILATIONS), -1, -1)
        std_hw = torch.cat([centres_nhw, neighbours_nhw]).std(dim=0)
        channel_nhw = (neighbours_nhw - channel_1hw).abs_() / (STD_SHARE * std_hw + EPSILON)
        distance_nhw = channel_nhw if distance_nhw is None else distance_nhw.add_(channel_nhw)
    assert distance_nhw is not None
    return (distance_nhw / -len(rgb_3hw)).softmax(dim=0)


def _neighbours(maps_khw: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield (k, H, W) of the 8 neighbours at each dilation; beyond the border is the border."""
    import torch

    height, width = maps_khw.shape[1:]
    for step in DILATIONS:
        padded = torch.nn.functional.pad(maps_khw[None], (step,) * 4, mode='replicate')[0]
        for dy in (0, step, 2 * step):
            for dx in (0, step, 2 * step):
                if (dy, dx) != (step, step):
                    yield padded[:, dy : dy + height, dx : dx + width]
