"""Class lists of single calls, described beside the list in force."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from llmseg_ros.class_rules import Given, clean_rules
from llmseg_ros.classes import ClassRegistry, all_taken
from llmseg_ros.config import SegmenterConfig
from llmseg_ros.contrasts import wanted_kinds
from llmseg_ros.encoders import Encoder
from llmseg_ros.name_notes import notes_on_names
from llmseg_ros.subclasses.resolver import Resolver
from llmseg_ros.vocabulary import Vocabulary, describe_classes

MOST_KEPT = 4  # lists; one of 100 classes with 30 subclasses takes 16 MB


class NamesRefused(ValueError):
    """A list can't be used as it is; the message has a sentence for every name and rule refused."""


class OwnList(NamedTuple):
    """A class list described for the settings it is to be used with.

    Attributes:
        vocabulary: of version 0, unless it is the list in force.
        config: of the stages it was described for.
        notes: a sentence for every name merged, left out, or hardly found as it is meant.
    """

    vocabulary: Vocabulary
    config: SegmenterConfig
    notes: tuple[str, ...] = ()


class OwnLists:
    """Describe class lists without putting them in force; the last few stay described.

    Args:
        registry: whose ids the names have that are in it.
        resolver: of their subclasses.
    """

    def __init__(self, registry: ClassRegistry, resolver: Resolver) -> None:
        self._registry = registry
        self._resolver = resolver
        self._encoder: Encoder | None = None  # that the kept lists are described by
        self._kept: OrderedDict[Hashable, OwnList] = OrderedDict()

    def describe(
        self, names: Iterable[str], rules: Given, encoder: Encoder, config: SegmenterConfig
    ) -> OwnList:
        """Describe a class list with what is known now of its names.

        A language model, where one is set, is asked for the others in the background.

        Raises:
            NamesRefused: a name or a rule can't be used.
        """
        names = list(names)
        update = self._registry.aside(names)
        accepted = [entry.name for entry in update.classes]
        cleaned = clean_rules(rules, accepted)
        if cleaned.messages or not all_taken(names, update):
            raise NamesRefused('; '.join((*update.messages, *cleaned.messages)))
        kinds = wanted_kinds(config)
        self._resolver.ask_too(accepted, kinds)
        never = [name for rule in cleaned.rules.values() for name in rule.never]
        found = tuple(
            (name, kind, self._resolver.resolve(name, kind))
            for name in (*accepted, *never)
            for kind in kinds
        )
        stages = config.subclasses, config.background, config.gate
        key = update.classes, *cleaned.rules.items(), found, stages
        if encoder is not self._encoder:
            self._kept.clear()
            self._encoder = encoder
        if key not in self._kept:
            vocabulary = describe_classes(update, config, encoder, self._resolver, cleaned.rules)
            notes = tuple(notes_on_names(accepted, encoder, self._resolver))
            self._kept[key] = OwnList(vocabulary, config, notes)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        kept = self._kept[key]
        # Lists that are spelt differently can be one list when cleaned.
        notes = (*update.messages, *kept.notes, *self._awaited(accepted))
        return kept._replace(config=config, notes=notes)

    def _awaited(self, accepted: list[str]) -> list[str]:
        """Give a sentence for the names a language model has not answered yet."""
        missing = self._resolver.missing(accepted) if self._resolver.can_ask else []
        if not missing:
            return []
        names = ', '.join(repr(wish.name) for wish in missing)
        return [f'{names}: the language model is asked for subclasses, call again to use them']
