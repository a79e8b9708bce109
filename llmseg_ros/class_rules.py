"""What single classes must meet, their other names, and names they must not be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from llmseg_ros.classes import clean_name, name_key

MAX_NAMES = 32  # in `also` and in `never` of a class
MAX_AREA = (1 << 32) - 1  # as messages have it


@dataclass(frozen=True)
class ClassRule:
    """What counts for one class alone.

    Attributes:
        minimum_score: of the image as a whole, in [0, 1]; below it the class is not in the image.
        minimum_area: in pixels of the image; with fewer the class is taken out.
        also: further names that stand for the class.
        never: names that compete with all classes; what they win is background.
    """

    minimum_score: float = 0.0
    minimum_area: int = 0
    also: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


Rules = Mapping[str, ClassRule]  # by name_key
Given = Sequence[tuple[str, Mapping[str, Any]]]  # names and rules as people write them
FIELDS = tuple(item.name for item in fields(ClassRule))


@dataclass
class CleanRules:
    """Rules as they can be used.

    Attributes:
        rules: by name_key of the class; those that say nothing are left out.
        messages: a sentence for every part refused.
    """

    rules: dict[str, ClassRule] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


def clean_rules(given: Given, classes: Sequence[str]) -> CleanRules:
    """Check rules as people write them against the class list they are of.

    Args:
        given: name of a class and its rule, by the names of ClassRule's attributes.
        classes: names in the list.
    """
    found = CleanRules()
    in_list = {name_key(name) for name in classes}
    for name, parts in given:
        key, about = name_key(name), f'rule of {name[:64]!a}'
        if key not in in_list:
            found.messages.append(f'{about}: the list has no such class, refused')
        elif key in found.rules:
            found.messages.append(f'{about}: the class has a rule already, refused')
        else:
            rule, messages = clean_rule(parts, key, in_list)
            found.messages += [f'{about}: {message}' for message in messages]
            if rule != ClassRule():
                found.rules[key] = rule
    return found


def with_kept(given: Given, before: Given, names: Sequence[str]) -> Given:
    """Return the rules given, and those before of the other classes of a list."""
    others = {name_key(name) for name in names} - {name_key(name) for name, _ in given}
    return [*given, *((name, parts) for name, parts in before if name_key(name) in others)]


def as_given(rules: Rules) -> Given:
    """Return rules that are in force as people write them."""
    return [(key, asdict(rule)) for key, rule in rules.items()]


def in_report(rules: Given) -> dict[str, Any]:
    """Return what a report or record says of rules by their class, nothing where there are none."""
    return {'rules': {name: dict(parts) for name, parts in rules}} if rules else {}


def clean_rule(
    parts: Mapping[str, Any], key: str, in_list: set[str]
) -> tuple[ClassRule, list[str]]:
    """Return what can be used of the rule of a class, and a sentence for what can't."""
    rule, messages = ClassRule(), []
    score, area = parts.get('minimum_score', 0.0), parts.get('minimum_area', 0)
    if type(score) in (int, float) and math.isfinite(score) and 0 <= score <= 1:
        rule = replace(rule, minimum_score=float(score))
    else:
        messages.append(f'minimum_score is {score!r:.40}, expected 0 to 1')
    if type(area) is int and 0 <= area <= MAX_AREA:
        rule = replace(rule, minimum_area=area)
    else:
        messages.append(f'minimum_area is {area!r:.40}, expected a number of pixels from 0 on')
    also, refused = clean_list('also', parts.get('also', ()))
    messages += refused
    never, refused = clean_list('never', parts.get('never', ()))
    messages += refused
    own = {key, *map(name_key, also)}
    for name in never:
        if name_key(name) in own:
            messages.append(f'never has {name!a}, a name of the class itself, refused')
        elif name_key(name) in in_list:
            messages.append(f'never has {name!a}, a class of the list that competes already')
    never = [name for name in never if name_key(name) not in own | in_list]
    return replace(rule, also=tuple(also), never=tuple(never)), messages


def clean_list(what: str, names: Any) -> tuple[list[str], list[str]]:
    """Return the names of a list that can be used, each once, and a sentence for the others."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names or ()):
        return [], [f'{what} is {names!r:.40}, expected a list of names']
    accepted: dict[str, str] = {}
    messages = []
    for name in names or ():
        try:
            cleaned = clean_name(name)
        except ValueError as error:
            messages.append(f'{what}: {error}: refused')
            continue
        if len(accepted) >= MAX_NAMES and name_key(cleaned) not in accepted:
            messages.append(f'{what}: {cleaned!a} is beyond {MAX_NAMES} names: refused')
        else:
            accepted.setdefault(name_key(cleaned), cleaned)
    return list(accepted.values()), messages
