"""The class list in force: its classes, what describes them, and their descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmseg_ros.class_rules import ClassRule, Rules
from llmseg_ros.classes import BACKGROUND_ID, ClassUpdate, clean_name, name_key
from llmseg_ros.config import ConfigError, FusionConfig, SegmenterConfig
from llmseg_ros.contrasts import (
    Contrasts,
    check_contrasts,
    contrast_names,
    describe_contrasts,
    wants_contrasts,
)
from llmseg_ros.encoders.base import ClassNames, Encoder, EvidenceEncoder
from llmseg_ros.method.background import BY_WORDS
from llmseg_ros.method.fusion import taking_part
from llmseg_ros.method.rivals import Things, relate_things
from llmseg_ros.subclasses.quality import check_subclasses, folded, meaning_of
from llmseg_ros.subclasses.resolver import Resolver

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VocabularyClass:
    """A class with what describes it.

    Attributes:
        id: label value.
        name: class name.
        subclasses: without the name itself.
        source: 'llm', 'store', 'pack', 'name' or 'typed'.
        contrasts: what is near it or taken for it, and competes as background.
    """

    id: int
    name: str
    subclasses: tuple[str, ...]
    source: str
    contrasts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A class list with its descriptors.

    Attributes:
        version: of the class list.
        classes: in the order asked for.
        descriptors_cnd: (c, n, d), of length 1, the class's own name first, padded with zeros.
        members_cn: (c, n) bool, False where a descriptor is padding.
        by_size: for each number of descriptors, the (g,) int64 indices of the classes that have so
            many, and that number.
        things: what an EvidenceEncoder knows; None of others.
        words: for background, where the configuration tells it by words.
        words_bd: (b, d), of length 1, their descriptors; None where it doesn't.
        gate_background_e: the descriptor of the name background in the gate, of an EvidenceEncoder
            its membership; None without one.
        rules: of classes, by name_key.
        never: names no class may be; their descriptors come after those of the classes.
        minimum_scores_c: (c,), of the classes and `never`; None where no class has one.
        contrasts: of the classes, where the configuration wants some; None without.
    """

    version: int
    classes: tuple[VocabularyClass, ...]
    descriptors_cnd: torch.Tensor
    members_cn: torch.Tensor
    by_size: tuple[tuple[torch.Tensor, int], ...] = ()
    things: Things | None = None
    words: tuple[str, ...] = ()
    words_bd: torch.Tensor | None = None
    gate_background_e: torch.Tensor | None = None
    rules: Rules = field(default_factory=dict)
    never: tuple[VocabularyClass, ...] = ()
    minimum_scores_c: torch.Tensor | None = None
    contrasts: Contrasts | None = None

    @property
    def described(self) -> tuple[VocabularyClass, ...]:
        """What the descriptors are of: the classes, and the names that none of them may be."""
        return (*self.classes, *self.never)

    @property
    def rules_by_name(self) -> dict[str, ClassRule]:
        """The rules of the classes, in their order, by the name that each has here."""
        keys = {item.name: name_key(item.name) for item in self.classes}
        return {name: self.rules[key] for name, key in keys.items() if key in self.rules}


def describe_classes(
    update: ClassUpdate,
    config: SegmenterConfig,
    encoder: Encoder,
    resolver: Resolver,
    rules: Rules | None = None,
) -> Vocabulary:
    """Look up the subclasses of a class list and encode all names in one batch.

    Args:
        update: the class list.
        config: of subclasses, background and gate.
        encoder: of names.
        resolver: of subclasses.
        rules: of classes in the list, by name_key.

    Raises:
        ConfigError: a background word can't be used.
    """
    import torch

    rules = rules or {}
    classes, never = name_classes(update, config.subclasses.filter, encoder, resolver, rules)
    if not classes:
        empty = torch.zeros(0, 0, 0)
        return Vocabulary(update.version, (), empty, torch.zeros(0, 0).bool())
    described = [*classes, *never]
    if wants_contrasts(config):
        encode = meaning_of(encoder) if config.subclasses.filter else None
        classes = with_contrasts(classes, never, resolver, encode)
        described = [*classes, *never]
    names = [name for item in described for name in (item.name, *item.subclasses)]
    counts = [1 + len(item.subclasses) for item in described]
    by_words = config.background.name in BY_WORDS
    contrasts_of = [item.contrasts for item in described]
    words: tuple[str, ...] = ()
    if by_words:
        kept_words = config.background.keep_words
        words = other_words(
            config.background.words, () if kept_words else names, resolver.same_class
        )
        words = tuple(dict.fromkeys((*words, *contrast_names(contrasts_of))))
    in_gate = ['background'] if config.gate.background else []
    rows_sd = encoder.encode_text([*names, *words, *in_gate])
    descriptors_cnd, members_cn = pad_sets(rows_sd[: len(names)], counts)
    things, gate_ge = None, rows_sd[len(names) + len(words) :]
    if isinstance(encoder, EvidenceEncoder):
        called = [
            ClassNames(item.name, resolver.aliases(item.name), item.subclasses)
            for item in described
        ]
        membership_ce = encoder.encode_membership(called)
        descriptors_cnd = describe_alone(
            descriptors_cnd, members_cn, membership_ce, encoder.things_ed
        )
        things = relate_things(membership_ce, encoder.things_ed, descriptors_cnd)
        by_others = encoder.told_by_others(called)
        if any(by_others):
            by_others_c = torch.tensor(by_others, device=membership_ce.device)
            things = things._replace(by_others_c=by_others_c)
        if in_gate:
            gate_ge = encoder.encode_membership([ClassNames(name) for name in in_gate])
    return Vocabulary(
        update.version,
        tuple(classes),
        descriptors_cnd,
        members_cn,
        group_by_size(counts, members_cn.device),
        things,
        words,
        rows_sd[len(names) : len(names) + len(words)] if by_words else None,
        gate_ge[0] if in_gate else None,
        rules,
        tuple(never),
        minimum_scores(described, rules, members_cn.device),
        describe_contrasts(contrasts_of, encoder, resolver, by_words),
    )


def with_contrasts(
    classes: Sequence[VocabularyClass],
    never: Sequence[VocabularyClass],
    resolver: Resolver,
    encode: Callable[[Sequence[str]], torch.Tensor] | None,
) -> list[VocabularyClass]:
    """Give classes their contrasts, see check_contrasts.

    Args:
        classes: with their subclasses.
        never: names that compete already.
        resolver: of contrasts.
        encode: of names, for what they mean; None to look at their spelling alone.
    """
    found = {item.name: resolver.resolve(item.name, 'contrasts') for item in classes}
    names = {
        item.name: resolver.names_taken(item.name, item.subclasses) for item in (*classes, *never)
    }
    checked = check_contrasts(found, names, encode)
    return [replace(item, contrasts=checked[item.name].kept) for item in classes]


def name_classes(
    update: ClassUpdate, wanted: bool, encoder: Encoder, resolver: Resolver, rules: Rules
) -> tuple[list[VocabularyClass], list[VocabularyClass]]:
    """Return the classes of a list with their subclasses, and the names that none of them may be.

    The names that a rule has `also` are subclasses as the others, but no filter drops them.
    """
    of_class = {
        entry.name: rules.get(name_key(entry.name), ClassRule()) for entry in update.classes
    }
    taken = {name_key(other) for rule in of_class.values() for other in rule.also}
    unwanted = {name_key(name): name for rule in of_class.values() for name in rule.never}
    unwanted = {key: name for key, name in unwanted.items() if key not in taken}
    names = [*of_class, *unwanted.values()]
    known = {name: resolver.resolve(name) for name in names}
    kept = {name: one.kept for name, one in check_subclasses(known, wanted, encoder).items()}
    classes = []
    for entry in update.classes:
        subclasses = {name_key(name): name for name in kept[entry.name]}
        subclasses = {key: name for key, name in subclasses.items() if key not in unwanted}
        subclasses |= {name_key(name): name for name in of_class[entry.name].also}
        subclasses.pop(name_key(entry.name), None)
        source = known[entry.name].source
        classes.append(VocabularyClass(entry.id, entry.name, (*subclasses.values(),), source))
    never = [
        VocabularyClass(BACKGROUND_ID, name, kept[name], known[name].source)
        for name in unwanted.values()
    ]
    return classes, never


def minimum_scores(
    described: Sequence[VocabularyClass], rules: Rules, device: torch.device
) -> torch.Tensor | None:
    """Return (c,) the least scores of classes by their rules; None where there are none."""
    import torch

    least = [
        rules.get(name_key(item.name), ClassRule()).minimum_score if item.id else 0.0
        for item in described
    ]
    if not any(least):
        return None
    unbound = -torch.inf  # a score may be below 0
    return torch.tensor([score or unbound for score in least], device=device)


def fixed_embeddings(
    vocabulary: Vocabulary, fusion: FusionConfig, subclasses: bool = True
) -> tuple[torch.Tensor, list[int]]:
    """Return the rows whose products with a patch have a class's map as their largest.

    That is so by the fusions `max`, whose rows are those of the names that take part, and `mean`,
    which has one. The others depend on the image; theirs are as with `max`.

    Args:
        vocabulary: of the classes.
        fusion: of their names.
        subclasses: False for the class's own name alone.

    Returns:
        (s, d) rows of the classes, one class after the other, and how many each of them has.
    """
    count = len(vocabulary.classes)
    names_cnd, members_cn = vocabulary.descriptors_cnd[:count], vocabulary.members_cn[:count]
    if not subclasses:
        return names_cnd[:, :1].flatten(0, 1), [1] * count
    members_cn = taking_part(members_cn, fusion)
    if fusion.name == 'mean':
        sums_cd = (names_cnd * members_cn[..., None]).sum(dim=1)
        return sums_cd / members_cn.sum(dim=1, keepdim=True), [1] * count
    return names_cnd[members_cn], members_cn.sum(dim=1).tolist()


def beyond_embeddings(vocabulary: Vocabulary, fusion: FusionConfig) -> list[str]:
    """Give a sentence for what the maps of classes are made of beside `fixed_embeddings`."""
    sentences = []
    if fusion.name not in ('max', 'mean'):
        sentences.append(
            f'fusion.name is {fusion.name}, which weighs names by the image: the largest product '
            'is that of the best name, not the map of the class'
        )
    things = vocabulary.things
    if things is not None and things.by_others_c is not None:
        told = zip(vocabulary.classes, things.by_others_c.tolist(), strict=False)
        sentences += [
            f'{item.name!a} is looked for by other things that each image shows too, such as '
            'clothes: the product is that of its names alone'
            for item, by_others in told
            if by_others
        ]
    return sentences


def describe_alone(
    descriptors_cnd: torch.Tensor,
    members_cn: torch.Tensor,
    membership_ce: torch.Tensor,
    things_ed: torch.Tensor,
) -> torch.Tensor:
    """Describe a class without subclasses by the things that show it: norm(sum_e M_ce t_e).

    Args:
        descriptors_cnd: (c, n, d), of names, the class's own first.
        members_cn: (c, n) bool, False where a descriptor is padding.
        membership_ce: (c, e), M, of an EvidenceEncoder.
        things_ed: (e, d), its descriptors of the things.

    Returns:
        (c, n, d), the others as they were.
    """
    import torch

    described_cd = torch.nn.functional.normalize(membership_ce @ things_ed, dim=-1)
    alone_c11 = (members_cn.sum(dim=1) == 1)[:, None, None]
    own_cnd = torch.nn.functional.pad(
        described_cd[:, None], (0, 0, 0, descriptors_cnd.shape[1] - 1)
    )
    return torch.where(alone_c11, own_cnd, descriptors_cnd)


def other_words(
    words: Iterable[str], names: Iterable[str], same_class: Callable[[str, str], bool]
) -> tuple[str, ...]:
    """Return the background words that mean no requested class.

    Args:
        words: those of the configuration.
        names: the requested classes and their subclasses.
        same_class: tells whether two names mean one class, such as sofa and couch.

    Raises:
        ConfigError: a word can't be a class name.
    """
    try:
        cleaned = [clean_name(word) for word in words]
    except ValueError as error:
        raise ConfigError(f'background.words: {error}') from error
    names = list(names)
    taken = {folded(name) for name in names}
    return tuple(
        word
        for word in dict.fromkeys(cleaned)
        if folded(word) not in taken and not any(same_class(word, name) for name in names)
    )


def group_by_size(counts: list[int], device: torch.device) -> tuple[tuple[torch.Tensor, int], ...]:
    """Return the indices of the counts that are equal, and the count, the lowest first."""
    import torch

    return tuple(
        (torch.tensor([i for i, n in enumerate(counts) if n == size], device=device), size)
        for size in sorted(set(counts))
    )


def pad_sets(rows_sd: torch.Tensor, counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out (s, d) rows as one padded set per class.

    Returns:
        (c, n, d) rows with zeros where a class has fewer than n, and (c, n) bool, True for rows.
    """
    import torch

    sets_cnd = torch.nn.utils.rnn.pad_sequence(list(rows_sd.split(counts)), batch_first=True)
    counts_c1 = torch.tensor(counts, device=rows_sd.device)[:, None]
    return sets_cnd, torch.arange(sets_cnd.shape[1], device=rows_sd.device) < counts_c1
