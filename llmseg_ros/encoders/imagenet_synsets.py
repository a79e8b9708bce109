"""Which ImageNet names are a kind of what a name means: they are WordNet synsets, so it is known.

The table beside this file has the 1000 and all synsets above them, a line each: id, ids of those
right above (hypernyms and instance hypernyms), names with the number of the sense. It is made by
scripts/make_wordnet_table.py out of WordNet 3.0 (Fellbaum, MIT Press 1998), whose licence lies
beside it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from llmseg_ros.classes import name_key, singular_words

TABLE = Path(__file__).parent / 'wordnet' / 'synsets.tsv'
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


@lru_cache(maxsize=1)
def _closures_by_name() -> dict[str, tuple[frozenset[int], ...]]:
    """Return closures by name, in the order of the senses."""
    rows = [line.split('\t') for line in TABLE.read_text(encoding='utf-8').splitlines()]
    members = _members_by_synset({id: above.split() for id, above, _ in rows})
    senses: dict[str, list[tuple[int, frozenset[int]]]] = defaultdict(list)
    for id, _, names in rows:
        for numbered in names.split('|'):
            name, _, number = numbered.rpartition('#')
            senses[name].append((int(number), members[id]))
    return {
        name: tuple(found for _, found in sorted(numbered, key=lambda pair: pair[0]))
        for name, numbered in senses.items()
    }


def _members_by_synset(above: dict[str, list[str]]) -> dict[str, frozenset[int]]:
    """Return the indices of the ImageNet names at or below every synset."""
    members: dict[str, set[int]] = defaultdict(set)
    for index, leaf in enumerate(list(above)[:IMAGENET_NAMES]):
        waiting = [leaf]
        while waiting:
            id = waiting.pop()
            if index not in members[id]:
                members[id].add(index)
                waiting += above[id]
    return {id: frozenset(found) for id, found in members.items()}
