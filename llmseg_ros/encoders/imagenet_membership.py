"""Which of the 1000 ImageNet names show a class, by what the names mean and what they resemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmseg_ros.encoders.base import ClassNames
from llmseg_ros.encoders.imagenet_synsets import closures

if TYPE_CHECKING:
    import torch

LEAST_RESEMBLANCE = 0.1  # of a class to the ImageNet names below a sense, else it isn't meant
WEARER, WORN = 'person', 'clothing'  # ImageNet has no person, but 49 things people wear


def membership(item: ClassNames, resemblance_nk: torch.Tensor) -> torch.Tensor:
    """Return how far each ImageNet name shows a class: M_k is about P(class | k).

    M = 1 on the ImageNet names below every noun sense of its names that is meant: that its rows
    resemble by LEAST_RESEMBLANCE or more in the mean, so that a monitor is no lizard. Where none
    is, the usual sense of its own name is. Where WordNet lacks the name, or ImageNet has no such
    thing, M is the mean of the rows. It is not normalised over k: a dog has 118 breeds, and each
    of them is one.

    Args:
        item: names of the class.
        resemblance_nk: (n, 1000), of its name and subclasses to the ImageNet names, rows that sum
            to 1.

    Returns:
        (1000,), 0 to 1.
    """
    import torch

    mean_k = resemblance_nk.mean(dim=0)
    senses = [found for name in item.all for found in closures(name)]
    meant = [found for found in senses if mean_k[list(found)].sum() >= LEAST_RESEMBLANCE]
    if not meant:
        meant = [found for name in (item.name, *item.aliases) for found in closures(name)][:1]
    if told_by_others([item])[0]:
        meant.append(closures(WORN)[0])
    if not meant:
        return mean_k
    member_k = torch.zeros_like(mean_k)
    member_k[sorted(frozenset().union(*meant))] = 1
    return member_k


def told_by_others(classes: Sequence[ClassNames]) -> list[bool]:
    """Tell of which classes ImageNet shows only what tells of them: of people, what they wear."""
    return [any(closures(WEARER)[0] in closures(name) for name in item.all) for item in classes]


def memberships(classes: Sequence[ClassNames], resemblance_nk: torch.Tensor) -> torch.Tensor:
    """Return (c, 1000) memberships from the rows of all classes, one after the other."""
    import torch

    counts = [1 + len(item.subclasses) for item in classes]
    parts = resemblance_nk.split(counts)
    return torch.stack([membership(*pair) for pair in zip(classes, parts, strict=True)])
