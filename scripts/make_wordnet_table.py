"""Make the tables of what the 1000 ImageNet names are and of their parts, out of WordNet 3.0.

The files are those of the Debian package wordnet-base; the format is that of wndb(5WN).

    python scripts/make_wordnet_table.py /usr/share/wordnet llmseg_ros/encoders/wordnet
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

PARENT_POINTERS = ('@', '@i')  # hypernym, instance hypernym
PART_POINTERS = ('%p',)
PERSON, HOMO = 'n00007846', 'n02472293'  # WordNet puts no person below its genus
PARTS_OF_PARTS = 3  # steps: a car has an engine, that has a cylinder


def main() -> None:
    """Read the folder of WordNet files and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('wordnet', type=Path, help='folder with data.noun, index.noun, noun.exc')
    parser.add_argument('tables', type=Path, help='folder of the files to write')
    arguments = parser.parse_args()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    leaves = [info.index_to_label_name(index) for index in range(info.num_classes())]
    parents = read_pointers(arguments.wordnet / 'data.noun', PARENT_POINTERS)
    above = with_ancestors(leaves, parents)
    forms = read_irregular_forms(arguments.wordnet / 'noun.exc')
    names = read_names(arguments.wordnet / 'index.noun', set(above), forms)
    lines = ['\t'.join((id, ' '.join(parents[id]), '|'.join(names[id]))) for id in above]
    (arguments.tables / 'synsets.tsv').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    parts = read_pointers(arguments.wordnet / 'data.noun', PART_POINTERS)
    for genus in with_ancestors([HOMO], parents):
        parts[PERSON] += parts[genus]
    found = {id: parts_below(id, parts) for id in above}
    names = read_names(arguments.wordnet / 'index.noun', set().union(*found.values()), {})
    lines = [
        f'{id}\t{"|".join(sorted({name for part in own for name in names[part]}))}'
        for id, own in found.items()
        if own
    ]
    (arguments.tables / 'parts.tsv').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def read_pointers(path: Path, kinds: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the noun synsets that each one points to: ids by id, such as n02084071."""
    found = {}
    for line in data_lines(path):
        fields = line.split(' | ')[0].split()
        first = 4 + 2 * int(fields[3], 16)  # offset, file, type, count of words, words
        pointers = fields[first + 1 :]
        found['n' + fields[0]] = tuple(
            'n' + pointers[i + 1]
            for i in range(0, 4 * int(fields[first]), 4)
            if pointers[i] in kinds
        )
    return found


def parts_below(id: str, parts: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the parts of a synset and the parts of these, as far as PARTS_OF_PARTS."""
    found: set[str] = set()
    newest = {id}
    for _ in range(PARTS_OF_PARTS):
        newest = {part for whole in newest for part in parts[whole]} - found
        found |= newest
    return found


def read_irregular_forms(path: Path) -> dict[str, list[str]]:
    """Return irregular plurals by noun, both in small letters with underscores."""
    forms: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding='utf-8').splitlines():
        plural, *nouns = line.split()
        for noun in nouns:
            forms[noun].append(plural)
    return forms


def read_names(
    path: Path, wanted: set[str], forms: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    """Return the names of some synsets by id, each `name#sense`, senses counted from 1.

    A noun's senses are in WordNet's order, the most frequent first; irregular plurals follow it.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for line in data_lines(path):
        fields = line.split()
        count = int(fields[2])
        for sense, offset in enumerate(fields[-count:], start=1):
            if 'n' + offset in wanted:
                for name in (fields[0], *forms.get(fields[0], ())):
                    names['n' + offset].append(f'{name.replace("_", " ")}#{sense}')
    return names


def data_lines(path: Path) -> list[str]:
    """Return the lines of a WordNet file without those of its licence, which begin with blanks."""
    lines = path.read_text(encoding='utf-8').splitlines()
    return [line for line in lines if not line.startswith(' ')]


def with_ancestors(leaves: Iterable[str], parents: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return synsets in their order, then all synsets above them, sorted."""
    leaves = list(leaves)
    found, waiting = set(leaves), list(leaves)
    while waiting:
        new = [id for id in parents[waiting.pop()] if id not in found]
        found.update(new)
        waiting += new
    return [*leaves, *sorted(found - set(leaves))]


if __name__ == '__main__':
    main()
