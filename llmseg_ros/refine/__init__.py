"""From label logits on the patch grid to labels on the image."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.background import ABSENT
from llmseg_ros.config import RefineConfig
from llmseg_ros.maps import resize_maps
from llmseg_ros.refine.crf import crf_available, refine_crf
from llmseg_ros.refine.pamr import refine_pamr

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
    import torch

    if config.name == 'none':
        return best_label(resize_maps(logits_khw, rgb.shape[:2]).softmax(dim=0))
    small = shrink(rgb, config.short_side)
    if config.name == 'pamr':
        probabilities_khw = resize_maps(logits_khw, small.shape[:2]).softmax(dim=0)
        small_3hw = torch.from_numpy(small).to(logits_khw.device).permute(2, 0, 1).float()
        refined_khw = refine_pamr(probabilities_khw, small_3hw)
        return best_label(resize_maps(refined_khw, rgb.shape[:2]))
    present_k = torch.nonzero(logits_khw[:, 0, 0] > ABSENT)[:, 0]  # the CRF's time goes with k
    if len(present_k) == 1:
        return np.zeros(rgb.shape[:2], np.int64), np.ones(rgb.shape[:2], np.float32)
    probabilities_khw = resize_maps(logits_khw[present_k], small.shape[:2]).softmax(dim=0)
    refined_khw = torch.from_numpy(refine_crf(probabilities_khw.cpu().numpy(), small, config))
    best_hw, confidence_hw = best_label(resize_maps(refined_khw, rgb.shape[:2]))
    return present_k.cpu().numpy()[best_hw], confidence_hw


def available_refiner(config: RefineConfig) -> RefineConfig:
    """Fall back from `crf` to `pamr`, with a warning, where pydensecrf is not installed."""
    if config.name == 'crf' and not crf_available():
        logging.getLogger(__name__).warning(
            'refine.name is crf but pydensecrf is not installed (pip install pydensecrf2): '
            'masks are refined by pamr'
        )
        return dataclasses.replace(config, name='pamr')
    return config


def shrink(rgb: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """Scale an (H, W, 3) image down to a short side in pixels, never up."""
    import cv2

    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def best_label(
    probabilities_khw: torch.Tensor,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the (H, W) index of the most probable label and its probability."""
    confidence_hw, best_hw = probabilities_khw.max(dim=0)
    return best_hw.cpu().numpy(), confidence_hw.cpu().numpy()
