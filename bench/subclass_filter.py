"""What the quality filter is worth: lists with exchanged names, filtered and as they are.

Some of the packs' names are drawn and exchanged among all classes, as if a language model had
answered so. The table of docs/subclasses.md:

    .venv/bin/python bench/subclass_filter.py --root voc_dev
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmseg_ros.cli.common import percent, print_table, progress
from llmseg_ros.config import SegmenterConfig, SubclassesConfig
from llmseg_ros.evaluation.datasets import folder_dataset
from llmseg_ros.evaluation.evaluate import Evaluator, score_images
from llmseg_ros.evaluation.variants import Variant, with_source
from llmseg_ros.reports.report import run_report
from llmseg_ros.subclasses.resolver import Resolver, Subclasses

Lists = Mapping[str, Sequence[str]]
REFINERS = ('none', 'crf')


def main() -> None:
    """Score every draw with and without the filter and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--root', type=Path, required=True, help='folder dataset')
    parser.add_argument('--limit', type=int, help='only the first so many images')
    parser.add_argument('--share', type=float, default=0.3, help='of the names, exchanged')
    parser.add_argument('--draws', type=int, default=3)
    arguments = parser.parse_args()
    dataset = folder_dataset(arguments.root)
    dataset = replace(dataset, samples=dataset.samples[: arguments.limit])
    packs = pack_lists(dataset.classes)
    lists = {'packs': packs}
    for draw in range(arguments.draws):
        lists[f'exchanged, draw {draw}'] = exchange(packs, arguments.share, draw)
    cases = list(itertools.product(lists, (False, True), REFINERS))
    variants = [Variant(' '.join(map(str, case)), config_of(*case)) for case in cases]
    known = {
        variant.config.subclasses: {
            name: Subclasses(tuple(names), 'store') for name, names in lists[case[0]].items()
        }
        for case, variant in zip(cases, variants, strict=True)
    }
    evaluator = Evaluator(dataset, variants, known)
    scores = []
    with progress(len(dataset.samples), 'images') as advance:
        for image in score_images(evaluator, dataset.samples):
            scores.append(image)
            advance()
    mious = {
        case: run_report(dataset, variant, [image.runs[index] for image in scores])['miou']
        for index, (case, variant) in enumerate(zip(cases, variants, strict=True))
    }
    print_table(
        ('lists', *(f'{r}, {"filtered" if f else "as is"}' for r in REFINERS for f in (0, 1))),
        [
            (name, *(percent(mious[name, f, r]) for r in REFINERS for f in (False, True)))
            for name in lists
        ],
    )


def pack_lists(classes: Sequence[str]) -> Lists:
    """Return the packs' subclasses of every class."""
    resolver = Resolver(with_source(SubclassesConfig(), 'packs'))
    return {name: resolver.resolve(name).names for name in classes}


def exchange(lists: Lists, share: float, seed: int) -> Lists:
    """Exchange a share of all names among the classes."""
    rng = random.Random(seed)
    slots = [(name, index) for name in lists for index in range(len(lists[name]))]
    drawn = rng.sample(slots, int(share * len(slots)))
    names = [lists[name][index] for name, index in drawn]
    rng.shuffle(names)
    exchanged = {name: list(found) for name, found in lists.items()}
    for (name, index), other in zip(drawn, names, strict=True):
        exchanged[name][index] = other
    return exchanged


def config_of(lists: str, filtered: bool, refiner: str) -> SegmenterConfig:
    """Return the default configuration for lists that a model of this name has answered."""
    base = SegmenterConfig()
    subclasses = replace(with_source(base.subclasses, 'none'), model=lists, filter=filtered)
    return replace(base, subclasses=subclasses, refine=replace(base.refine, name=refiner))


if __name__ == '__main__':
    main()
