"""Settings to score: every combination of some, and what is known of the classes under each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmseg_ros.class_rules import Given
from llmseg_ros.config import FusionConfig, RefineConfig, SegmenterConfig, SubclassesConfig
from llmseg_ros.contrasts import wanted_kinds
from llmseg_ros.method.refine import available_refiner
from llmseg_ros.subclasses.llm import LlmError, llm_wanted
from llmseg_ros.subclasses.resolver import Resolver, Subclasses, Wish

if TYPE_CHECKING:
    from llmseg_ros.segmenter import Segmenter

Known = Mapping[SubclassesConfig, Mapping[str, Subclasses] | Mapping[str | Wish, Subclasses]]
"""What is known of the classes, by where it comes from."""


def choices_of(section: type, name: str) -> tuple[str, ...]:
    """Return what a setting may be."""
    field = next(field for field in dataclasses.fields(section) if field.name == name)
    choices: tuple[str, ...] = field.metadata['choices']
    return choices


VALUES: Mapping[str, tuple[str, ...]] = {
    'fusion': choices_of(FusionConfig, 'name'),
    'refine': choices_of(RefineConfig, 'name'),
    'subclasses': ('none', 'packs', 'store', 'llm'),
}
ABLATED = {**VALUES, 'subclasses': ('none', 'packs')}  # where no values are named


class SubclassesError(ValueError):
    """The subclasses asked for can't be had; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Variant:
    """Settings to score, under a name that says how they differ from the others."""

    name: str
    config: SegmenterConfig


def with_setting(config: SegmenterConfig, axis: str, value: str) -> SegmenterConfig:
    """Return the configuration with another fusion, refiner or source of subclasses."""
    if axis == 'fusion':
        return replace(config, fusion=replace(config.fusion, name=value))
    if axis == 'refine':
        return replace(config, refine=replace(config.refine, name=value))
    return replace(config, subclasses=with_source(config.subclasses, value))


def with_source(config: SubclassesConfig, source: str) -> SubclassesConfig:
    """Take subclasses from nowhere, `packs`, these and the `store`, or the `llm` for the rest.

    Packs include the user's own file; `llm` leaves the packs as they are configured.

    Raises:
        SubclassesError: no language model is set.
    """
    if source in ('none', 'packs'):
        file = config.file if source == 'packs' else ''
        return replace(config, file=file, packs=source == 'packs', store='off', llm='off')
    config = replace(config, store='' if config.store == 'off' else config.store)
    if source == 'store':
        return replace(config, packs=True, llm='off')
    config = replace(config, llm='auto')
    if not llm_wanted(config):
        raise SubclassesError(
            'no language model is set: give subclasses.base_url in the configuration, '
            'or put a key into OPENAI_API_KEY'
        )
    return config


def make_variants(
    config: SegmenterConfig, axes: Mapping[str, Sequence[str]]
) -> tuple[Variant, ...]:
    """Return every combination of values of some settings, none of them: one variant.

    A refiner that can't be had here is replaced, with a warning, as the segmenter does.

    Raises:
        SubclassesError: one needs a language model and none is set.
    """
    variants = []
    for values in itertools.product(*axes.values()):
        changed = config
        for axis, value in zip(axes, values, strict=True):
            changed = with_setting(changed, axis, value)
        changed = replace(changed, refine=available_refiner(changed.refine))
        names = [f'{axis}={value}' for axis, value in zip(axes, values, strict=True)]
        variants.append(Variant(' '.join(names), changed))
    return tuple(variants)


def find_subclasses(
    variants: Iterable[Variant],
    classes: Sequence[str],
    progress: Callable[[int, str], AbstractContextManager[Callable[[], None]]],
    synonyms: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Known:
    """Look up the subclasses of all classes once, before anything is scored.

    Where a language model is set it is asked for what is missing, and waited for.

    Args:
        variants: with their sources.
        classes: names.
        progress: of a number of answers gives a function to call after each.
        synonyms: of some classes, as synonyms_of returns them.

    Raises:
        SubclassesError: the language model gave no answer.
    """
    known: dict[SubclassesConfig, dict[str | Wish, Subclasses]] = {}
    variants = list(variants)
    kinds = max((wanted_kinds(variant.config) for variant in variants), key=len)
    for config in dict.fromkeys(variant.config.subclasses for variant in variants):
        with closing(Resolver(config)) as resolver:
            can_ask = resolver.can_ask and resolver.store is not None
            missing = resolver.missing(classes, kinds) if can_ask else []
            try:
                with progress(len(missing), 'answers') as advance:
                    resolver.ask_all(missing, advance)
            except LlmError as error:
                raise SubclassesError(f'{error}; --subclasses store does without it') from error
            known[config] = {
                name: with_synonyms(resolver, name, synonyms.get(name, ())) for name in classes
            }
            if 'contrasts' in kinds:
                wishes = [Wish(name, 'contrasts') for name in classes]
                known[config].update({wish: resolver.resolve(*wish) for wish in wishes})
    return known


def look_up_subclasses(
    config: SegmenterConfig,
    classes: Sequence[str],
    progress: Callable[[int, str], AbstractContextManager[Callable[[], None]]],
) -> tuple[SegmenterConfig, Known]:
    """Do as find_subclasses for one configuration; return it as it can be had here, too.

    Raises:
        SubclassesError: the language model gave no answer.
    """
    (variant,) = make_variants(config, {})
    return variant.config, find_subclasses([variant], classes, progress)


def load_with_known(
    config: SegmenterConfig, classes: Sequence[str], known: Known, rules: Given = ()
) -> Segmenter:
    """Load the model for classes whose subclasses are known; nobody is asked for more.

    Args:
        config: of every stage.
        classes: names.
        known: their subclasses, as find_subclasses returns them.
        rules: of single classes.

    Raises:
        EncoderUnavailable: the encoder's packages or weights aren't here.
    """
    from llmseg_ros.segmenter import Segmenter

    resolver = resolver_of_known(config.subclasses, known)
    return Segmenter(config, classes, resolver=resolver, rules=rules)


def resolver_of_known(config: SubclassesConfig, known: Known) -> Resolver:
    """Return a resolver that gives what find_subclasses found, and asks nobody for more."""
    return Resolver(replace(config, store='off', llm='off'), known[config])


def with_synonyms(resolver: Resolver, name: str, synonyms: Sequence[str]) -> Subclasses:
    """Return synonyms and subclasses of a class; the latter under a synonym where it has none."""
    resolved = (resolver.resolve(spelling) for spelling in (name, *synonyms))
    found = next((one for one in resolved if one.source != 'name'), Subclasses((), 'name'))
    return replace(found, names=tuple(dict.fromkeys((*synonyms, *found.names))))
