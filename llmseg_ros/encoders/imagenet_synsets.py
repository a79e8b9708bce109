"""Which ImageNet names are a kind of what a name means, and its parts: they are WordNet synsets.

The table beside this file has the 1000 and all synsets above them, a line each: id, ids of those
right above (hypernyms and instance hypernyms), names with the number of the sense. parts.tsv has
the parts of those that have some (part meronyms, and theirs), named in the same way. Both are made
by scripts/make_wordnet_table.py out of WordNet 3.0 (Fellbaum, MIT Press 1998), whose licence lies
beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from llmseg_ros.classes import name_key, singular_words

TABLE = Path(__file__).parent / 'wordnet' / 'synsets.tsv'
PARTS_TABLE = TABLE.with_name('parts.tsv')
IMAGENET_NAMES = 1000  # the first lines of the table, in class order


def closures(name: str) -> list[frozenset[int]]:
    """Return the ImageNet names at or below each noun sense of a name, the usual sense first.

    Of the singular where the name itself is none. Senses without ImageNet names are left out.

    Args:
        name: case and runs of blanks don't count.

    Returns:
        Sets of indices of ImageNet names; no set where WordNet lacks the name.
    """
    by_name = _closures_by_name()
    key = name_key(name)
    return list(by_name.get(key) or by_name.get(' '.join(singular_words(key)), ()))


def members(name: str) -> frozenset[int]:
    """Return the ImageNet names at or below the usual sense of a name; none where that has none.

    Args:
        name: case and runs of blanks don't count; of a plural the singular.
    """
    id = _usual_sense(name)
    return _members()[id] if id else frozenset()


@lru_cache(maxsize=4096)
def parts(name: str, usual: bool = False) -> frozenset[str]:
    """Return the parts of what a name usually means, also those that all of its kind have.

    Args:
        name: case and runs of blanks don't count; of a plural the singular.
        usual: only those that their own names usually mean, so no dock (of a tail) of a dog.

    Returns:
        Names in small letters; none where the tables lack that sense or its parts.
    """
    usual_sense = _usual_sense(name)
    waiting = [usual_sense] if usual_sense else []
    above, own = _above(), _parts_by_synset()
    found: set[str] = set()
    seen: set[str] = set()
    while waiting:
        id = waiting.pop()
        if id not in seen:
            seen.add(id)
            found |= {part for part, sense in own.get(id, ()) if sense == 1 or not usual}
            waiting += above[id]
    return frozenset(found)


@lru_cache(maxsize=4096)
def _usual_sense(name: str) -> str | None:
    """Return the synset of a name's most frequent sense, None where the table lacks it."""
    key = name_key(name)
    senses = _senses_by_name()
    numbered = senses.get(key) or senses.get(' '.join(singular_words(key)), [])
    return next((id for number, id in numbered if number == 1), None)


@lru_cache(maxsize=1)
def _closures_by_name() -> dict[str, tuple[frozenset[int], ...]]:
    """Return closures by name, in the order of the senses."""
    found = _members()
    return {
        name: tuple(found[id] for _, id in sorted(numbered, key=lambda pair: pair[0]))
        for name, numbered in _senses_by_name().items()
    }


@lru_cache(maxsize=1)
def _senses_by_name() -> dict[str, list[tuple[int, str]]]:
    """Return the synsets by name, each with the number of its sense."""
    senses: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for id, _, names in _rows():
        for name, number in _numbered(names):
            senses[name].append((number, id))
    return senses


@lru_cache(maxsize=1)
def _above() -> dict[str, list[str]]:
    """Return the synsets right above each, in the table's order."""
    return {id: above.split() for id, above, _ in _rows()}


@lru_cache(maxsize=1)
def _rows() -> list[list[str]]:
    """Return id, ids above and numbered names of every synset."""
    return [line.split('\t') for line in TABLE.read_text(encoding='utf-8').splitlines()]


@lru_cache(maxsize=1)
def _parts_by_synset() -> dict[str, list[tuple[str, int]]]:
    """Return the parts of every synset that has some, without those of the synsets above."""
    rows = (line.split('\t') for line in PARTS_TABLE.read_text(encoding='utf-8').splitlines())
    return {id: list(_numbered(names)) for id, names in rows}


def _numbered(names: str) -> Iterator[tuple[str, int]]:
    """Split a field of a table into names and the numbers of their senses."""
    for numbered in names.split('|'):
        name, _, number = numbered.rpartition('#')
        yield name, int(number)


@lru_cache(maxsize=1)
def _members() -> dict[str, frozenset[int]]:
    """Return the indices of the ImageNet names at or below every synset."""
    above = _above()
    found: dict[str, set[int]] = defaultdict(set)
    for index, leaf in enumerate(list(above)[:IMAGENET_NAMES]):
        waiting = [leaf]
        while waiting:
            id = waiting.pop()
            if index not in found[id]:
                found[id].add(index)
                waiting += above[id]
    return {id: frozenset(indices) for id, indices in found.items()}
