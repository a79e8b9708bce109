"""Masks as published: a binary dense CRF and morphology per class, decided by class scores.

SimSeg (Yi et al., CVPR 2023), unchanged in Sun et al. (CVPRW 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.crf import refine_crf
from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    from collections.abc import Iterator

PATCH_PIXELS = 16  # a patch is enlarged to 16 x 16: the input of a ViT-*/16
KERNEL = (7, 7)
PIXEL_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
PIXEL_STD = np.array([0.229, 0.224, 0.225], np.float32)


def label_by_binary_crf(
    logits_khw: NDArray[np.float32],
    scores_k: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Segment every class against background alone; where masks overlap, the best score wins.

    Nearest neighbour both ways: patches to 16 x 16 pixels, where the CRF and the morphology work,
    and masks to the image.

    Args:
        logits_khw: (k + 1, h, w), background first; a class's probability is
            sigmoid(logit - background's).
        scores_k: (k,) of the classes in the image as a whole; one of 0 or less has no mask.
        rgb: (H, W, 3) uint8.
        config: the CRF's settings, and whether masks are closed.
        shared: of the image.

    Returns:
        (H, W) index of the label, and its (H, W) probability: the class's CRF marginal, for
        background 1 less the largest of them.
    """
    import cv2

    height, width = (side * PATCH_PIXELS for side in logits_khw.shape[1:])
    small = denormalised_input(rgb, (height, width))
    labels = np.zeros((height, width), np.uint16)
    decided = np.zeros((height, width))  # the score that decided
    probabilities = np.zeros((height, width), np.float32)
    most = np.zeros((height, width), np.float32)
    for index, foreground in class_marginals(logits_khw, small, config, shared):
        mask = (foreground > 0.5).astype(np.uint8)
        if config.morphology:
            mask = close_mask(mask)
        wins = mask * float(scores_k[index]) > decided
        labels[wins] = 1 + index
        decided[wins] = scores_k[index]
        probabilities[wins] = foreground[wins]
        np.maximum(most, foreground, out=most)
    probabilities = np.where(labels == 0, 1 - most, probabilities)
    size = rgb.shape[1::-1]
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return labels.astype(np.int64), cv2.resize(probabilities, size, interpolation=cv2.INTER_NEAREST)


def denormalised_input(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image SimSeg's published code gives the CRF: the model's input, turned back.

    That is Pillow's bilinear of the image, to float32, normalised, denormalised, and cut down to
    whole numbers, which takes 1 off many of them.

    Args:
        rgb: (H, W, 3) uint8.
        size: height and width wanted, in pixels.
    """
    from PIL import Image

    resized = Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32) / np.float32(255)
    normalised = (pixels - PIXEL_MEAN) / PIXEL_STD
    return ((normalised * PIXEL_STD + PIXEL_MEAN) * np.float32(255)).astype(np.uint8)


def class_marginals(
    logits_khw: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the index and (H, W) CRF marginal of every class in the image, one at a time."""
    shared = shared or Shared()
    for index, logits_hw in enumerate(logits_khw[1:]):
        if logits_hw[0, 0] <= ABSENT:
            continue
        odds_hw = logits_hw - logits_khw[0]
        odds_hw = odds_hw.repeat(PATCH_PIXELS, axis=0).repeat(PATCH_PIXELS, axis=1)
        probabilities_2hw = np.stack([sigmoid(-odds_hw), sigmoid(odds_hw)])
        yield index, refine_crf(probabilities_2hw, rgb, config, shared)[1]


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-logits)) without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def close_mask(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Close gaps of a 0/1 mask: one dilation, then one erosion, 7 x 7."""
    import cv2

    kernel = np.ones(KERNEL, np.uint8)
    return np.asarray(cv2.erode(cv2.dilate(mask, kernel), kernel), np.uint8)
