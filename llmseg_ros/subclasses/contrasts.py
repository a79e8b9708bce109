"""Contrasts: what is near a class or taken for it, and so must be no name or part of one.

The idea is that of the contrastive concepts of Wysoczanska et al., "Test-time Contrastive Concepts
for Open-world Semantic Segmentation with Vision-Language Models", TMLR 2025 (arXiv 2407.05061).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from llmseg_ros.classes import name_key, singular_words
from llmseg_ros.encoders.imagenet_names import head_word
from llmseg_ros.encoders.imagenet_synsets import members, parts
from llmseg_ros.subclasses.quality import ANYTHING, Dropped, Filtered, folded

if TYPE_CHECKING:
    import torch

MOST_CONTRASTS = 256  # of a class list; with more classes, fewer of each
# Of the way from the closeness of unrelated names to that of equal ones. Of the packs' contrasts
# 1.3 % are nearer to their class, of its aliases 61 and of its subclasses 70 %.
SAME = 0.55


def filter_contrasts(
    contrasts: Mapping[str, Sequence[str]],
    names: Mapping[str, Sequence[str]],
    encode: Callable[[Sequence[str]], torch.Tensor] | None = None,
) -> dict[str, Filtered]:
    """Drop contrasts that are a requested class, a name, kind or part of one, or much like one.

    Args:
        contrasts: by class name: of the classes requested together.
        names: that stand for each of these classes, its own first.
        encode: names to (n, d) rows of length 1, see `meaning_of`; without it only the spelling is
            looked at.

    Returns:
        What is kept and dropped, by class name.
    """
    taken = {folded(other): name for name, others in names.items() for other in reversed(others)}
    reasons = {name: dict(_spelling_reasons(listed, taken)) for name, listed in contrasts.items()}
    if encode is not None:
        left = [one for listed in reasons.values() for one, reason in listed.items() if not reason]
        meant = _meaning_reasons(list(dict.fromkeys(left)), names, encode)
        for listed in reasons.values():
            listed.update({one: meant[one] for one, reason in listed.items() if not reason})
    return {
        name: Filtered(
            tuple(one for one, reason in listed.items() if not reason),
            tuple(Dropped(one, reason) for one, reason in listed.items() if reason),
        )
        for name, listed in reasons.items()
    }


def spread_evenly(contrasts: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Keep MOST_CONTRASTS different names, the first of every class, then the second, and so on."""
    kept: dict[str, list[str]] = {name: [] for name in contrasts}
    chosen: set[tuple[str, ...]] = set()
    for rank in zip_longest(*contrasts.values()):
        for name, one in zip(contrasts, rank, strict=True):
            if one is None or (len(chosen) >= MOST_CONTRASTS and folded(one) not in chosen):
                continue
            chosen.add(folded(one))
            kept[name].append(one)
    return {name: tuple(listed) for name, listed in kept.items()}


def is_part(name: str, whole: str) -> bool:
    """Tell whether a name is that of a part: a wheel, the wheel of a car, a car wheel.

    By WordNet's part meronyms; what English says belongs to the whole counts as a part, too.
    """
    key = name_key(name)
    own = re.escape(name_key(whole))
    if re.search(rf" of (?:an? |the )?{own}s?$|^(?:an? |the )?{own}s?['’]s? ", key):  # noqa: RUF001
        return True
    known = parts(whole) or parts(head_word(whole))
    singular = ' '.join(singular_words(key))
    compound = f'{name_key(whole)} {singular}'
    return not known.isdisjoint({key, singular, compound, head_word(key)})


def _spelling_reasons(
    listed: Sequence[str], taken: Mapping[tuple[str, ...], str]
) -> Iterator[tuple[str, str]]:
    """Give every contrast with why its spelling rules it out, '' where it doesn't."""
    seen: set[tuple[str, ...]] = set()
    for name in dict.fromkeys(listed):
        key = folded(name)
        if key in taken:
            owner = taken[key]
            is_class = key == folded(owner)
            yield name, f'is the requested class {owner!r}' if is_class else f'stands for {owner!r}'
        elif key in seen:
            yield name, 'is repeated'
        else:
            yield name, ''
        seen.add(key)


def _meaning_reasons(
    listed: Sequence[str],
    names: Mapping[str, Sequence[str]],
    encode: Callable[[Sequence[str]], torch.Tensor],
) -> dict[str, str]:
    """Return for every contrast why its meaning rules it out, '' where it doesn't."""
    if not listed:
        return {}
    owners = [(other, name) for name, others in names.items() for other in others]
    rows = encode([*listed, *(other for other, _ in owners), *ANYTHING])
    own, standing, anything = rows.split([len(listed), len(owners), len(ANYTHING)])
    chance = float((rows[: -len(ANYTHING)] @ anything.T).median())
    least = chance + SAME * (1 - chance)
    found = {}
    for name, near in zip(listed, own @ standing.T, strict=True):
        reason = next((said for whole in names if (said := _known_relation(name, whole))), '')
        for index in near.argsort(descending=True)[: int((near >= least).sum())].tolist():
            other, owner = owners[index]
            if not (reason or are_others(name, owner) or shares_modifier(name, other)):
                of = '' if other == owner else f' of {owner!r}'
                reason = f'means nearly the same as {other!r}{of} ({float(near[index]):.2f})'
        found[name] = reason
    return found


def shares_modifier(name: str, other: str) -> bool:
    """Tell whether two names share a word and are different things by their heads: bus stop, bus.

    Such names are nearer to each other than what they mean.
    """
    shared = set(singular_words(name)) & set(singular_words(other))
    return bool(shared) and head_word(name) != head_word(other)


def are_others(name: str, whole: str) -> bool:
    """Tell whether WordNet knows both names, and neither as a kind of the other."""
    its, own = members(name), members(whole)
    return bool(its and own) and not (its <= own or its >= own)


def _known_relation(name: str, whole: str) -> str:
    """Say what WordNet has a contrast for, of a class; '' where that is no reason to drop it."""
    if is_part(name, whole):
        return f'is a part of {whole!r}'
    its, own = members(name), members(whole)
    if its and own and its <= own:
        return f'is a kind of {whole!r}'
    return f'is what {whole!r} is a kind of' if its and own and its > own else ''
