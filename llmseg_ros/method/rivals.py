"""What else an image shows, and shows a place better than any class asked for does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.method.presence import Candidates

if TYPE_CHECKING:
    import torch

LEAST_MEMBERSHIP = 0.01  # what shows a class by so much is no rival of it
LEAST_LIKENESS = 0.3  # nor is what has a descriptor so near to that of a member
MOST_RIVALS = 10  # of one image; weaker ones have next to no weight
EPSILON = 1e-6


class Things(NamedTuple):
    """The things that an EvidenceEncoder knows, and what they are to the classes.

    Attributes:
        descriptors_ed: (e, d), of length 1.
        membership_ce: (c, e), M, 0 to 1.
        rivals_ce: (c, e) bool, whether a thing is another one than the class.
    """

    descriptors_ed: torch.Tensor
    membership_ce: torch.Tensor
    rivals_ce: torch.Tensor


def relate_things(membership_ce: torch.Tensor, descriptors_ed: torch.Tensor) -> Things:
    """Tell which things are others than a class: neither members nor near synonyms of members.

    Thing k is no rival of class c where M_ck > LEAST_MEMBERSHIP, or where a member j has
    M_cj (t_j . t_k) > LEAST_LIKENESS.
    """
    likeness_ee = descriptors_ed @ descriptors_ed.T
    rivals_ce = membership_ce <= LEAST_MEMBERSHIP
    for member_e, rival_e in zip(membership_ce, rivals_ce, strict=True):
        for j in (~rival_e).nonzero()[:, 0].tolist():
            rival_e &= member_e[j] * likeness_ee[j] <= LEAST_LIKENESS
    return Things(descriptors_ed, membership_ce, rivals_ce)


def rival_map(
    patches_hwd: torch.Tensor,
    evidence_e: torch.Tensor,
    scores_c: torch.Tensor,
    things: Things,
    candidates: Candidates,
    strength: float,
) -> torch.Tensor:
    """Return how much each patch shows of the things beside the candidates.

    Of the things that are rivals of every candidate the MOST_RIVALS with the most evidence take
    part, thing k with strength w_k (x . t_k), w_k = min(1, G_k / s) for the score s of the best
    candidate: what the image hardly shows says little about a patch that looks like it.

    Args:
        patches_hwd: (h, w, d), as they are compared with the candidates.
        evidence_e: (e,), G of the image.
        scores_c: (c,), of the classes.
        things: in the vocabulary.
        candidates: the strongest first.
        strength: 0 to 1.

    Returns:
        (h, w), the largest of the rivals' values at a patch, 0 where they are negative.
    """
    others_ke = things.rivals_ce[candidates.index_k] | ~candidates.valid_k[:, None]
    evidence_e = evidence_e * others_ke.all(dim=0)
    evidence_n, index_n = evidence_e.topk(min(MOST_RIVALS, len(evidence_e)))
    weights_n = (evidence_n / scores_c[candidates.index_k[0]].clamp(min=EPSILON)).clamp(max=1)
    maps_hwn = patches_hwd @ things.descriptors_ed[index_n].T
    return strength * (maps_hwn * weights_n).amax(dim=-1).clamp(min=0)
