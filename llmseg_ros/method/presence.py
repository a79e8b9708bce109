"""Which classes may appear in an image: the gate between class scores and class maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.config import GateConfig

if TYPE_CHECKING:
    import torch

MIN_SCORES_FOR_STD = 3
PRIOR_STRENGTH = 0.25
LEAST_SCORE = 1e-4
CONTRAST_STRENGTH = 0.6  # of the score of a contrast, next to that of a class


class Candidates(NamedTuple):
    """The classes that may appear, at a fixed size so that a GPU need not be waited for.

    Attributes:
        index_k: (k,) int64 into the class list, the strongest first.
        valid_k: (k,) bool, False where the class did not pass.
    """

    index_k: torch.Tensor
    valid_k: torch.Tensor


def evidence_scores(evidence_e: torch.Tensor, membership_ce: torch.Tensor) -> torch.Tensor:
    """Score how strongly an image shows each class by the things it shows.

    s_c = sqrt(sum over e of (M_ce G_e)^2): P(c) = sum of P(c | e) P(e) but for the exponent, since
    a plain sum lets many things that are hardly there collect what one that is there has.

    Args:
        evidence_e: (e,), G, an EvidenceEncoder's of the image.
        membership_ce: (c, e), M, its of the classes.

    Returns:
        (c,) scores.
    """
    return (membership_ce.square() @ evidence_e.square()).sqrt()


def presence_scores(
    pooled_d: torch.Tensor,
    descriptors_cnd: torch.Tensor,
    members_cn: torch.Tensor,
    config: GateConfig,
) -> torch.Tensor:
    """Score how strongly the image as a whole resembles each class.

    Args:
        pooled_d: (d,), the image descriptor v of length 1.
        descriptors_cnd: (c, n, d), of length 1, of the class's own name (n = 0) and its
            subclasses.
        members_cn: (c, n) bool, False where a row is padding.
        config: evidence `superclass` is v . t of the class's own name (SimSeg), `mean` and `max`
            are over the name and the subclasses.

    Returns:
        (c,) scores.
    """
    import torch

    if config.evidence == 'superclass':
        return descriptors_cnd[:, 0] @ pooled_d
    scores_cn = descriptors_cnd @ pooled_d
    if config.evidence == 'max':
        return scores_cn.masked_fill(~members_cn, -torch.inf).amax(dim=-1)
    return scores_cn.masked_fill(~members_cn, 0.0).sum(dim=-1) / members_cn.sum(dim=-1)


def evidence_prior(scores_c: torch.Tensor, candidates: Candidates) -> torch.Tensor:
    """Return (k,) what is added to the logits of the candidates: 0.25 log(s_c / s of the best).

    So what the image as a whole hardly shows needs more of a patch than what it is full of.

    Args:
        scores_c: (c,) evidence_scores.
        candidates: the strongest first.
    """
    scores_k = scores_c[candidates.index_k].clamp(min=LEAST_SCORE)
    return PRIOR_STRENGTH * (scores_k / scores_k.amax()).log()


def clear_of_contrasts(
    candidates: Candidates,
    scores_c: torch.Tensor,
    contrast_scores_j: torch.Tensor,
    of_cj: torch.Tensor,
    config: GateConfig,
    held_c: torch.Tensor | None = None,
) -> Candidates:
    """Leave out the candidates that are hardly shown, next to what is near them or taken for them.

    As `share` asks it of a class next to the best of the list, so it is asked next to the best of
    its contrasts, at CONTRAST_STRENGTH: a list of one class has nothing else to be weaker than.

    Args:
        candidates: of the list.
        scores_c: (c,), of the classes.
        contrast_scores_j: (j,), of the contrasts in the same image.
        of_cj: (c, j) bool, whose contrasts they are.
        config: its share, and its hysteresis as `select_candidates` has it.
        held_c: (c,) bool, the classes that passed in the frame before; None: there is none.
    """
    least_c = config.share * CONTRAST_STRENGTH * (of_cj * contrast_scores_j).amax(dim=1)
    clear_c = scores_c >= least_c
    if held_c is not None:
        clear_c = scores_c >= (1 + config.hysteresis / 2) * least_c
        clear_c |= held_c & (scores_c >= (1 - config.hysteresis) * least_c)
    return Candidates(candidates.index_k, candidates.valid_k & clear_c[candidates.index_k])


def select_candidates(
    scores_c: torch.Tensor, config: GateConfig, held_c: torch.Tensor | None = None
) -> Candidates:
    """Select the classes that may appear in an image.

    Args:
        scores_c: (c,) evidence for each class in the image as a whole; c >= 1.
        config: `simseg` keeps the best `max_candidates` that reach mean + std of the `top_k` best
            scores (SimSeg's published code; Sun et al. use it unchanged), and below 3 classes,
            where a deviation says nothing, those within `margin` of the best. `share` keeps those
            that reach `share` of the best score and `minimum`. `none` lets all classes compete.
            `hysteresis` lowers the threshold by this part of it for the classes of `held_c`;
            that of `share` rises by half of it for the others.
        held_c: (c,) bool, the classes that passed in the frame before; None: there is none.

    Returns:
        The candidates; `none` returns all classes, the others at most `max_candidates`.
    """
    import torch

    if config.name == 'none':
        order_c = scores_c.argsort(descending=True)
        return Candidates(order_c, torch.ones_like(order_c, dtype=torch.bool))
    count = min(config.max_candidates, len(scores_c))
    best_k, index_k = scores_c.topk(count)
    rise = 1.0 if held_c is None else 1 + config.hysteresis / 2
    if config.name == 'share':
        threshold = (config.share * best_k[0]).clamp(min=config.minimum)
        entry = (min(1.0, rise * config.share) * best_k[0]).clamp(min=rise * config.minimum)
    elif len(scores_c) < MIN_SCORES_FOR_STD:
        threshold = entry = best_k[0] - config.margin
    else:
        top = scores_c.topk(min(config.top_k, len(scores_c))).values
        threshold = entry = top.mean() + top.std()
    # Sorted, so stopping at the first below the threshold is the same as comparing each.
    valid_k = best_k >= entry
    if held_c is not None:
        lower = threshold - config.hysteresis * threshold.abs()
        valid_k |= held_c[index_k] & (best_k >= lower)
    return Candidates(index_k, valid_k)
