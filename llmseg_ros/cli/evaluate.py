"""`llmseg evaluate`: how well a configuration does on images with true labels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmseg_ros.cli.common import (
    note,
    parse_classes,
    print_table,
    printable,
    resolve_config,
    waiting,
    write_json,
)

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.evaluation.datasets import Dataset
    from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores

AXES = ('fusion', 'refine', 'subclasses')
SHARES = ('miou', 'pixel_accuracy', 'mean_accuracy', 'frequency_weighted_iou')
INTERRUPTED = 130


def evaluate(
    root: Annotated[Path, typer.Option(metavar='DIR', help='Folder of the dataset.')],
    dataset: Annotated[Literal['folder'], typer.Option(help='Layout of that folder.')] = 'folder',
    config: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Configuration.  [default: config/offline.yaml]'),
    ] = None,
    encoder: Annotated[str, typer.Option(help='Instead of the configured encoder.')] = '',
    fusion: Annotated[str, typer.Option(help='Instead of the configured fusion.')] = '',
    refine: Annotated[str, typer.Option(help='Instead of the configured refiner.')] = '',
    subclasses: Annotated[
        Literal['configured', 'none', 'packs'],
        typer.Option(help='Where subclasses come from: nowhere, or the curated packs alone.'),
    ] = 'configured',
    ablate: Annotated[
        str,
        typer.Option(
            metavar='LIST',
            help='Score all values, in all combinations, of fusion,refine,subclasses.',
        ),
    ] = '',
    classes: Annotated[
        str,
        typer.Option(
            help='Score only these classes, separated by commas or one a line in a text file; '
            'all others are background.'
        ),
    ] = '',
    background: Annotated[
        Literal['auto', '0', 'none'],
        typer.Option(help='Label value of the background; auto: 0 where its name says so.'),
    ] = 'auto',
    ignore: Annotated[
        int, typer.Option(min=0, max=65535, help="Label value of pixels that don't count.")
    ] = 255,
    ids: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Only the images named here, one a line.')
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help='Only the first so many images.')] = None,
    workers: Annotated[int, typer.Option(min=1, help='Threads that read files ahead.')] = 2,
    report: Annotated[
        Path | None, typer.Option(metavar='DIR', help='Write report.json into this folder.')
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Also write the numbers here.')
    ] = None,
) -> None:
    """Compare the labels of a dataset with what the segmenter says.

    A folder has images/, labels/ with a PNG of class values for every image, and classes.txt
    with the names of the values from 0 on. Ctrl-C ends early; what was scored is reported.

    \b
    Example:
      llmseg evaluate --root VOC_DEV --ablate fusion,subclasses --report result
    """
    chosen = {
        'fusion': fusion,
        'refine': refine,
        'subclasses': subclasses.replace('configured', ''),
    }
    axes = parse_axes(ablate, chosen)
    settings = read_settings(resolve_config(config), encoder, chosen)
    data = open_dataset(root, ignore, background, classes, ids, limit)
    if report:
        report.mkdir(parents=True, exist_ok=True)
    with waiting('loading the model'):
        from llmseg_ros.evaluation.evaluate import Evaluator, make_variants
        from llmseg_ros.evaluation.report import evaluation_report

        variants = make_variants(settings, axes)
        evaluator = Evaluator(data, variants)
    scores, interrupted = score_all(evaluator, workers)
    if not scores:
        raise typer.Exit(INTERRUPTED)
    summary = evaluation_report(data, variants, evaluator.encoder.name, scores)
    print_report(summary)
    for path in (report and report / 'report.json', json):
        if path:
            write_json(path, summary)
    if interrupted:
        note(f'interrupted after {len(scores)} of {len(data.samples)} images')
        raise typer.Exit(INTERRUPTED)


def parse_axes(text: str, chosen: dict[str, str]) -> list[str]:
    """Return what is ablated, each once.

    Raises:
        typer.BadParameter: something else is named, or it is set to one value as well.
    """
    axes = [axis.strip() for axis in text.split(',')] if text else []
    for axis in axes:
        if axis not in AXES:
            raise typer.BadParameter(f'--ablate takes {", ".join(AXES)}, not {printable(axis)}')
        if chosen[axis]:
            raise typer.BadParameter(f'--ablate {axis} takes all values, leave out --{axis}')
    return list(dict.fromkeys(axes))


def read_settings(path: Path, encoder: str, chosen: dict[str, str]) -> SegmenterConfig:
    """Read the configuration and put what the command line says in its place.

    Raises:
        ConfigError: the configuration can't be used.
        typer.BadParameter: there is no such encoder, fusion or refiner.
    """
    from llmseg_ros.config import EncoderConfig, load_config
    from llmseg_ros.evaluation.evaluate import VALUES, choices_of, with_setting

    settings = load_config(path)
    if encoder:
        check_choice('encoder', encoder, choices_of(EncoderConfig, 'name'))
        settings = replace(settings, encoder=replace(settings.encoder, name=encoder))
    for axis, value in chosen.items():
        if value:
            check_choice(axis, value, VALUES[axis])
            settings = with_setting(settings, axis, value)
    return settings


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise typer.BadParameter where a value is not among the choices."""
    if value not in choices:
        raise typer.BadParameter(f'--{option} takes {", ".join(choices)}, not {printable(value)}')


def open_dataset(
    root: Path, ignore: int, background: str, classes: str, ids: Path | None, limit: int | None
) -> Dataset:
    """Open the dataset and narrow it down to what is asked for.

    Raises:
        DatasetError: it can't be used, or lacks a class or an image that is named.
    """
    from llmseg_ros.evaluation.datasets import (
        folder_dataset,
        only_classes,
        only_samples,
        read_lines,
    )

    with_background = {'auto': None, '0': True, 'none': False}[background]
    dataset = folder_dataset(root, ignore, with_background)
    if classes:
        dataset = only_classes(dataset, [name.strip() for name in parse_classes(classes)])
    if ids:
        dataset = only_samples(dataset, read_lines(ids, 'image names, one a line'))
    return replace(dataset, samples=dataset.samples[:limit])


def score_all(evaluator: Evaluator, workers: int) -> tuple[list[ImageScores], bool]:
    """Score all images; return what is done, and whether Ctrl-C ended it early."""
    from llmseg_ros.evaluation.evaluate import score_images

    scores: list[ImageScores] = []
    with progress(len(evaluator.dataset.samples)) as advance:
        try:
            for image in score_images(evaluator, workers):
                scores.append(image)
                advance()
        except KeyboardInterrupt:
            return scores, True
    return scores, False


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """Give a function to call after every image; rate and time left show on a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = [TextColumn('scoring'), BarColumn(), MofNCompleteColumn()]
    rate = TextColumn('{task.fields[rate]}')
    with Progress(*columns, rate, TimeLeft(), console=Console(stderr=True)) as bar:
        task = bar.add_task('', total=total, rate='')

        def advance() -> None:
            bar.advance(task)
            speed = bar.tasks[task].speed
            if speed:
                bar.update(task, rate=f'{speed:.1f} images/s')

        yield advance


def print_report(summary: dict[str, Any]) -> None:
    """Print a line per run, and the classes where there is one run."""
    runs = summary.get('runs', [summary])
    columns = ['', 'mIoU', 'pixel acc.', 'mean acc.', 'fw IoU', 'ms p50', 'ms p95']
    rows = []
    for run in runs:
        shares = (run[key] for key in SHARES)
        total = run['timing_ms']['total']
        rows.append([run['name'], *map(percent, shares), total['p50'], total['p95']])
    if len(runs) == 1:
        print_table(('class', 'IoU'), [(k, percent(v)) for k, v in runs[0]['class_iou'].items()])
    print_table(columns, rows)
    print(
        f'{summary["dataset"]}, {summary["images"]} images, {len(summary["classes"])} classes; '
        f'{summary["encoder"]}'
    )


def percent(share: float | None) -> str:
    """Return a share in percent, and a dash where it is undefined."""
    return '-' if share is None else f'{100 * share:.2f}'
