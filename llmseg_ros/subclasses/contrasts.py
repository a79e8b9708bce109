"""Contrasts: what is near a class or taken for it, and so must be no name or part of one.

The idea is that of the contrastive concepts of Wysoczanska et al., "Test-time Contrastive Concepts
for Open-world Semantic Segmentation with Vision-Language Models", TMLR 2025 (arXiv 2407.05061).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

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
ARTICLE = re.compile('^(?:an?|the) ')
# Words before a part that say where it is, and not that it is another thing.
WHERE = frozenset(('front', 'rear', 'back', 'left', 'right', 'top', 'bottom', 'upper', 'lower'))


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
    taken |= {folded(name): name for name in names}
    reasons = {name: dict(_spelling_reasons(listed, taken)) for name, listed in contrasts.items()}
    if encode is not None:
        left: dict[str, set[str]] = {}
        for owner, listed in reasons.items():
            for one, reason in listed.items():
                if not reason:
                    left.setdefault(one, set()).add(owner)
        meant = _meaning_reasons(left, names, encode)
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


def is_part(name: str, whole: str, own: bool = True) -> bool:
    """Tell whether a name is that of a part: a wheel, the wheel of a car, a car wheel.

    By WordNet's part meronyms; what English says belongs to the whole counts as a part, too.

    Args:
        name: of a contrast.
        whole: a class.
        own: whether it was named for this class. Where not, it is what it usually means: a coat
            beside a person is none of a dog's.
    """
    spelt, key = _spell(name), name_key(whole)
    if key in spelt.owners:
        return True
    holder = _holder(whole)
    spellings = {spelt.key, spelt.singular, f'{key} {spelt.singular}'}
    if not parts(holder, usual=not own).isdisjoint(spellings):
        return True
    # Of compounds: a front bumper and a car bumper, but no tennis ball (of a foot) of a person.
    told = spelt.singular.startswith((f'{key} ', f'{holder} '))
    told = told or (own and spelt.singular.split()[0] in WHERE)
    return spelt.head in parts(holder, usual=not told)


class _Spelt(NamedTuple):
    """Forms of a name: as a key, in the singular, its head, and what English says it belongs to."""

    key: str
    singular: str
    head: str
    owners: frozenset[str]


@lru_cache(maxsize=4096)  # every contrast is compared with every class
def _spell(name: str) -> _Spelt:
    key = name_key(name)
    ends = [key[match.end() :] for match in re.finditer(' of ', key)]
    ends += [key[: match.start()] for match in re.finditer("['’]s? ", key)]  # noqa: RUF001
    owners = {word for end in ends for word in (end, ARTICLE.sub('', end))}
    owners |= {word.removesuffix('s') for word in owners}
    return _Spelt(key, ' '.join(singular_words(key)), head_word(key), frozenset(owners))


@lru_cache(maxsize=4096)
def _holder(whole: str) -> str:
    """Return what has the parts of a class: itself, else its head."""
    return whole if parts(whole) else head_word(whole)


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
    listed: Mapping[str, Collection[str]],
    names: Mapping[str, Sequence[str]],
    encode: Callable[[Sequence[str]], torch.Tensor],
) -> dict[str, str]:
    """Return for every contrast why its meaning rules it out, '' where it doesn't.

    Args:
        listed: the classes that each was named for.
        names: see filter_contrasts.
        encode: see filter_contrasts.
    """
    if not listed:
        return {}
    owners = [(other, name) for name, others in names.items() for other in others]
    rows = encode([*listed, *(other for other, _ in owners), *ANYTHING])
    own, standing, anything = rows.split([len(listed), len(owners), len(ANYTHING)])
    chance = float((rows[: -len(ANYTHING)] @ anything.T).median())
    least = chance + SAME * (1 - chance)
    found = {}
    for name, near in zip(listed, own @ standing.T, strict=True):
        known = (_known_relation(name, whole, whole in listed[name]) for whole in names)
        reason = next(filter(None, known), '')
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


def _known_relation(name: str, whole: str, own: bool) -> str:
    """Say what WordNet has a contrast for, of a class; '' where that is no reason to drop it."""
    if is_part(name, whole, own):
        return f'is a part of {whole!r}'
    its, of_whole = members(name), members(whole)
    if its and of_whole and its <= of_whole:
        return f'is a kind of {whole!r}'
    return f'is what {whole!r} is a kind of' if its and of_whole and its > of_whole else ''
