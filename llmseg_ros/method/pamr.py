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
    probabilities_khw: torch.Tensor, rgb_3hw: torch.Tensor, shared: Shared | None = None
) -> torch.Tensor:
    """Average every pixel's probabilities with those of neighbours of like colour, ten times.

    Args:
        probabilities_khw: (k, H, W), summing to 1 over k.
        rgb_3hw: (3, H, W) float, any scale, on the same device.
        shared: of the image; the affinities, most of the time, go with the image alone.

    Returns:
        (k, H, W), summing to 1 over k.
    """
    import torch

    affinity_nhw = (shared or Shared()).once(('pamr', rgb_3hw.shape), lambda: affinities(rgb_3hw))
    for _ in range(ITERATIONS):
        averaged_khw = torch.zeros_like(probabilities_khw)
        for affinity_hw, neighbour_khw in zip(
            affinity_nhw, _neighbours(probabilities_khw), strict=True
        ):
            averaged_khw.addcmul_(affinity_hw, neighbour_khw)
        probabilities_khw = averaged_khw
    return probabilities_khw


def affinities(rgb_3hw: torch.Tensor) -> torch.Tensor:
    """Compare every pixel of a (3, H, W) image with its 8 neighbours at each dilation.

    Returns:
        (n, H, W) softmax over n of -mean_rgb |x_i - x_j| / (0.1 std), std being that of the pixel
        and its neighbours, by channel.
    """
    import torch

    neighbours_n3hw = torch.stack(list(_neighbours(rgb_3hw)))
    window_n3hw = torch.cat([rgb_3hw[None], neighbours_n3hw])
    std_3hw = window_n3hw.std(dim=0)
    distance_n3hw = (neighbours_n3hw - rgb_3hw).abs() / (STD_SHARE * std_3hw + EPSILON)
    return (-distance_n3hw.mean(dim=1)).softmax(dim=0)


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
