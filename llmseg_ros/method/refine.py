"""From label logits, or the logits of names, on the patches to labels on the image."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import BackgroundConfig, RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.crf import crf_available, refine_crf
from llmseg_ros.method.crf_binary import label_by_binary_crf
from llmseg_ros.method.crf_torch import MOST_PIXELS, MOST_PIXELS_CPU, refine_crf_torch, working_size
from llmseg_ros.method.maps import enlarge, resize_maps
from llmseg_ros.method.name_labels import label_names, label_refined_names, without_small
from llmseg_ros.method.name_logits import NameLogits, labels_at, patch_labels
from llmseg_ros.method.pamr import refine_pamr
from llmseg_ros.method.patches import grid_length
from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    import torch

TEMPERATURE = 8.0  # of the confidence of a CRF's labels
LEAST = 1e-8  # probability, before its logarithm

Labels = tuple[NDArray[np.int64], NDArray[np.float32]]


def refine(
    logits_khw: torch.Tensor,
    scores_k: torch.Tensor,
    rgb: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
) -> Labels:
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
    if config.name == 'crf_binary':
        scores = scores_k.cpu().numpy()
        return label_by_binary_crf(logits_khw.cpu().numpy(), scores, rgb, config, shared)
    device = logits_khw.device
    labels_j = choose_labels(logits_khw, config)
    if config.name == 'crf' and len(labels_j) <= 1:
        return one_label(labels_j, rgb)
    if config.name == 'crf' and in_torch(config, device):
        return refine_in_torch(labels_j, logits_khw[labels_j], rgb, config, shared)
    small = working_image(rgb, config)
    logits_jhw = resize_maps(logits_khw[labels_j], small.shape[:2])
    return refine_small(labels_j, logits_jhw, small, rgb.shape[:2], config, shared)


def refine_names(
    names: NameLogits,
    scores_k: torch.Tensor,
    rgb: NDArray[np.uint8],
    background: BackgroundConfig,
    config: RefineConfig,
    input_3hw: torch.Tensor | None = None,
    shared: Shared | None = None,
) -> Labels:
    """Do as `refine` does for names that compete for every pixel.

    Their logits are resized before the softmax: to the image, or to the size the refiner works at.

    Args:
        names: logits of all names.
        scores_k: as `refine` has it.
        rgb: (H, W, 3) uint8.
        background: what is background.
        config: the refiner.
        input_3hw: the image as it was encoded, for PAMR on similarities; without, `rgb` is taken.
        shared: of the image.
    """

    shape = rgb.shape[:2]
    if config.name == 'none':
        return to_numpy(label_names(names, shape, background))
    if config.name == 'pamr' and config.pamr_on == 'similarities':
        if input_3hw is None:
            input_3hw = rgb_tensor(rgb, names.names_hmw.device)
        image_3hw = resize_maps(input_3hw, shape)
        return to_numpy(label_refined_names(names, image_3hw, background, shared))
    if config.name == 'crf_binary':
        grid = [grid_length(axis) for axis in names.axes]
        return refine(labels_at(names, grid, background), scores_k, rgb, config, shared)
    device = names.names_hmw.device
    labels_j = choose_labels(patch_labels(names, background), config)
    if config.name == 'crf' and len(labels_j) <= 1:
        return one_label(labels_j, rgb)
    if config.name == 'crf' and in_torch(config, device):
        most_pixels = MOST_PIXELS_CPU if on_host(device) else MOST_PIXELS
        size = working_size(shape, config.short_side, most_pixels)
        logits_jhw = labels_at(names, size, background, labels_j)
        return refine_in_torch(labels_j, logits_jhw, rgb, config, shared, background)
    small = working_image(rgb, config)
    logits_jhw = labels_at(names, small.shape[:2], background, labels_j)
    return refine_small(labels_j, logits_jhw, small, shape, config, shared, background)


def refine_small(
    labels_j: torch.Tensor,
    logits_jhw: torch.Tensor,
    small: NDArray[np.uint8],
    shape: tuple[int, ...],
    config: RefineConfig,
    shared: Shared | None = None,
    background: BackgroundConfig | None = None,
) -> Labels:
    """Refine (j, h, w) label logits on an image as large, then bring them to a shape."""
    before_jhw = logits_jhw.softmax(dim=0)
    refined_jhw = refine_labels(before_jhw, small, config, shared)
    if on_host(refined_jhw.device) and not (background and background.area_threshold):
        labels = best_labels_on_host(labels_j.cpu().numpy(), refined_jhw.numpy(), shape)
    else:
        labels = best_labels(labels_j, resize_maps(refined_jhw, shape), background)
    return calibrate(labels, before_jhw, refined_jhw) if config.name == 'crf' else labels


def refine_in_torch(
    labels_j: torch.Tensor,
    logits_jhw: torch.Tensor,
    rgb: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
    background: BackgroundConfig | None = None,
) -> Labels:
    """Refine (j, h, w) label logits by the CRF in torch."""
    rgb_1hw3 = send(rgb, logits_jhw.device)[None]
    refined_jhw = refine_crf_torch(logits_jhw[None], rgb_1hw3, config, shared)[0]
    before_jhw = resize_maps(logits_jhw, rgb.shape[:2]).softmax(dim=0)
    return calibrate(best_labels(labels_j, refined_jhw, background), before_jhw, refined_jhw)


def calibrate(labels: Labels, before_jhw: torch.Tensor, refined_jhw: torch.Tensor) -> Labels:
    """Give the labels of a CRF a confidence that is about the share of such pixels that are right.

    A mean field counts its neighbours' opinions again and again: its marginals q are near 1 for
    right and wrong labels alike. The confidence is softmax((log p + log q) / TEMPERATURE) of the
    label with the largest q, p being the probabilities before the CRF.

    Args:
        labels: (H, W) labels; their confidence is replaced.
        before_jhw: (j, h, w) p.
        refined_jhw: (j, h, w) q.
    """
    import torch

    logs_jhw = before_jhw.clamp(min=LEAST).log() + refined_jhw.clamp(min=LEAST).log()
    logs_jhw = (logs_jhw / TEMPERATURE).masked_fill(before_jhw == 0, -torch.inf)  # absent labels
    best_1hw = refined_jhw.max(dim=0, keepdim=True).indices  # argmax takes ten times as long
    confidence_1hw = logs_jhw.softmax(dim=0).gather(0, best_1hw)
    if on_host(confidence_1hw.device):
        return labels[0], enlarge(confidence_1hw[0].numpy(), labels[0].shape)
    return labels[0], resize_maps(confidence_1hw, labels[0].shape)[0].cpu().numpy()


def best_labels(
    labels_j: torch.Tensor,
    probabilities_jhw: torch.Tensor,
    background: BackgroundConfig | None = None,
) -> Labels:
    """Return the best of the labels by pixel and its probability, without those too small."""
    labels_j = labels_j.to(probabilities_jhw.device, non_blocking=True)
    if background is not None and background.area_threshold:
        probabilities_jhw = without_small(probabilities_jhw, labels_j == 0, background)
    confidence_hw, best_hw = probabilities_jhw.max(dim=0)
    return labels_j[best_hw].cpu().numpy(), confidence_hw.cpu().numpy()


def best_labels_on_host(
    labels_j: NDArray[np.int64], probabilities_jhw: NDArray[np.float32], shape: tuple[int, ...]
) -> Labels:
    """Return the best of the labels by pixel of a shape and its probability.

    As best_labels of resize_maps, label by label, which takes a tenth of the time.
    """
    best_hw = np.full(shape, labels_j[0])
    confidence_hw = enlarge(probabilities_jhw[0], shape)
    for label, probability_hw in zip(labels_j[1:], probabilities_jhw[1:], strict=True):
        enlarged_hw = enlarge(probability_hw, shape)
        np.copyto(best_hw, label, where=enlarged_hw > confidence_hw)
        np.maximum(confidence_hw, enlarged_hw, out=confidence_hw)
    return best_hw, confidence_hw


def to_numpy(labels: tuple[torch.Tensor, torch.Tensor]) -> Labels:
    best_hw, confidence_hw = labels
    return best_hw.cpu().numpy(), confidence_hw.cpu().numpy()


def choose_labels(logits_khw: torch.Tensor, config: RefineConfig) -> torch.Tensor:
    """Return (j,) int64, the labels worked on at image size."""
    labels_j = strongest_labels(logits_khw, config.max_labels)
    device = logits_khw.device
    # time goes with the number of labels; but a GPU in use would have to be waited for
    if config.name == 'crf' and (on_host(device) or not in_torch(config, device)):
        labels_j = labels_j[logits_khw[labels_j, 0, 0] > ABSENT]
    return labels_j


def one_label(labels_j: torch.Tensor, rgb: NDArray[np.uint8]) -> Labels:
    """Return an image of the one label there is, or of background."""
    shape = rgb.shape[:2]
    only = labels_j.item() if len(labels_j) else 0
    return np.full(shape, only, np.int64), np.ones(shape, np.float32)


def working_image(rgb: NDArray[np.uint8], config: RefineConfig) -> NDArray[np.uint8]:
    """Return an image at the size a refiner works at."""
    full_size = config.name == 'none' or (
        config.name == 'pamr' and config.pamr_on == 'similarities'
    )
    return rgb if full_size else shrink(rgb, config.short_side)


def refine_labels(
    probabilities_jhw: torch.Tensor,
    small: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
) -> torch.Tensor:
    """Refine (j, h, w) label probabilities by `crf`, `pamr` or not at all, on an image as large."""
    import torch

    if config.name == 'pamr':
        small_3hw = rgb_tensor(small, probabilities_jhw.device)
        return refine_pamr(probabilities_jhw, small_3hw, shared)
    if config.name == 'crf':
        return torch.from_numpy(refine_crf(probabilities_jhw.cpu().numpy(), small, config, shared))
    return probabilities_jhw


def rgb_tensor(rgb: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Return an (H, W, 3) uint8 image as (3, H, W) float32 on a device."""
    return send(rgb, device).permute(2, 0, 1).float()


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

    tensor = torch.from_numpy(np.require(rgb, requirements=['C', 'W']))
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
