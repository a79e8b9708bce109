"""What else an image shows, and shows a place better than any class asked for does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.method.presence import Candidates

if TYPE_CHECKING:
    import torch

LEAST_MEMBERSHIP = 0.01  # what shows a class by so much is no rival of it
LEAST_LIKENESS = 0.3  # nor is what has a descriptor so near to that of a member
LEAST_LIKENESS_TO_NAME = 0.5  # nor what has one so near to that of a name
MOST_RIVALS = 10  # of one image; weaker ones have next to no weight
EPSILON = 1e-6


class Things(NamedTuple):
    """The things that an EvidenceEncoder knows, and what they are to the classes.

    Attributes:
        descriptors_ed: (e, d), of length 1.
        membership_ce: (c, e), M, 0 to 1.
        rivals_ce: (c, e) bool, whether a thing is another one than the class.
        by_others_c: (c,) bool, whether none of the things is of the class, so that they only tell
            of it; None where there is no such class.
    """

    descriptors_ed: torch.Tensor
    membership_ce: torch.Tensor
    rivals_ce: torch.Tensor
    by_others_c: torch.Tensor | None = None


def relate_things(
    membership_ce: torch.Tensor, descriptors_ed: torch.Tensor, names_cnd: torch.Tensor
) -> Things:
    """Tell which things are others than a class: no members and nothing like them or its names.

    Thing k is no rival of class c where M_ck > LEAST_MEMBERSHIP, where a member j has
    M_cj (t_j . t_k) > LEAST_LIKENESS, or where a name, of which the class has its map, has
    t_cn . t_k > LEAST_LIKENESS_TO_NAME.

    Args:
        membership_ce: (c, e), M.
        descriptors_ed: (e, d), of the things, of length 1.
        names_cnd: (c, n, d), of the classes' names, of length 1, padded with zeros.
    """
    rivals_ce = membership_ce <= LEAST_MEMBERSHIP
    rivals_ce &= (names_cnd @ descriptors_ed.T).amax(dim=1) <= LEAST_LIKENESS_TO_NAME
    for member_e, rival_e in zip(membership_ce, rivals_ce, strict=True):
        index_j = (member_e > LEAST_MEMBERSHIP).nonzero()[:, 0]
        likeness_je = descriptors_ed[index_j] @ descriptors_ed.T
        rival_e &= (member_e[index_j, None] * likeness_je <= LEAST_LIKENESS).all(dim=0)
    return Things(descriptors_ed, membership_ce, rivals_ce)


def contrast_map(patches_hwd: torch.Tensor, contrasts_jd: torch.Tensor) -> torch.Tensor:
    """Return (h, w), how much each patch shows of the contrast it resembles most, 0 or more.

    Args:
        patches_hwd: (h, w, d), as they are compared with the candidates.
        contrasts_jd: (j, d), of length 1, j >= 1.
    """
    return compare(patches_hwd, contrasts_jd).amax(dim=0).clamp(min=0)


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
    maps_nhw = compare(patches_hwd, things.descriptors_ed[index_n])
    return strength * (maps_nhw * weights_n[:, None, None]).amax(dim=0).clamp(min=0)


def compare(patches_hwd: torch.Tensor, rows_nd: torch.Tensor) -> torch.Tensor:
    """Return (n, h, w) products: where patches lie channel by channel, four times as fast as @."""
    return (rows_nd @ patches_hwd.flatten(0, 1).T).unflatten(1, patches_hwd.shape[:2])
