"""Packs: YAML files that give classes subclasses and contrasts, the curated and the user's own."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmseg_ros.classes import clean_name, name_key
from llmseg_ros.files import shipped_path

MAX_FILE_BYTES = 1_000_000
MAX_SUBCLASSES = 100  # of one class
MAX_ALIASES = 100
MAX_CONTRASTS = 100
PARTS = ('aliases', 'subclasses', 'contrasts', 'origin')  # of a class


class PackError(ValueError):
    """A pack can't be used; the message is one sentence that names the file and the place."""


@dataclass(frozen=True)
class Pack:
    """Subclasses and contrasts by class.

    Attributes:
        path: the file.
        origin: where the lists are from, in the file's own words; may be empty.
        classes: subclasses by class name as the file spells it, in the file's order.
        keys: class name as the file spells it, by the key of the name and of every alias.
        origins: where single lists are from, by class name, for those that say so.
        contrasts: names beside the class or taken for it, by class name, for those that have some.
    """

    path: Path
    origin: str
    classes: Mapping[str, tuple[str, ...]]
    keys: Mapping[str, str]
    origins: Mapping[str, str]
    contrasts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def find(self, name: str) -> tuple[str, ...] | None:
        """Return the subclasses of a class by its name or an alias, None where it isn't here."""
        spelt = self.keys.get(name_key(name))
        return None if spelt is None else self.classes[spelt]

    def find_contrasts(self, name: str) -> tuple[str, ...] | None:
        """Return the contrasts of a class by its name or an alias, None where it has no list."""
        return self.contrasts.get(self.keys.get(name_key(name), ''))

    def other_names(self, name: str) -> tuple[str, ...]:
        """Return the keys of a class's other names; none where it isn't here."""
        key = name_key(name)
        spelt = self.keys.get(key)
        if spelt is None:
            return ()
        return tuple(other for other, of in self.keys.items() if of == spelt and other != key)


def load_pack(path: str | Path) -> Pack:
    """Read a pack; the format is described in docs/subclasses.md.

    Raises:
        PackError: the file can't be read, or isn't a pack.
    """
    path = Path(path)
    try:
        return _build_pack(path, _read_yaml(path))
    except ValueError as error:
        raise PackError(f'subclass file {path}: {error}') from error


def write_pack(
    path: str | Path,
    origin: str,
    classes: Mapping[str, Iterable[str]],
    origins: Mapping[str, str] | None = None,
) -> None:
    """Write subclasses by class as a pack.

    Args:
        path: replaced where it exists.
        origin: where the lists are from, in a sentence.
        classes: subclasses by class name.
        origins: where single lists are from, by class name.

    Raises:
        OSError: the file can't be written.
    """
    entries: dict[str, dict[str, Any]] = {}
    for name, names in classes.items():
        own = {'origin': origins[name]} if origins and name in origins else {}
        entries[name] = {**own, 'subclasses': list(names)}
    data = {'origin': origin, 'classes': entries}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=96)
    Path(path).write_text(text, encoding='utf-8')


@functools.cache
def curated_packs() -> tuple[Pack, ...]:
    """Load the packs that ship with the package, once per process."""
    folder = shipped_path('config/subclasses')
    return tuple(load_pack(path) for path in sorted(folder.glob('*.yaml')))


class _Loader(yaml.BaseLoader):
    """Read every scalar as text (a class may be called no or 1984) and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise PackError(f'{_shown(twice)} is given twice')
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> object:
    try:
        with path.open('rb') as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PackError(error.strerror or 'it does not open') from error
    if len(content) > MAX_FILE_BYTES:
        raise PackError(f'it is larger than {MAX_FILE_BYTES} bytes')
    try:
        data = yaml.load(content.decode('utf-8'), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise PackError('it is not UTF-8 text') from error
    except RecursionError as error:
        raise PackError('it is nested too deeply') from error
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        where = f' (line {mark.line + 1})' if mark else ''
        raise PackError(f'it is not YAML{where}') from error
    return '' if data is None else data


def _build_pack(path: Path, data: object) -> Pack:
    content = _check_mapping(data, 'the file', ('origin', 'classes'))
    origin = _check_text(content.get('origin', ''), 'origin')
    entries = content.get('classes')
    if not isinstance(entries, dict):
        raise PackError(f'classes is {_kind(entries)}, expected class names with their entries')
    classes: dict[str, tuple[str, ...]] = {}
    keys: dict[str, str] = {}
    origins: dict[str, str] = {}
    contrasts: dict[str, tuple[str, ...]] = {}
    for spelt, value in entries.items():
        name = _check_name(spelt, 'a class name')
        entry = _check_mapping(value, f'class {name!a}', PARTS)
        if 'origin' in entry:
            origins[name] = _check_text(entry['origin'], f'{name!a}, origin')
        aliases = _check_names(entry.get('aliases', []), f'{name!a}, aliases', MAX_ALIASES)
        for alias in (name, *aliases):
            if keys.setdefault(name_key(alias), name) != name or name in classes:
                raise PackError(f'{alias!a} names two classes')
        classes[name] = _check_names(
            entry.get('subclasses'), f'{name!a}, subclasses', MAX_SUBCLASSES
        )
        if 'contrasts' in entry:
            about = f'{name!a}, contrasts'
            contrasts[name] = _check_names(entry['contrasts'], about, MAX_CONTRASTS)
    return Pack(path, origin, classes, keys, origins, contrasts)


def _check_mapping(value: object, what: str, allowed: tuple[str, ...]) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise PackError(f'{what} is {_kind(value)}, expected {_listed(allowed)}')
    for key in value:
        if key not in allowed:
            raise PackError(f'{what} has {_shown(key)}, expected {_listed(allowed)}')
    return value


def _check_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise PackError(f'{what} is {_kind(value)}, expected text')
    return value


def _check_names(values: object, what: str, most: int) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise PackError(f'{what}: {_kind(values)}, expected a list of names')
    if len(values) > most:
        raise PackError(f'{what}: {len(values)} names, at most {most} are allowed')
    return tuple(_check_name(value, what) for value in values)


def _check_name(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise PackError(f'{what}: {_kind(value)}, expected a name')
    try:
        return clean_name(value)
    except ValueError as error:
        raise PackError(f'{what}: {error}') from error


def _listed(keys: tuple[str, ...]) -> str:
    return f'{", ".join(keys[:-1])} and {keys[-1]}'


def _kind(value: object) -> str:
    """Name what a value is; its content, from an untrusted file, may expand without end."""
    if isinstance(value, str):
        return 'text' if value else 'empty'
    if isinstance(value, (dict, list)):
        return 'a mapping' if isinstance(value, dict) else 'a list'
    return 'missing'


def _shown(key: object) -> str:
    return ascii(key)[:40] if isinstance(key, str) else _kind(key)
