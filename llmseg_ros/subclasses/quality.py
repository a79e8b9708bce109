"""Dropping subclasses that would harm: a class is better off with few good ones.

Sun et al. (CVPRW 2024, Table 2) find that indistinct subclasses cost accuracy, and leave telling
them apart as future work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmseg_ros.classes import singular_words

if TYPE_CHECKING:
    import torch

    from llmseg_ros.encoders.base import Encoder
    from llmseg_ros.subclasses.resolver import Subclasses

# Found on 200 VOC images with the embedded encoder, docs/subclasses.md.
FAR_SHARE = 0.3  # of the closeness the class's subclasses usually have; less is far
TRUSTED_SHARE = 0.35  # of a list nearest to its own class; a list with less is held to the name
NEAR_NAME = 0.3  # of the way from chance to sameness: what a name of a list not trusted must have
OTHERS_SHARE = 0.5  # of what shows a name, that shows another class, for that to get the name
# Words of all kinds: how close any two names are by chance differs from encoder to encoder.
ANYTHING = (
    *('sky', 'water', 'grass', 'wall', 'road', 'rock', 'book', 'bird', 'car', 'cup'),
    *('dog', 'fish', 'flower', 'fruit', 'hat', 'house', 'knife', 'machine', 'phone', 'shoe'),
)


@dataclass(frozen=True)
class Dropped:
    """A subclass left out, and why, in words."""

    name: str
    reason: str


@dataclass(frozen=True)
class Filtered:
    """What is left of a class's subclasses; the class name itself always takes part.

    Attributes:
        kept: subclasses, in their order, those taken last.
        dropped: the others.
        taken: those of the kept that were listed for another class.
    """

    kept: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()
    taken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stray:
    """A subclass that is nearer to another class: where it is listed, and which that is."""

    class_name: str
    position: int
    other: str


def check_subclasses(
    known: Mapping[str, Subclasses], wanted: bool, encoder: Encoder | None
) -> dict[str, Filtered]:
    """Drop subclasses that would harm; of lists that people wrote, only by their spelling.

    Args:
        known: subclasses by class: of the classes requested together.
        wanted: False to keep all.
        encoder: of names, for what they mean; without it only the spelling is looked at.
    """
    names = {name: found.names for name, found in known.items()}
    if not wanted:
        return {name: Filtered(listed) for name, listed in names.items()}
    written = {name for name, found in known.items() if not found.answered}
    if encoder is None or written == set(names):
        return filter_subclasses(names)
    return filter_subclasses(names, meaning_of(encoder), membership_of(encoder), written)


def filter_subclasses(
    classes: Mapping[str, Sequence[str]],
    encode: Callable[[Sequence[str]], torch.Tensor] | None = None,
    membership: Callable[[Sequence[str]], torch.Tensor] | None = None,
    written: Collection[str] = (),
) -> dict[str, Filtered]:
    """Drop subclasses that repeat, name or resemble another class, or are far from their own.

    One that both what it means and what shows it give to another class goes there.

    Args:
        classes: subclasses by class name: the classes requested together.
        encode: names to (n, d) rows of length 1, see `meaning_of`; without it only the spelling is
            looked at.
        membership: names to (n, e), which things show each, see `membership_of`.
        written: classes whose lists people wrote: these are held to the spelling, and nothing goes
            to them.

    Returns:
        What is kept and dropped, by class name.
    """
    reasons = {name: _spelling_reasons(name, classes) for name in classes}
    if encode is None or not classes:
        return {name: _result(classes[name], reasons[name]) for name in classes}
    spelt = {name: [name, *_without(classes[name], reasons[name])] for name in classes}
    rows = encode([*(text for texts in spelt.values() for text in texts), *ANYTHING])
    *blocks, anything = rows.split([*map(len, spelt.values()), len(ANYTHING)])
    descriptors = dict(zip(classes, blocks, strict=True))
    chance = float((rows[: -len(ANYTHING)] @ anything.T).median())
    strays = []
    for name in classes:
        if name in written:
            continue
        meant = iter(_meaning_reasons(name, descriptors, chance))
        for index, reason in enumerate(reasons[name]):
            if not reason:
                reasons[name][index], other = next(meant)
                if other and other not in written:
                    strays.append(Stray(name, index, other))
    taken: dict[str, list[str]] = {name: [] for name in classes}
    if membership is not None and strays:
        for stray in _of_others(strays, classes, membership):
            name, other = classes[stray.class_name][stray.position], stray.other
            there = [other, *_without(classes[other], reasons[other]), *taken[other]]
            if folded(name) not in map(folded, there):
                taken[other].append(name)
                reasons[stray.class_name][stray.position] += ' and goes there'
    return {name: _result(classes[name], reasons[name], taken[name]) for name in classes}


def _of_others(
    strays: Sequence[Stray],
    classes: Mapping[str, Sequence[str]],
    membership: Callable[[Sequence[str]], torch.Tensor],
) -> list[Stray]:
    """Return the strays of which most that shows them shows the class they are nearer to."""
    order = list(classes)
    of_class_ce = membership(order)
    of_stray_ne = membership([classes[stray.class_name][stray.position] for stray in strays])
    shares_nc = of_stray_ne @ of_class_ce.T / of_stray_ne.sum(dim=1, keepdim=True).clamp(min=1e-9)
    best = shares_nc.max(dim=1)
    return [
        stray
        for stray, share, index in zip(
            strays, best.values.tolist(), best.indices.tolist(), strict=True
        )
        if share >= OTHERS_SHARE and order[index] == stray.other
    ]


def _result(names: Sequence[str], reasons: Sequence[str], taken: Sequence[str] = ()) -> Filtered:
    dropped = tuple(
        Dropped(name, reason) for name, reason in zip(names, reasons, strict=True) if reason
    )
    return Filtered((*_without(names, reasons), *taken), dropped, tuple(taken))


def _without(names: Sequence[str], reasons: Sequence[str]) -> list[str]:
    return [name for name, reason in zip(names, reasons, strict=True) if not reason]


def _spelling_reasons(class_name: str, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return per subclass why its spelling rules it out, '' where it doesn't."""
    own = folded(class_name)
    others = {folded(name): name for name in classes}
    seen: dict[tuple[str, ...], str] = {}
    reasons = []
    for name in classes[class_name]:
        key = folded(name)
        if key == own:
            reasons.append('repeats the class name')
        elif key in others:
            reasons.append(f'is the requested class {others[key]!r}')
        elif key in seen:
            reasons.append(f'repeats {seen[key]!r}')
        else:
            seen[key] = name
            reasons.append('')
    return reasons


def folded(name: str) -> tuple[str, ...]:
    """Fold case, plural and word order."""
    return tuple(sorted(singular_words(name)))


def meaning_of(encoder: Encoder) -> Callable[[Sequence[str]], torch.Tensor]:
    """Return what to compare an encoder's names by."""
    from llmseg_ros.encoders.base import MeaningEncoder

    return encoder.encode_meaning if isinstance(encoder, MeaningEncoder) else encoder.encode_text


def membership_of(encoder: Encoder) -> Callable[[Sequence[str]], torch.Tensor] | None:
    """Return what tells which things show a name; None where the encoder knows none."""
    from llmseg_ros.encoders.base import ClassNames, EvidenceEncoder

    if not isinstance(encoder, EvidenceEncoder):
        return None
    return lambda names: encoder.encode_membership([ClassNames(name) for name in names])


def _meaning_reasons(
    class_name: str, descriptors: Mapping[str, torch.Tensor], chance: float
) -> list[tuple[str, str]]:
    """Return per subclass why its meaning rules it out, and which class it is nearer to, or ''.

    Args:
        class_name: the class.
        descriptors: (1 + n, d) by class, of the name and its subclasses.
        chance: cosine of names that have nothing to do with each other.
    """
    own = descriptors[class_name]
    if len(own) == 1:
        return []
    other, to_other = _nearest_other(class_name, descriptors)
    trusted = float((own[1:] @ own[0] >= to_other).float().mean()) >= TRUSTED_SHARE
    closeness = _closeness(own, trusted)
    reasons = [
        f'is nearer to {name!r} ({far:.2f}) than to {class_name!r} ({near:.2f})'
        if far > near
        else ''
        for name, far, near in zip(other, to_other, closeness, strict=True)
    ]
    nearer = [name if reason else '' for name, reason in zip(other, reasons, strict=True)]
    left = [i for i, reason in enumerate(reasons) if not reason]
    if left:
        closeness = _closeness(own[[0, *(i + 1 for i in left)]], trusted)
        usual = float(closeness.median())
        least = chance + FAR_SHARE * (usual - chance)
        if not trusted:
            least = max(least, chance + NEAR_NAME * (1 - chance))
        for i, near in zip(left, closeness, strict=True):
            if near < least:
                reasons[i] = (
                    f'is far from {class_name!r} ({near:.2f}, at least {least:.2f} is asked)'
                )
    return list(zip(reasons, nearer, strict=True))


def _nearest_other(
    class_name: str, descriptors: Mapping[str, torch.Tensor]
) -> tuple[list[str], torch.Tensor]:
    """Return per subclass which other class's name is nearest, and its (n,) cosines."""
    import torch

    rows = descriptors[class_name][1:]
    others = [name for name in descriptors if name != class_name]
    if not others:
        return [class_name] * len(rows), torch.full((len(rows),), -1.0, device=rows.device)
    nearest = (rows @ torch.stack([descriptors[name][0] for name in others]).T).max(dim=1)
    return [others[i] for i in nearest.indices.tolist()], nearest.values


def _closeness(rows: torch.Tensor, by_centre: bool) -> torch.Tensor:
    """Return how close each subclass is to its class: to its name, or to the centre of the rest.

    Args:
        rows: (1 + n, d), of length 1, the class name first.
        by_centre: let the centre count, where that is nearer.

    Returns:
        (n,) cosines.
    """
    import torch

    to_name = rows[1:] @ rows[0]
    if not by_centre:
        return to_name
    rest = torch.nn.functional.normalize(rows.sum(dim=0) - rows[1:], dim=-1)
    return torch.maximum(to_name, (rows[1:] * rest).sum(dim=-1))
