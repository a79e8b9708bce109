"""From label logits on the patch grid to labels on the image."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.crf import crf_available, refine_crf
from llmseg_ros.method.crf_binary import label_by_binary_crf
from llmseg_ros.method.crf_torch import refine_crf_torch
from llmseg_ros.method.maps import resize_maps
from llmseg_ros.method.pamr import refine_pamr
from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    import torch


def refine(
    logits_khw: torch.Tensor,
    scores_k: torch.Tensor,
    rgb: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sharpen label logits along the image's edges.

    Args:
        logits_khw: (k + 1, h, w), background first.
        scores_k: (k,) of the image as a whole; they decide between the masks of `crf_binary`.
        rgb: (H, W, 3) uint8.
        config: the refiner and its working size.
        shared: of the image.

    Returns:
        (H, W) index of the best label, and its (H, W) probability.
    """
    import torch

    if config.name == 'crf_binary':
        scores = scores_k.cpu().numpy()
        return label_by_binary_crf(logits_khw.cpu().numpy(), scores, rgb, config, shared)
    shape = rgb.shape[:2]
    labels_j = strongest_labels(logits_khw, config.max_labels)
    device = logits_khw.device
    by_torch = config.name == 'crf' and in_torch(config, device)
    # time goes with the number of labels; but a GPU in use would have to be waited for
    if config.name == 'crf' and (on_host(device) or not by_torch):
        labels_j = labels_j[logits_khw[labels_j, 0, 0] > ABSENT]
        if len(labels_j) <= 1:
            only = labels_j.item() if len(labels_j) else 0
            return np.full(shape, only, np.int64), np.ones(shape, np.float32)
    if by_torch:
        logits_1jhw, rgb_1hw3 = logits_khw[labels_j][None], send(rgb, device)[None]
        refined_1jhw = refine_crf_torch(logits_1jhw, rgb_1hw3, config, shared)
        confidence_hw, best_hw = refined_1jhw[0].max(dim=0)
        return labels_j[best_hw].cpu().numpy(), confidence_hw.cpu().numpy()
    small = rgb if config.name == 'none' else shrink(rgb, config.short_side)
    probabilities_jhw = resize_maps(logits_khw[labels_j], small.shape[:2]).softmax(dim=0)
    if config.name == 'pamr':
        small_hw3 = torch.from_numpy(small).to(logits_khw.device, non_blocking=True)
        small_3hw = small_hw3.permute(2, 0, 1).float()
        probabilities_jhw = refine_pamr(probabilities_jhw, small_3hw, shared)
    elif config.name == 'crf':
        refined = refine_crf(probabilities_jhw.cpu().numpy(), small, config, shared)
        probabilities_jhw = torch.from_numpy(refined)
    confidence_hw, best_hw = resize_maps(probabilities_jhw, shape).max(dim=0)
    return labels_j.cpu().numpy()[best_hw.cpu().numpy()], confidence_hw.cpu().numpy()


def available_refiner(config: RefineConfig) -> RefineConfig:
    """Do without pydensecrf, with a warning, where it is needed and not installed.

    The CRF of all labels then runs in torch, `crf_binary` becomes `pamr`.
    """
    by_torch = config.name == 'crf' and config.backend == 'torch'
    if config.name not in ('crf', 'crf_binary') or by_torch or crf_available():
        return config
    instead = 'by pamr' if config.name == 'crf_binary' else 'by a CRF in torch, coarser on a CPU'
    logging.getLogger(__name__).warning(
        'refine.name is %s but pydensecrf is not installed (pip install pydensecrf2): '
        'masks are refined %s',
        config.name,
        instead,
    )
    if config.name == 'crf_binary':
        return dataclasses.replace(config, name='pamr')
    return dataclasses.replace(config, backend='torch')


def in_torch(config: RefineConfig, device: torch.device) -> bool:
    """Tell whether the CRF of logits on a device runs in torch, where they are, not on the CPU."""
    return config.backend == 'torch' or (config.backend == 'auto' and not on_host(device))


def on_host(device: torch.device) -> bool:
    """Tell whether values on a device can be read without waiting for it."""
    return device.type == 'cpu'


def send(rgb: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Copy an image to a device without waiting for what that has to do yet."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(rgb))
    if device.type == 'cuda':  # a copy from memory that is not pinned waits for its turn
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def shrink(rgb: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """Scale an (H, W, 3) image down to a short side in pixels, never up."""
    import cv2

    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def strongest_labels(logits_khw: torch.Tensor, most: int) -> torch.Tensor:
    """Choose the labels worked on at image size, whose memory and time go with their number.

    Returns:
        (min(k, most),) int64, ascending: of more than `most`, those whose largest probability in
        any patch is largest.
    """
    import torch

    if len(logits_khw) <= most:
        return torch.arange(len(logits_khw), device=logits_khw.device)
    peaks_k = logits_khw.softmax(dim=0).amax(dim=(1, 2))
    return peaks_k.topk(most).indices.sort().values
