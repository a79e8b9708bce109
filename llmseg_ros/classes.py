"""Class names and their stable ids."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

BACKGROUND_ID = 0
BACKGROUND_NAMES = ('background', '_background_', '__background__')  # as class files have it
MAX_NAME_LENGTH = 64
MAX_CLASSES = 1000  # in one list
MAX_ID = 65534  # 65535 is "unlabelled" in a mono16 label image


@dataclass(frozen=True)
class ClassEntry:
    """A class name with the id it keeps for the life of the registry."""

    id: int
    name: str


@dataclass(frozen=True)
class ClassUpdate:
    """What an update of the class list led to.

    Attributes:
        version: of the class list now in force; unchanged where the list is.
        classes: now in force, in the order asked for.
        messages: one sentence for every name that was refused or merged.
        rules_refused: whether any part of a class's rule was.
    """

    version: int
    classes: tuple[ClassEntry, ...]
    messages: tuple[str, ...] = ()
    rules_refused: bool = False


def clean_name(name: str) -> str:
    """Strip a name and fold its runs of blanks, keeping its case.

    Raises:
        ValueError: the name is empty, longer than 64 characters, or has control characters.
    """
    if any(unicodedata.category(char) in ('Cc', 'Cf', 'Cs') for char in name.strip()):
        raise ValueError(f'class name {name[:MAX_NAME_LENGTH]!a} has control characters')
    cleaned = ' '.join(name.split())
    if not cleaned:
        raise ValueError('a class name is empty')
    if len(cleaned) > MAX_NAME_LENGTH:
        raise ValueError(
            f'class name {cleaned[:24]!a}... has {len(cleaned)} characters, '
            f'at most {MAX_NAME_LENGTH} are allowed'
        )
    return cleaned


def name_key(name: str) -> str:
    """Fold a name to the key under which case and blanks make no difference."""
    return ' '.join(unicodedata.normalize('NFKC', name).casefold().split())


def singular_words(name: str) -> list[str]:
    """Return the words of a name in small letters, those that end like an English plural cut."""
    return [_singular(word) for word in re.findall(r'\w+', name_key(name))]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith('ies'):
        return word[:-3] + 'y'
    if len(word) > 4 and word.endswith(('ses', 'xes', 'ches', 'shes')):
        return word[:-2]
    if len(word) > 3 and word.endswith('s') and not word.endswith(('ss', 'us', 'is')):
        return word[:-1]
    return word


def clean_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Clean a class list: refuse bad names, merge repeated ones, keep the rest in order.

    Returns:
        The accepted names and one sentence for every name refused or merged.
    """
    accepted: dict[str, str] = {}
    messages = []
    for name in names:
        try:
            cleaned = clean_name(name)
        except ValueError as error:
            messages.append(f'{error}: refused')
            continue
        key = name_key(cleaned)
        if key in BACKGROUND_NAMES:
            messages.append(f'class name {cleaned!a} is what no class covers, id 0: left out')
        elif key in accepted:
            messages.append(f'class name {cleaned!a} repeats {accepted[key]!a}: merged')
        elif len(accepted) >= MAX_CLASSES:
            messages.append(f'class name {cleaned!a} is beyond {MAX_CLASSES} classes: refused')
        else:
            accepted[key] = cleaned
    return list(accepted.values()), messages


def all_taken(names: Iterable[str], update: ClassUpdate) -> bool:
    """Tell whether no name was refused: each is in the list, or means background."""
    taken = {name_key(entry.name) for entry in update.classes} | set(BACKGROUND_NAMES)
    return all(name_key(name) in taken for name in names)


class ClassRegistry:
    """Give class names ids that are never given to another name; safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str, ClassEntry] = {}
        self._current = ClassUpdate(version=0, classes=())

    @property
    def current(self) -> ClassUpdate:
        """The list in force, without messages."""
        return self._current

    def update(self, names: Iterable[str]) -> ClassUpdate:
        """Put a new class list in force; the version rises when the list differs.

        A name that was in an earlier list gets its old id back.
        """
        accepted, messages = clean_names(names)
        with self._lock:
            classes = []
            for name in accepted:
                entry = self._entry(name)
                if entry is None:
                    messages.append(f'class name {name!a}: all {MAX_ID} ids are used up: refused')
                else:
                    classes.append(entry)
            version = self._current.version
            if version == 0 or tuple(classes) != self._current.classes:
                version += 1
            self._current = ClassUpdate(version, tuple(classes))
            return ClassUpdate(version, tuple(classes), tuple(messages))

    def aside(self, names: Iterable[str]) -> ClassUpdate:
        """Return a class list that is not put in force, of version 0.

        Names that have been in a list have their ids; the others get free ones, which the registry
        may yet give to other names.
        """
        accepted, messages = clean_names(names)
        with self._lock:
            known = dict(self._ids)
        classes = []
        for name in accepted:
            new = ClassEntry(len(known) + 1, name)
            if new.id > MAX_ID and name_key(name) not in known:
                messages.append(f'class name {name!a}: all {MAX_ID} ids are used up: refused')
            else:
                classes.append(known.setdefault(name_key(name), new))
        return ClassUpdate(0, tuple(classes), tuple(messages))

    def renew(self) -> ClassUpdate:
        """Raise the version of the same class list: what describes its classes has changed."""
        with self._lock:
            self._current = ClassUpdate(self._current.version + 1, self._current.classes)
            return self._current

    def _entry(self, name: str) -> ClassEntry | None:
        key = name_key(name)
        if key not in self._ids:
            if len(self._ids) >= MAX_ID:
                return None
            self._ids[key] = ClassEntry(len(self._ids) + 1, name)
        return self._ids[key]
