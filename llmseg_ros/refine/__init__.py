"""From label logits on the patch grid to labels on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.background import ABSENT
from llmseg_ros.config import RefineConfig
from llmseg_ros.refine.crf import refine_crf

if TYPE_CHECKING:
    import torch


def refine(
    logits_khw: torch.Tensor, rgb: NDArray[np.uint8], config: RefineConfig
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sharpen label logits along the image's edges.

    Args:
        logits_khw: (k, h, w), background first.
        rgb: (H, W, 3) uint8.
        config: the refiner and its working size.

    Returns:
        (H, W) index of the best label, and its (H, W) probability.
    """
    if config.name == 'none':
        return best_label(resize_maps(logits_khw, rgb.shape[:2]).softmax(dim=0))
    import cv2
    import torch

    present_k = torch.nonzero(logits_khw[:, 0, 0] > ABSENT)[:, 0]  # the CRF's time goes with k
    height, width = working_size(rgb.shape[:2], config.short_side)
    probabilities_khw = resize_maps(logits_khw[present_k], (height, width)).softmax(dim=0)
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    refined_khw = refine_crf(probabilities_khw.cpu().numpy(), small, config)
    best_hw, confidence_hw = best_label(resize_maps(torch.from_numpy(refined_khw), rgb.shape[:2]))
    return present_k.cpu().numpy()[best_hw], confidence_hw


def working_size(shape: tuple[int, ...], short_side: int) -> tuple[int, int]:
    """Return height and width of an image scaled down to a short side, never up."""
    scale = min(1.0, short_side / min(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def resize_maps(maps_khw: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Resize (k, h, w) maps bilinearly to (k, H, W)."""
    import torch

    size = (shape[0], shape[1])
    return torch.nn.functional.interpolate(maps_khw[None], size, mode='bilinear')[0]


def best_label(
    probabilities_khw: torch.Tensor,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the (H, W) index of the most probable label and its probability."""
    confidence_hw, best_hw = probabilities_khw.max(dim=0)
    return best_hw.cpu().numpy(), confidence_hw.cpu().numpy()
