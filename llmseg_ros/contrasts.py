"""What is near the classes of a list or taken for them, and competes with them as background."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.encoders.base import ClassNames, Encoder, EvidenceEncoder
from llmseg_ros.method.background import BY_CONTRASTS
from llmseg_ros.subclasses.contrasts import MOST_CONTRASTS, filter_contrasts, spread_evenly
from llmseg_ros.subclasses.quality import Dropped, Filtered, folded
from llmseg_ros.subclasses.resolver import Kind, Resolver, Subclasses

if TYPE_CHECKING:
    import torch


class Contrasts(NamedTuple):
    """The contrasts of all classes of a list.

    Attributes:
        of_cj: (c, j) bool, which classes' they are.
        rows_jd: (j, d), of length 1, their descriptors; None of an EvidenceEncoder.
        membership_je: (j, e), M of an EvidenceEncoder; None of others.
    """

    of_cj: torch.Tensor
    rows_jd: torch.Tensor | None = None
    membership_je: torch.Tensor | None = None


def wants_contrasts(config: SegmenterConfig) -> bool:
    """Tell whether contrasts compete under this configuration."""
    return config.background.contrasts and config.background.name in BY_CONTRASTS


def wanted_kinds(config: SegmenterConfig) -> tuple[Kind, ...]:
    """Return what a class stands by under this configuration, the most wanted first."""
    return ('subclasses', 'contrasts') if wants_contrasts(config) else ('subclasses',)


def check_contrasts(
    found: Mapping[str, Subclasses],
    names: Mapping[str, Sequence[str]],
    encode: Callable[[Sequence[str]], torch.Tensor] | None,
) -> dict[str, Filtered]:
    """Drop contrasts that are a name, kind or part of any class of the list.

    Of lists that people wrote, only the spelling is looked at.

    Args:
        found: contrasts by class.
        names: that stand for each of these, and for what else competes already.
        encode: names to rows, see `meaning_of`; without it only the spelling is looked at.
    """
    spelt = filter_contrasts({name: one.names for name, one in found.items()}, names)
    listed = spread_evenly({name: one.kept for name, one in spelt.items()})
    by_people = {name: () for name, one in found.items() if not one.answered}
    meant = filter_contrasts({**listed, **by_people}, names, encode)
    return {
        name: Filtered(
            tuple(listed[name] if name in by_people else meant[name].kept),
            (*spelt[name].dropped, *beyond(spelt[name].kept, listed[name]), *meant[name].dropped),
        )
        for name in found
    }


def beyond(names: Sequence[str], kept: Sequence[str]) -> list[Dropped]:
    """Return the names that a long class list has no room for."""
    reason = f'is beyond {MOST_CONTRASTS} contrasts of a class list'
    return [Dropped(name, reason) for name in names if name not in kept]


def contrast_names(contrasts: Iterable[Sequence[str]]) -> list[str]:
    """Return the contrasts of classes, those of one spelling once."""
    names: dict[tuple[str, ...], str] = {}
    for listed in contrasts:
        for name in listed:
            names.setdefault(folded(name), name)
    return list(names.values())


def describe_contrasts(
    contrasts: Sequence[Sequence[str]], encoder: Encoder, resolver: Resolver, by_words: bool
) -> Contrasts | None:
    """Describe the contrasts of classes for what is not told by words.

    Args:
        contrasts: of every class.
        encoder: of names.
        resolver: of their other names and subclasses.
        by_words: whether they compete as words for background already.

    Returns:
        None where there is none, or they compete as words alone.
    """
    import torch

    names = contrast_names(contrasts)
    if not names or (by_words and not isinstance(encoder, EvidenceEncoder)):
        return None
    index = {folded(name): j for j, name in enumerate(names)}
    of_cj = torch.zeros(len(contrasts), len(names), dtype=torch.bool)
    for c, listed in enumerate(contrasts):
        of_cj[c, [index[folded(name)] for name in listed]] = True
    of_cj = of_cj.to(encoder.device)
    if not isinstance(encoder, EvidenceEncoder):
        return Contrasts(of_cj, rows_jd=encoder.encode_text(names))
    called = [
        ClassNames(name, resolver.aliases(name), resolver.resolve(name).names) for name in names
    ]
    return Contrasts(of_cj, membership_je=encoder.encode_membership(called))
