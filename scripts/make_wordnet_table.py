"""Make the table of what the 1000 ImageNet names are, out of WordNet 3.0's noun files.

The files are those of the Debian package wordnet-base; the format is that of wndb(5WN).

    python scripts/make_wordnet_table.py /usr/share/wordnet llmseg_ros/encoders/wordnet/synsets.tsv
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

PARENT_POINTERS = ('@', '@i')  # hypernym, instance hypernym


def main() -> None:
    """Read the folder of WordNet files and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('wordnet', type=Path, help='folder with data.noun, index.noun, noun.exc')
    parser.add_argument('table', type=Path, help='file to write')
    arguments = parser.parse_args()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    leaves = [info.index_to_label_name(index) for index in range(info.num_classes())]
    parents = read_parents(arguments.wordnet / 'data.noun')
    above = with_ancestors(leaves, parents)
    forms = read_irregular_forms(arguments.wordnet / 'noun.exc')
    names = read_names(arguments.wordnet / 'index.noun', set(above), forms)
    lines = ['\t'.join((id, ' '.join(parents[id]), '|'.join(names[id]))) for id in above]
    arguments.table.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def read_parents(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the synsets right above each noun synset: ids by id, such as n02084071."""
    parents = {}
    for line in data_lines(path):
        fields = line.split(' | ')[0].split()
        first = 4 + 2 * int(fields[3], 16)  # offset, file, type, count of words, words
        pointers = fields[first + 1 :]
        parents['n' + fields[0]] = tuple(
            'n' + pointers[i + 1]
            for i in range(0, 4 * int(fields[first]), 4)
            if pointers[i] in PARENT_POINTERS
        )
    return parents


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
