"""From label logits on the patch grid to labels on the image."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.background import ABSENT
from llmseg_ros.config import RefineConfig
from llmseg_ros.maps import resize_maps
from llmseg_ros.refine.crf import crf_available, refine_crf
from llmseg_ros.refine.crf_binary import label_by_binary_crf
from llmseg_ros.refine.pamr import refine_pamr

if TYPE_CHECKING:
    import torch

VALUES_AT_ONCE = 2**24  # of maps at image size: 64 MB, however many labels there are


def refine(
    logits_khw: torch.Tensor,
    scores_k: torch.Tensor,
    rgb: NDArray[np.uint8],
    config: RefineConfig,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sharpen label logits along the image's edges.

    Args:
        logits_khw: (k + 1, h, w), background first.
        scores_k: (k,) of the image as a whole; they decide between the masks of `crf_binary`.
        rgb: (H, W, 3) uint8.
        config: the refiner and its working size.

    Returns:
        (H, W) index of the best label, and its (H, W) probability.
    """
    import torch

    shape = rgb.shape[:2]
    if config.name == 'crf_binary':
        return label_by_binary_crf(logits_khw.cpu().numpy(), scores_k.cpu().numpy(), rgb, config)
    labels_at_once = max(1, VALUES_AT_ONCE // (shape[0] * shape[1]))
    if config.name == 'none':
        return best_label(label_probabilities(logits_khw, shape, labels_at_once))
    small = shrink(rgb, config.short_side)
    if config.name == 'pamr':
        small_3hw = torch.from_numpy(small).to(logits_khw.device, non_blocking=True)
        small_3hw = small_3hw.permute(2, 0, 1).float()
        parts = label_probabilities(logits_khw, small.shape[:2], labels_at_once)
        return best_label(resize_maps(refine_pamr(part, small_3hw), shape) for part in parts)
    joint_k = joint_labels(logits_khw, config.max_labels)
    if len(joint_k) == 1:
        return np.full(shape, joint_k.item(), np.int64), np.ones(shape, np.float32)
    probabilities_khw = resize_maps(logits_khw[joint_k], small.shape[:2]).softmax(dim=0)
    refined_khw = torch.from_numpy(refine_crf(probabilities_khw.cpu().numpy(), small, config))
    best_hw, confidence_hw = best_label([resize_maps(refined_khw, shape)])
    return joint_k.cpu().numpy()[best_hw], confidence_hw


def available_refiner(config: RefineConfig) -> RefineConfig:
    """Fall back to `pamr`, with a warning, where pydensecrf is needed and not installed."""
    if config.name in ('crf', 'crf_binary') and not crf_available():
        logging.getLogger(__name__).warning(
            'refine.name is %s but pydensecrf is not installed (pip install pydensecrf2): '
            'masks are refined by pamr',
            config.name,
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


def joint_labels(logits_khw: torch.Tensor, most: int) -> torch.Tensor:
    """Choose the labels of a joint CRF, whose time and memory go with their number.

    Returns:
        (j,) int64, ascending, 1 <= j <= most: those that are in the image; of more, those whose
        largest probability in any patch is largest.
    """
    import torch

    present_k = torch.nonzero(logits_khw[:, 0, 0] > ABSENT)[:, 0]
    if len(present_k) == 0:  # no class, and nothing is background either
        return present_k.new_zeros(1)
    if len(present_k) <= most:
        return present_k
    peaks_k = logits_khw[present_k].softmax(dim=0).amax(dim=(1, 2))
    return present_k[peaks_k.topk(most).indices.sort().values]


def label_probabilities(
    logits_khw: torch.Tensor, shape: Sequence[int], labels_at_once: int
) -> Iterator[torch.Tensor]:
    """Resize logits to (H, W) and take their softmax over all labels, some labels at a time.

    Yields:
        (labels_at_once or fewer, H, W) probabilities of consecutive labels.
    """
    import torch

    parts = logits_khw.split(labels_at_once)
    if len(parts) == 1:
        yield resize_maps(logits_khw, shape).softmax(dim=0)
        return
    total_hw = functools.reduce(
        torch.logaddexp, (resize_maps(part, shape).logsumexp(dim=0) for part in parts)
    )
    for part in parts:
        yield (resize_maps(part, shape) - total_hw).exp_()


def best_label(
    parts: Iterable[torch.Tensor],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the (H, W) index of the most probable label and its probability.

    Args:
        parts: (k, H, W) probabilities of consecutive labels, at least one part.
    """
    import torch

    rest = iter(parts)
    first = next(rest)
    best_hw, index_hw = first.max(dim=0)
    labels = len(first)
    for part in rest:
        top_hw, top_index_hw = part.max(dim=0)
        index_hw = torch.where(top_hw > best_hw, top_index_hw + labels, index_hw)
        best_hw = torch.maximum(best_hw, top_hw)
        labels += len(part)
    return index_hw.cpu().numpy(), best_hw.cpu().numpy()
