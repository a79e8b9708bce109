"""Measure the presets on published datasets: one table, the published numbers beside ours.

Give the datasets you have; docs/evaluation.md has their layout. What lacks a dataset or weights is
named in the table and left out. Each preset and dataset is `llmseg evaluate` into a folder of its
own below --out; the same command again goes on where it was, and does what is there by then. The
table has the presets of the command; what was measured before is not measured again for it.

    bench/quality.sh --voc VOC2012 --context VOC2010 --coco COCO --ade ADE20K --out quality

Weights come by `llmseg download --config FILE`, FILE as the table names it. --dry-run says what is
missing, and measures nothing.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from llmseg_ros.cli.common import INTERRUPTED, note, print_table
from llmseg_ros.cli.evaluate import evaluate, published_papers
from llmseg_ros.config import ConfigError, SegmenterConfig
from llmseg_ros.config_files import load_config, load_sections
from llmseg_ros.encoders import EncoderUnavailable
from llmseg_ros.evaluation.datasets import DatasetError
from llmseg_ros.evaluation.layouts import open_dataset
from llmseg_ros.evaluation.records import RecordsError
from llmseg_ros.files import WriteError, prepare_folder, replacing, shipped_path, write_json
from llmseg_ros.subclasses.llm import llm_wanted

OURS = ('offline', 'jetson', 'open_clip', 'desktop', 'street', 'paper')
COMMON = ('voc', 'context60', 'coco-object', 'ade20k')
USUAL = {'street': ('cityscapes',)}
ROOTS = {
    'voc': ('voc', 'voc20'),
    'context': ('context59', 'context60'),
    'coco': ('coco-object', 'coco-stuff'),
    'ade': ('ade20k',),
    'cityscapes': ('cityscapes',),
}
OPTION = {layout: option for option, layouts in ROOTS.items() for layout in layouts}
COLUMNS = ('config', 'dataset', 'images', 'miou', 'published', 'source', 'state')


@dataclass(frozen=True)
class Cell:
    """A preset on a dataset.

    Attributes:
        config: its file.
        layout: of the dataset.
        published: mIoU in percent; None where its source has none.
        source: of that number.
    """

    config: Path
    layout: str
    published: float | None = None
    source: str = ''

    @property
    def name(self) -> str:
        """The preset, as a folder is called."""
        part = 'published-' if self.config.parent.name == 'published' else ''
        return f'{part}{self.config.stem}'


@dataclass(frozen=True)
class Row:
    """What became of a cell: images and mIoU in percent where it was measured, and why not."""

    cell: Cell
    images: int | None = None
    miou: float | None = None
    state: str = 'measured'


def all_cells(configs: Sequence[Path]) -> list[Cell]:
    """Return the cells of configurations; of those without datasets of their own the usual ones."""
    cells = []
    for path in configs:
        section = load_sections(path).get('evaluation') or {}
        layouts = section.get('datasets') or USUAL.get(path.stem, COMMON)
        numbers = section.get('published') or [None] * len(layouts)
        source = section.get('source', '')
        pairs = zip(layouts, numbers, strict=True)
        cells += [Cell(path, layout, number, source) for layout, number in pairs]
    return cells


def checked_cells(configs: Sequence[Path]) -> list[Cell]:
    """Return the cells of configurations, each once.

    Raises:
        ConfigError: one can't be used, or two would be measured into one folder.
    """
    configs = list({path.resolve(): path for path in configs}.values())
    for path in configs:
        load_config(path)
    cells = all_cells(configs)
    files: dict[str, Path] = {}
    for cell in cells:
        if files.setdefault(cell.name, cell.config) != cell.config:
            raise ConfigError(
                f'{files[cell.name]} and {cell.config} have one name: give a copy of another name'
            )
    return cells


def shipped_configs() -> list[Path]:
    """Return the presets, ours first; of the published ones those with a dataset."""
    ours = [shipped_path(f'config/{name}.yaml') for name in OURS]
    published = sorted(shipped_path('config/published').glob('*.yaml'))
    return [*ours, *(p for p in published if 'datasets' in load_sections(p)['evaluation'])]


def missing_weights(path: Path) -> str:
    """Say which weights of a configuration are absent; empty where none are."""
    from llmseg_ros.encoders import open_clip_models, simseg

    config = load_config(path)
    try:
        if config.encoder.name == 'open_clip':
            open_clip_models.find_checkpoint(config.open_clip.model, config.open_clip.pretrained)
        elif config.encoder.name == 'simseg':
            simseg.find_checkpoint(config.simseg.checkpoint)
            simseg.find_tokenizer(config.simseg.tokenizer)
    except EncoderUnavailable:
        home = shipped_path('config').parent
        given = path.relative_to(home) if path.is_relative_to(home) else path
        return f'no weights: llmseg download --config {given}'
    return missing_lists(path, config)


def missing_lists(path: Path, config: SegmenterConfig) -> str:
    """Say whether a preset measures nothing without lists or a language model; else empty."""
    if path.stem.startswith('llm_supervision') and not config.subclasses.file:
        return 'no lists: docs/evaluation.md makes them; give your copy of the preset by --config'
    if path.stem == 'paper' and not llm_wanted(config.subclasses):
        return 'no language model: set OPENAI_BASE_URL or OPENAI_API_KEY'
    return ''


@functools.cache
def missing_data(layout: str, root: Path | None) -> str:
    """Say what a dataset lacks; empty where nothing."""
    if root is None:
        return f'no data: give --{OPTION[layout]} DIR'
    try:
        open_dataset(layout, root)
    except DatasetError as error:
        return f'no data: {error}'
    return ''


def measure(cell: Cell, root: Path, folder: Path, limit: int | None) -> Row:
    """Score a cell into its folder, unless that was done already with the same settings.

    Raises:
        KeyboardInterrupt: Ctrl-C; what is scored is kept.
    """
    config = cell.config.read_bytes()
    same = {'config': hashlib.sha256(config).hexdigest(), 'root': str(root), 'limit': limit}
    done, report = folder / 'done.json', folder / 'report.json'
    if not (done.is_file() and report.is_file() and json.loads(done.read_text()) == same):
        names: Any = 'published' if published_papers(cell.config) else 'usual'
        layout: Any = cell.layout
        try:
            evaluate(
                root,
                dataset=layout,
                config=cell.config,
                names=names,
                report=folder,
                resume=True,
                limit=limit,
            )
        except typer.Exit as error:
            raise KeyboardInterrupt from error
        except RecordsError as error:
            problem = str(error).partition(': ')[0]  # what follows is of `llmseg evaluate`
            return Row(cell, state=f'failed: {problem}; remove {folder} to measure anew')
        except Exception as error:  # whatever one has, the others go on
            sentence = next(iter(str(error).splitlines()), type(error).__name__)
            return Row(cell, state=f'failed: {sentence}')
        write_json(done, same)
    summary = json.loads(report.read_text())
    return Row(cell, summary['images'], 100 * summary['miou'])


def measure_all(
    cells: Sequence[Cell],
    roots: dict[str, Path | None],
    out: Path,
    limit: int | None,
    dry_run: bool,
) -> Iterator[Row]:
    """Measure what can be measured; yield a row for each cell."""
    weights: Callable[[Path], str] = functools.cache(missing_weights)
    for cell in cells:
        root = roots[OPTION[cell.layout]]
        reasons = [r for r in (missing_data(cell.layout, root), weights(cell.config)) if r]
        if reasons or root is None:
            yield Row(cell, state='; '.join(reasons))
        elif dry_run:
            yield Row(cell, state='nothing is missing')
        else:
            note(f'{cell.name} on {cell.layout}')
            yield measure(cell, root, out / f'{cell.name}--{cell.layout}', limit)


def cells_of_row(row: Row) -> tuple[str, ...]:
    """Return a row of the table as text, in the order of COLUMNS."""
    cell = row.cell
    return (
        cell.name.replace('published-', 'published/'),
        cell.layout,
        '' if row.images is None else str(row.images),
        '' if row.miou is None else f'{row.miou:.2f}',
        '' if cell.published is None else f'{cell.published:.2f}',
        cell.source,
        row.state,
    )


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Write quality.md and quality.csv."""
    lines = [COLUMNS, *map(cells_of_row, rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(lines)
    titles = ('preset', 'dataset', 'images', 'mIoU', 'published mIoU', 'source', 'state')
    table = [titles, ('---',) * len(titles), *lines[1:]]
    marked = '\n'.join(f'| {" | ".join(c.replace("|", "/") for c in line)} |' for line in table)
    for name, content in (('quality.csv', text.getvalue()), ('quality.md', marked + '\n')):
        with replacing(out / name) as partial:
            partial.write_text(content, encoding='utf-8')


def count(text: str) -> int:
    """Read a number of 1 or more."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='bench/quality.sh',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, layouts in ROOTS.items():
        parser.add_argument(
            f'--{option}', type=Path, metavar='DIR', help=f'root of {" and ".join(layouts)}'
        )
    parser.add_argument('--out', type=Path, default=Path('quality'), metavar='DIR')
    parser.add_argument(
        '--presets',
        nargs='*',
        metavar='NAME',
        help='only these, such as offline or published/naclip_voc21  [default: all]',
    )
    parser.add_argument(
        '--config', type=Path, nargs='*', default=[], metavar='FILE', help='also these of yours'
    )
    parser.add_argument(
        '--limit', type=count, metavar='N', help='only the first N images of each, 1 or more'
    )
    parser.add_argument('--dry-run', action='store_true', help='say what is missing')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the tables; return 1 where something failed, 130 after Ctrl-C."""
    given = parse(arguments)
    configs = shipped_configs()
    if given.presets is not None:
        named = {str(p.relative_to(shipped_path('config')).with_suffix('')): p for p in configs}
        if unknown := [name for name in given.presets if name not in named]:
            print(f'no preset {unknown[0]}, there are {", ".join(named)}', file=sys.stderr)
            return 2
        configs = [named[name] for name in given.presets]
    try:
        cells = checked_cells([*configs, *given.config])
        if not given.dry_run:
            prepare_folder(given.out)
    except (ConfigError, WriteError) as error:
        print(' '.join(str(error).split()), file=sys.stderr)
        return 2
    roots = {option: getattr(given, option) for option in ROOTS}
    rows: list[Row] = []
    interrupted = False
    try:
        for row in measure_all(cells, roots, given.out, given.limit, given.dry_run):
            rows.append(row)
            if not given.dry_run:
                write_tables(given.out, rows)
    except KeyboardInterrupt:
        interrupted = True
    print_table(COLUMNS, list(map(cells_of_row, rows)))
    if interrupted:
        note('interrupted; the same command goes on from here')
        return INTERRUPTED
    return int(any(row.state.startswith('failed') for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
