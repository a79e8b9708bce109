"""The stages between an encoded image and its labels: gate, fusion, refinement."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.classes import BACKGROUND_ID, name_key
from llmseg_ros.config import BackgroundConfig, FusionConfig, GateConfig, SegmenterConfig
from llmseg_ros.contrasts import Contrasts
from llmseg_ros.encoders import ImageFeatures
from llmseg_ros.method.background import BY_WORDS, label_logits
from llmseg_ros.method.fusion import class_maps
from llmseg_ros.method.name_logits import ClassGroup, NameLogits, compare_names, labels_at
from llmseg_ros.method.patches import average_windows, grid_length, whole_axis
from llmseg_ros.method.presence import (
    Candidates,
    clear_of_contrasts,
    evidence_prior,
    evidence_scores,
    presence_scores,
    select_candidates,
)
from llmseg_ros.method.refine import Labels, refine, refine_names
from llmseg_ros.method.rivals import contrast_map, rival_map
from llmseg_ros.method.seen import add_seen_things
from llmseg_ros.method.stages import Shared, StageClock
from llmseg_ros.segmentation import ClassMaps, ClassResult, Gated
from llmseg_ros.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Found:
    """An image up to its label logits, for `Segmenter.finish`.

    Attributes:
        rgb: (H, W, 3) uint8 image.
        vocabulary: that was in force.
        config: of its stages.
        shared: of the image.
        clock: of its stages so far.
        scores_c: (c,) of the classes in the image as a whole; this and what follows is None where
            there are none.
        passed: the candidates.
        fused: their (k + 1, h, w) logits and background's, or those of their names.
        features: of the image.
        encoder: they are of.
    """

    rgb: NDArray[np.uint8]
    vocabulary: Vocabulary
    config: SegmenterConfig
    shared: Shared
    clock: StageClock
    scores_c: torch.Tensor | None = None
    passed: Candidates | None = None
    fused: torch.Tensor | NameLogits | None = None
    features: ImageFeatures | None = None
    encoder: str = ''

    @cached_property
    def candidates(self) -> frozenset[int]:
        """Ids of what passed the gate, as a Segmentation has them."""
        if self.passed is None:
            return frozenset()
        ids_k = label_ids(self.vocabulary, self.passed.index_k.cpu().numpy())
        return frozenset(ids_k[1:][self.passed.valid_k.cpu().numpy()].tolist())


def find_candidates(
    features: ImageFeatures,
    vocabulary: Vocabulary,
    gate: GateConfig,
    previous: Gated | None,
) -> tuple[torch.Tensor, Candidates]:
    """Return (c,) scores of the classes in the image as a whole, and those that pass the gate.

    Raises:
        ValueError: background takes part in the gate and the vocabulary was made without.
    """
    import torch

    pooled_d = torch.nn.functional.normalize(features.pooled_d, dim=-1)
    evidence_e, things = features.evidence_e, vocabulary.things
    if evidence_e is not None and things is not None:
        scores_c = evidence_scores(evidence_e, things.membership_ce)
    else:
        sets = vocabulary.descriptors_cnd, vocabulary.members_cn
        scores_c = presence_scores(pooled_d, *sets, gate)
    held_c = held_classes(vocabulary, previous, scores_c.device)
    if gate.name != 'simseg' or not gate.background:
        candidates = select_candidates(scores_c, gate, held_c)
        if gate.name == 'share' and evidence_e is not None and vocabulary.contrasts is not None:
            candidates = beside_contrasts(
                candidates, scores_c, evidence_e, vocabulary.contrasts, gate, held_c
            )
        return scores_c, strong_enough(candidates, scores_c, vocabulary)
    background_e = vocabulary.gate_background_e
    if background_e is None:
        raise ValueError('gate.background needs a segmenter that is configured with it')
    if evidence_e is not None and things is not None:
        background_1 = evidence_scores(evidence_e, background_e[None])
    else:
        background_1 = (background_e @ pooled_d)[None]
    if held_c is not None:
        held_c = torch.nn.functional.pad(held_c, (1, 0))
    index_k, valid_k = select_candidates(torch.cat([background_1, scores_c]), gate, held_c)
    candidates = Candidates((index_k - 1).clamp(min=0), valid_k & (index_k > 0))
    return scores_c, strong_enough(candidates, scores_c, vocabulary)


def beside_contrasts(
    candidates: Candidates,
    scores_c: torch.Tensor,
    evidence_e: torch.Tensor,
    contrasts: Contrasts,
    gate: GateConfig,
    held_c: torch.Tensor | None,
) -> Candidates:
    """Leave out the candidates that the image hardly shows, next to their contrasts."""
    if contrasts.membership_je is None:
        return candidates
    scores_j = evidence_scores(evidence_e, contrasts.membership_je)
    return clear_of_contrasts(candidates, scores_c, scores_j, contrasts.of_cj, gate, held_c)


def strong_enough(
    candidates: Candidates, scores_c: torch.Tensor, vocabulary: Vocabulary
) -> Candidates:
    """Leave out the candidates whose (c,) score is below the least of their class's rule."""
    least_c = vocabulary.minimum_scores_c
    if least_c is None:
        return candidates
    enough_k = (scores_c >= least_c)[candidates.index_k]
    return Candidates(candidates.index_k, candidates.valid_k & enough_k)


def fuse_candidates(
    features: ImageFeatures,
    vocabulary: Vocabulary,
    scores_c: torch.Tensor,
    candidates: Candidates,
    fusion: FusionConfig,
    background: BackgroundConfig,
) -> torch.Tensor:
    """Return the (k + 1, h, w) label logits of background and the candidates."""
    patches_hwd, pooled_d = grid_features(features)
    names = describe_candidates(vocabulary, candidates)
    evidence_e, things = features.evidence_e, vocabulary.things
    if evidence_e is None or things is None:
        maps_hwk = class_maps(patches_hwd, pooled_d, *names, fusion)
        contrasts = vocabulary.contrasts
        rows_jd = None if contrasts is None else contrasts.rows_jd
        beside_hw = None if rows_jd is None else contrast_map(patches_hwd, rows_jd)
        return label_logits(maps_hwk.permute(2, 0, 1), candidates.valid_k, background, beside_hw)
    names = add_seen_things(*names, evidence_e, things, candidates)
    maps_hwk = class_maps(patches_hwd, pooled_d, *names, fusion)
    rivals_hw = None
    if background.rivals:
        rivals_hw = rival_map(
            patches_hwd, evidence_e, scores_c, things, candidates, background.rivals
        )
    logits_khw = label_logits(maps_hwk.permute(2, 0, 1), candidates.valid_k, background, rivals_hw)
    if background.name == 'threshold':
        logits_khw[1:] += evidence_prior(scores_c, candidates)[:, None, None]
    return logits_khw


def compete_by_name(
    features: ImageFeatures,
    vocabulary: Vocabulary,
    gate: GateConfig,
    candidates: Candidates,
    fusion: FusionConfig,
    background: BackgroundConfig,
) -> NameLogits:
    """Return the logits of the names of the candidates and of the background words in use.

    Raises:
        ValueError: background words are in use and the vocabulary was made without.
    """
    patches_hwd, pooled_d = unit_features(features)
    words_bd = vocabulary.words_bd
    if background.name not in BY_WORDS:
        words_bd = vocabulary.descriptors_cnd[0, :0]
    if words_bd is None:
        raise ValueError(
            f'background by {background.name} needs a segmenter that is configured with it'
        )
    if gate.name == 'none':  # all classes, so with their true sizes
        counts = [len(index_g) for index_g, _ in vocabulary.by_size]
        groups = [
            ClassGroup(
                vocabulary.descriptors_cnd[index_g, :size], valid_g[:, None].expand(-1, size)
            )
            for (index_g, size), valid_g in zip(
                vocabulary.by_size, candidates.valid_k.split(counts), strict=True
            )
        ]
    else:
        groups = [ClassGroup(*describe_candidates(vocabulary, candidates))]
    height, width = patches_hwd.shape[:2]
    axes = features.axes or (whole_axis(height), whole_axis(width))
    return compare_names(patches_hwd, pooled_d, groups, candidates.valid_k, words_bd, axes, fusion)


def unit_features(features: ImageFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patches and descriptor of length 1; patches as they are where their length counts."""
    from torch.nn.functional import normalize

    patches_hwd = features.patches_hwd
    if not features.keep_length:
        patches_hwd = normalize(patches_hwd, dim=-1)
    return patches_hwd, normalize(features.pooled_d, dim=-1)


def grid_features(features: ImageFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `unit_features` does, the patches of windows averaged onto one grid."""
    patches_hwd, pooled_d = unit_features(features)
    if features.axes is not None:
        patches_hwd = average_windows(patches_hwd, features.axes)
    return patches_hwd, pooled_d


def refine_fused(found: Found, scores_k: torch.Tensor) -> Labels:
    """Refine what was fused, once for all settings it is the same for: that is, by its values.

    Args:
        found: with what was fused.
        scores_k: (k,) of the candidates in the image as a whole.
    """
    fused, config, rgb, shared = found.fused, found.config, found.rgb, found.shared
    assert fused is not None
    assert found.features is not None
    input_3hw = found.features.input_3hw
    gate = found.vocabulary, config.gate
    if not isinstance(fused, NameLogits):
        logits_khw = shared.first_equal(fused)  # fusions differ only with subclasses
        return shared.once(
            ('refine', *gate, config.refine, logits_khw),
            lambda: refine(logits_khw, scores_k, rgb, config.refine, shared),
        )
    same = shared.first_equal(fused.names_hmw), fused.own_hlw is None
    return shared.once(
        ('refine', *gate, config.background, config.refine, *same),
        lambda: refine_names(
            fused, scores_k, rgb, config.background, config.refine, input_3hw, shared
        ),
    )


def label_ids(vocabulary: Vocabulary, index_k: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the (k + 1,) ids of background and the candidates."""
    ids = [BACKGROUND_ID, *(vocabulary.described[index].id for index in index_k)]
    return np.array(ids, dtype=np.uint16)


def without_small_classes(
    vocabulary: Vocabulary, labels_hw: NDArray[np.uint16], confidence_hw: NDArray[np.float32]
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Make background of the classes with fewer pixels than their rule asks for.

    The confidence of those pixels is the probability that the class is not there.
    """
    least = {
        item.id: rule.minimum_area
        for item in vocabulary.classes
        if (rule := vocabulary.rules.get(name_key(item.name))) and rule.minimum_area
    }
    if not least:
        return labels_hw, confidence_hw
    areas = np.bincount(labels_hw.ravel(), minlength=max(least) + 1)
    small = [number for number, area in least.items() if 0 < areas[number] < area]
    mask = np.isin(labels_hw, small)
    labels = np.where(mask, np.uint16(BACKGROUND_ID), labels_hw)
    return labels, np.where(mask, 1 - confidence_hw, confidence_hw)


def candidate_maps(found: Found) -> ClassMaps | None:
    """Return how probable background and the candidates are on the patches; None without any."""
    import torch

    if found.passed is None or found.fused is None:
        return None
    with torch.inference_mode():
        if isinstance(found.fused, NameLogits):
            grid = [grid_length(axis) for axis in found.fused.axes]
            logits_khw = labels_at(found.fused, grid, found.config.background)
        else:
            logits_khw = found.fused
        probabilities_khw = logits_khw.softmax(dim=0).float().cpu().numpy()
    ids_k = label_ids(found.vocabulary, found.passed.index_k.cpu().numpy())
    is_class_k = ids_k != BACKGROUND_ID
    background_1hw = probabilities_khw[~is_class_k].sum(axis=0, keepdims=True)  # with `never`
    return ClassMaps(
        np.append(BACKGROUND_ID, ids_k[is_class_k]).astype(np.uint16),
        np.concatenate([background_1hw, probabilities_khw[is_class_k]]),
    )


def held_classes(
    vocabulary: Vocabulary, previous: Gated | None, device: torch.device
) -> torch.Tensor | None:
    """Return (c,) bool, True for the classes that passed the gate in the frame before."""
    import torch

    if previous is None:
        return None
    held_c = torch.tensor([item.id in previous.candidates for item in vocabulary.described])
    return held_c.to(device, non_blocking=True)


def order_by_size(vocabulary: Vocabulary, candidates: Candidates) -> Candidates:
    """Put the candidates, all classes there are, in the order of vocabulary.by_size."""
    import torch

    valid_c = torch.empty_like(candidates.valid_k).scatter_(
        0, candidates.index_k, candidates.valid_k
    )
    index_k = torch.cat([index_g for index_g, _ in vocabulary.by_size])
    return Candidates(index_k, valid_c[index_k])


def describe_candidates(
    vocabulary: Vocabulary, candidates: Candidates
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (k, n, d) descriptors and (k, n) bool, all False for a candidate that didn't pass."""
    members_kn = vocabulary.members_cn[candidates.index_k] & candidates.valid_k[:, None]
    return vocabulary.descriptors_cnd[candidates.index_k], members_kn


def class_results(
    vocabulary: Vocabulary,
    scores_c: NDArray[np.float32],
    labels_hw: NDArray[np.uint16],
    candidates: Collection[int],
) -> tuple[ClassResult, ...]:
    """Measure area and box of every class in a label image, which has candidates alone."""
    import cv2

    results = []
    scores_of_classes = scores_c[: len(vocabulary.classes)]  # after them come those of `never`
    for item, score in zip(vocabulary.classes, scores_of_classes, strict=True):
        area, box = 0, (0, 0, 0, 0)
        if item.id in candidates:
            mask = (labels_hw == item.id).view(np.uint8)
            x, y, width, height = cv2.boundingRect(mask)
            area, box = int(np.count_nonzero(mask)), (x, y, width, height)
        results.append(ClassResult(item.id, item.name, float(np.clip(score, 0, 1)), area, box))
    return tuple(results)
