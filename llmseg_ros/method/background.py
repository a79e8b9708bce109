"""Where no class is: label probabilities, background first, from the maps of the candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmseg_ros.config import BackgroundConfig

if TYPE_CHECKING:
    import torch

BY_WORDS = ('probability', 'names')
BY_CONTRASTS = (*BY_WORDS, 'threshold')
BY_PROBABILITY = (*BY_WORDS, 'none')  # by probabilities of names: name_logits.py
EPSILON = 1e-6
ODDS_EPSILON = 1e-8
ABSENT = -1e4  # the logit of a candidate that did not pass: finite, so that it can be interpolated


def label_logits(
    maps_khw: torch.Tensor,
    valid_k: torch.Tensor,
    config: BackgroundConfig,
    rivals_hw: torch.Tensor | None = None,
) -> torch.Tensor:
    """Put a background label before the candidates.

    Args:
        maps_khw: (k, h, w) similarities.
        valid_k: (k,) bool; the other candidates get ABSENT.
        config: what is background, `threshold` or `minmax`.
        rivals_hw: (h, w), by `threshold` what the image shows beside the candidates.

    Returns:
        (k + 1, h, w); a softmax over the first axis gives label probabilities.
    """
    import torch

    if config.name == 'minmax':
        logits_khw, background_hw = minmax_logits(maps_khw)
    else:
        logits_khw, background_hw = threshold_logits(maps_khw, valid_k, config, rivals_hw)
    logits_khw = logits_khw.masked_fill(~valid_k[:, None, None], ABSENT)
    return torch.cat([background_hw[None], logits_khw])


def threshold_logits(
    maps_khw: torch.Tensor,
    valid_k: torch.Tensor,
    config: BackgroundConfig,
    rivals_hw: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take for background what is below a share of the strongest map value, or below its rivals.

    Negative similarity is evidence for background; maps are divided by the largest value of any
    valid candidate, so the threshold means the same for every encoder and image.

    Returns:
        Logits (k, h, w) and those of background (h, w).
    """
    import torch

    maps_khw = maps_khw.masked_fill(~valid_k[:, None, None], 0.0).clamp(min=0.0)
    strongest = maps_khw.amax().clamp(min=EPSILON)
    background_hw = torch.full_like(maps_khw[0], config.threshold)
    if rivals_hw is not None:
        background_hw = background_hw.maximum(rivals_hw / strongest)
    return config.scale * maps_khw / strongest, config.scale * background_hw


def minmax_logits(maps_khw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale every map to p in [0, 1] by its least and largest value: log(p / (1 - p)) against 0.

    As published with SimSeg and by Sun et al.: sigmoid(logit) is p, so background is where p is
    below a half. A map that is the same everywhere is background.

    Returns:
        Logits (k, h, w) and those of background (h, w).
    """
    import torch

    least_k11 = maps_khw.amin(dim=(1, 2), keepdim=True)
    range_k11 = (maps_khw.amax(dim=(1, 2), keepdim=True) - least_k11).clamp(min=EPSILON)
    p_khw = (maps_khw - least_k11) / range_k11
    logits_khw = (p_khw + ODDS_EPSILON).log() - (1 - p_khw + ODDS_EPSILON).log()
    return logits_khw, torch.zeros_like(logits_khw[0])
