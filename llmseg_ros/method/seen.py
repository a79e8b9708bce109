"""Where a class is that shows only by other things, such as a person by clothes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmseg_ros.method.presence import Candidates
from llmseg_ros.method.rivals import Things

if TYPE_CHECKING:
    import torch

MOST_SEEN = 5  # things a class is looked for by


def add_seen_things(
    descriptors_knd: torch.Tensor,
    members_kn: torch.Tensor,
    evidence_e: torch.Tensor,
    things: Things,
    candidates: Candidates,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add descriptors of the things an image shows to those of the classes they tell of.

    A jersey says that there is a person, but nothing that is called a person looks like it. So the
    MOST_SEEN things with the largest M_ck G_k stand beside the names of such a class.

    Args:
        descriptors_knd: (k, n, d), of the names of the candidates.
        members_kn: (k, n) bool, False where a row is padding.
        evidence_e: (e,), G of the image.
        things: in the vocabulary.
        candidates: the strongest first.

    Returns:
        (k, n + MOST_SEEN, d) and (k, n + MOST_SEEN), or what was given where no class is of the
        kind.
    """
    import torch

    if things.by_others_c is None:
        return descriptors_knd, members_kn
    weights_ke = things.membership_ce[candidates.index_k] * evidence_e
    weights_ks, index_ks = weights_ke.topk(min(MOST_SEEN, len(evidence_e)), dim=1)
    by_others_k = things.by_others_c[candidates.index_k] & candidates.valid_k
    return (
        torch.cat([descriptors_knd, things.descriptors_ed[index_ks]], dim=1),
        torch.cat([members_kn, (weights_ks > 0) & by_others_k[:, None]], dim=1),
    )
