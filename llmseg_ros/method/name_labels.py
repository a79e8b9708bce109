"""The label of every pixel that names compete for, at image size and in bounded memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.config import BackgroundConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.name_logits import (
    LEAST_PROBABILITY,
    TIE,
    NameLogits,
    Tile,
    cut_tiles,
    label_logits,
    on_device,
)
from llmseg_ros.method.pamr import affinities, spread_over_neighbours
from llmseg_ros.method.patches import weights_at
from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    import torch

MAP_VALUES_AT_ONCE = 1 << 23  # of maps refined at image size, 32 MB


def label_names(
    names: NameLogits, shape: Sequence[int], background: BackgroundConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label an image of a shape by the best label of every pixel.

    Returns:
        (H, W) int64 label, 0 background, and its (H, W) float32 share of the labels' probability.
    """
    import torch

    device = names.names_hmw.device
    best_hw = torch.zeros(*shape, dtype=torch.int64, device=device)
    confidence_hw = torch.zeros(*shape, device=device)
    is_small_l = None
    if background.area_threshold:
        before_threshold = dataclasses.replace(background, probability=0.0)
        areas_l = sum(
            label_areas(label_tile(names, tile, before_threshold)[0], len(names.valid_k) + 1)
            for tile in cut_tiles(names, shape)
        )
        is_small_l = too_small(areas_l, background)
    for tile in cut_tiles(names, shape):
        at = tile.rows, tile.columns
        best_hw[at], confidence_hw[at] = label_tile(names, tile, background, is_small_l)
    return best_hw, confidence_hw


def label_tile(
    names: NameLogits,
    tile: Tile,
    background: BackgroundConfig,
    is_small_l: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label a part of an image, without the labels that are too small: as label_names does."""
    import torch

    if tile.own_ylx is not None:
        logits_lyx = label_logits(names, background, tile.best, tile.own_ylx)
        if is_small_l is not None:
            logits_lyx = logits_lyx.masked_fill(is_small_l[:, None, None], ABSENT)
        largest_yx, best_yx = logits_lyx.max(dim=0)
        return best_yx, (largest_yx - logits_lyx.logsumexp(dim=0)).exp()
    # the same without logarithms, of which there would be as many as classes
    words_ybx, classes_ykx, total_yx = tile.best
    may_be_k = names.valid_k if is_small_l is None else names.valid_k & ~is_small_l[1:]
    classes_ykx = classes_ykx * may_be_k[:, None]
    largest_yx, best_yx = classes_ykx.max(dim=1)
    background_yx = torch.zeros_like(total_yx)
    if names.words:
        background_yx = words_ybx.amax(dim=1) * (1 + TIE)
    if background.name == 'probability':
        background_yx = background_yx.maximum(total_yx * background.probability)
    # nothing can be a class, or all of it is less than numbers go
    nothing_yx = (largest_yx + background_yx) <= 0
    sum_yx = (classes_ykx.sum(dim=1) + background_yx).masked_fill(nothing_yx, 1.0)
    confidence_yx = (largest_yx.maximum(background_yx) / sum_yx).masked_fill(nothing_yx, 1.0)
    return (best_yx + 1) * (largest_yx > background_yx), confidence_yx


def label_areas(best: torch.Tensor, labels: int) -> torch.Tensor:
    """Return how many pixels have each label, (labels,) int64."""
    import torch

    best_p = best.flatten()
    areas_l = torch.zeros(labels, dtype=torch.int64, device=best_p.device)
    return areas_l.scatter_add_(0, best_p, torch.ones_like(best_p))  # bincount waits for a GPU


def too_small(areas_l: torch.Tensor, background: BackgroundConfig) -> torch.Tensor:
    """Return (l,) bool, True for classes with too small a part of the pixels of classes.

    SCLIP's (Wang et al., ECCV 2024). The first label is background, and never too small.
    """
    is_small_l = areas_l <= background.area_threshold * areas_l[1:].sum()
    is_small_l[0] = False
    return is_small_l


def without_small(
    probabilities_jhw: torch.Tensor, is_background_j: torch.Tensor, background: BackgroundConfig
) -> torch.Tensor:
    """Set the (j, H, W) probabilities of classes that are best in too few pixels to 0."""
    areas_j = label_areas(probabilities_jhw.argmax(dim=0), len(probabilities_jhw))
    least = background.area_threshold * (areas_j * ~is_background_j).sum()
    is_small_j = (areas_j <= least) & ~is_background_j
    return probabilities_jhw.masked_fill(is_small_j[:, None, None], 0.0)


def label_refined_names(
    names: NameLogits,
    image_3hw: torch.Tensor,
    background: BackgroundConfig,
    shared: Shared | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refine the logits of every name by PAMR at image size, then label as label_names does.

    As published with NACLIP (Hajimiri et al., WACV 2025). PAMR is linear, so that refining logits
    is refining cosines.

    Args:
        names: logits.
        image_3hw: (3, H, W) float, the colours PAMR goes by.
        background: what is background.
        shared: of the image.
    """
    shared = shared or Shared()
    affinity_nhw = shared.once(('affinities', image_3hw.shape), lambda: affinities(image_3hw))
    found = best_refined(names, affinity_nhw, names.valid_k)
    if background.area_threshold:
        areas_l = label_areas(found.label(ABSENT)[0], len(names.valid_k) + 1)
        is_small_k = too_small(areas_l, background)[1:]
        found = best_refined(names, affinity_nhw, names.valid_k & ~is_small_k)
    if background.name != 'probability':
        return found.label(ABSENT)
    return found.label(math.log(max(background.probability, LEAST_PROBABILITY)))


class BestRefined(NamedTuple):
    """What is kept of refined logits, each (H, W).

    Attributes:
        best: number of the best class, from 1.
        best_logit: its largest.
        classes_total: exp of the classes' logits, added up.
        word_logit: the largest of the background words, ABSENT without any.
        names_total: log of the exp of all logits, added up: less this they are log-probabilities.
    """

    best: torch.Tensor
    best_logit: torch.Tensor
    classes_total: torch.Tensor
    word_logit: torch.Tensor
    names_total: torch.Tensor

    def label(self, least: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the label and its share, with background where log-probabilities are below."""
        background_hw = (self.word_logit + TIE).maximum(self.names_total + least)
        labels_hw = self.best * (self.best_logit > background_hw)
        total_hw = self.classes_total.clamp(min=LEAST_PROBABILITY).log().logaddexp(background_hw)
        return labels_hw, (self.best_logit.maximum(background_hw) - total_hw).exp()


def best_refined(
    names: NameLogits, affinity_nhw: torch.Tensor, valid_k: torch.Tensor
) -> BestRefined:
    """Refine names a few classes at a time; of each pixel keep the best class and the sums.

    Args:
        names: logits.
        affinity_nhw: of PAMR, at image size.
        valid_k: (k,) bool, the candidates that may be labels.
    """
    import torch

    least_hw = affinity_nhw.new_full(affinity_nhw.shape[1:], ABSENT)
    word_hw, best_logit_hw, best_hw = least_hw, least_hw, torch.zeros_like(least_hw).long()
    names_hw, own_hw, classes_hw = (torch.zeros_like(least_hw) for _ in range(3))
    for own, columns, each in class_chunks(names, least_hw.numel()):
        maps_mhw = refine_maps(names, names.names_hmw[:, columns], affinity_nhw)
        names_hw += maps_mhw.exp().sum(dim=0)
        classes_khw = maps_mhw.unflatten(0, (-1, each)).amax(dim=1)
        if names.own_hlw is not None:
            own_khw = refine_maps(names, names.own_hlw[:, own], affinity_nhw)
            own_hw += own_khw.exp().sum(dim=0)
            classes_khw = classes_khw + own_khw
        if own.stop <= names.words:
            word_hw = word_hw.maximum(classes_khw.amax(dim=0))
            continue
        first = own.start - names.words
        valid_c11 = valid_k[first : first + len(classes_khw), None, None]
        classes_khw = classes_khw.masked_fill(~valid_c11, ABSENT)
        classes_hw += classes_khw.exp().sum(dim=0)
        logit_hw, index_hw = classes_khw.max(dim=0)
        best_hw = torch.where(logit_hw > best_logit_hw, first + 1 + index_hw, best_hw)
        best_logit_hw = best_logit_hw.maximum(logit_hw)
    total_hw = names_hw.clamp(min=LEAST_PROBABILITY).log()
    if names.own_hlw is not None:
        total_hw += own_hw.clamp(min=LEAST_PROBABILITY).log()
    return BestRefined(best_hw, best_logit_hw, classes_hw, word_hw, total_hw)


def class_chunks(names: NameLogits, pixels: int) -> Iterator[tuple[slice, slice, int]]:
    """Yield words, then classes, a few at a time: their numbers, their names, names of each.

    Args:
        names: whose.
        pixels: of a map, so that not too many are refined at once.
    """
    number, column = 0, 0
    for classes, each in ((names.words, 1), *names.groups):
        step = max(1, MAP_VALUES_AT_ONCE // (pixels * each))
        for start in range(0, classes, step):
            count = min(step, classes - start)
            yield slice(number, number + count), slice(column, column + count * each), each
            number, column = number + count, column + count * each


def refine_maps(
    names: NameLogits, maps_hmw: torch.Tensor, affinity_nhw: torch.Tensor
) -> torch.Tensor:
    """Resize maps on the patches to (m, H, W) and refine them by PAMR."""
    import torch

    shape = affinity_nhw.shape[1:]
    rows_yh, columns_xw = (
        on_device(weights_at(axis, length), maps_hmw)
        for axis, length in zip(names.axes, shape, strict=True)
    )
    maps_myx = torch.einsum('yh,hmw,xw->myx', rows_yh, maps_hmw, columns_xw)
    return spread_over_neighbours(maps_myx, affinity_nhw)
