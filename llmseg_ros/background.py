"""Where no class is: label probabilities, background first, from the maps of the candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmseg_ros.config import BackgroundConfig

if TYPE_CHECKING:
    import torch

EPSILON = 1e-6
ABSENT = -1e4  # the logit of a candidate that did not pass: finite, so that it can be interpolated


def label_logits(
    maps_khw: torch.Tensor, valid_k: torch.Tensor, config: BackgroundConfig
) -> torch.Tensor:
    """Put a background label before the candidates, at a share of the strongest map value.

    Negative similarity is evidence for background; maps are divided by the largest value of any
    valid candidate, so the threshold means the same for every encoder and image.

    Args:
        maps_khw: (k, h, w) similarities.
        valid_k: (k,) bool; the other candidates get ABSENT.
        config: threshold and scale.

    Returns:
        (k + 1, h, w); a softmax over the first axis gives label probabilities.
    """
    import torch

    absent_k11 = ~valid_k[:, None, None]
    maps_khw = maps_khw.clamp(min=0.0).masked_fill(absent_k11, 0.0)
    relative_khw = maps_khw / maps_khw.amax().clamp(min=EPSILON)
    logits_khw = (config.scale * relative_khw).masked_fill(absent_k11, ABSENT)
    background_1hw = torch.full_like(logits_khw[:1], config.scale * config.threshold)
    return torch.cat([background_1hw, logits_khw])
