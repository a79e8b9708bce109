"""`llmseg evaluate`: how well a configuration does on images with true labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmseg_ros.cli.common import (
    note,
    parse_classes,
    percent,
    prepare_folder,
    print_table,
    printable,
    progress,
    resolve_config,
    waiting,
    write_json,
)

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.evaluation.datasets import Dataset, Sample
    from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores

AXES = ('fusion', 'refine', 'subclasses')
SHARES = ('miou', 'boundary_iou', 'pixel_accuracy', 'mean_accuracy', 'frequency_weighted_iou')
INTERRUPTED = 130


def evaluate(
    root: Annotated[Path, typer.Option(metavar='DIR', help='Folder of the dataset.')],
    dataset: Annotated[
        Literal[
            'folder',
            'voc',
            'context59',
            'context60',
            'coco-stuff',
            'coco-object',
            'ade20k',
            'cityscapes',
        ],
        typer.Option(help='Layout of that folder.'),
    ] = 'folder',
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
    boxes: Annotated[
        bool,
        typer.Option(
            '--boxes',
            help='The folder has images/ and boxes/ instead of labels: score where masks lie.',
        ),
    ] = False,
    classes: Annotated[
        str,
        typer.Option(
            help='Score only these classes, separated by commas or one a line in a text file; '
            'all others are background.'
        ),
    ] = '',
    background: Annotated[
        Literal['auto', '0', 'none'],
        typer.Option(help='Of a folder: label value of the background; auto: 0 if so named.'),
    ] = 'auto',
    ignore: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Of a folder: label value of pixels that don't count.  [default: 255]",
        ),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Only the images named here, one a line.')
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help='Only the first so many images.')] = None,
    workers: Annotated[int, typer.Option(min=1, help='Threads that read files ahead.')] = 2,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar='DIR', help='Write report.json and images.jsonl, the scores by image, here.'
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option('--resume', help='Go on from the scores in the --report folder.')
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            metavar='I/N',
            help='Score the I-th of N parts (1/N to N/N) into the --report folder, which the '
            'parts may share; in the end, --resume without --shard reports on all of them.',
        ),
    ] = '',
    json: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Also write the numbers here.')
    ] = None,
) -> None:
    """Compare the labels of a dataset with what the segmenter says.

    A dataset of layout `folder` has images/, labels/ with a PNG of class values for every image,
    and classes.txt with the names of the values from 0 on; the other layouts are as published,
    docs/evaluation.md shows them. Ctrl-C ends early; what was scored is reported.

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
    part, parts = parse_shard(shard)
    if (resume or shard) and not report:
        raise typer.BadParameter('--resume and --shard need --report DIR')
    if dataset != 'folder' and (background != 'auto' or ignore is not None):
        raise typer.BadParameter('--background and --ignore are for --dataset folder')
    if boxes:
        if axes or resume or shard or ids or dataset != 'folder' or background != 'auto':
            raise typer.BadParameter('--boxes goes with --classes, --limit and the settings only')
        evaluate_boxes(root, settings, classes, limit, workers, report, json)
        return
    with_background = {'auto': None, '0': True, 'none': False}[background]
    opened = open_dataset(dataset, root, 255 if ignore is None else ignore, with_background)
    data = narrow_down(opened, classes, ids, limit)
    if report:
        prepare_folder(report)
    with waiting('loading the model'):
        from llmseg_ros.evaluation.evaluate import Evaluator, make_variants
        from llmseg_ros.evaluation.report import evaluation_report

        variants = make_variants(settings, axes)
        evaluator = Evaluator(data, variants)
    samples = data.samples[part - 1 :: parts]
    if report:
        name = f'images-{part}of{parts}.jsonl' if shard else 'images.jsonl'
        scores, interrupted = score_into(evaluator, samples, workers, report / name, resume)
    else:
        scores, interrupted = score_all(evaluator, samples, workers, lambda image: None)
    if not scores:
        raise typer.Exit(INTERRUPTED)
    summary = evaluation_report(data, variants, evaluator.encoder.name, scores)
    print_report(summary)
    if report and not shard:
        write_json(report / 'report.json', summary)
    if json:
        write_json(json, summary)
    if interrupted:
        note(f'interrupted with {len(scores)} of {len(data.samples)} images scored')
        raise typer.Exit(INTERRUPTED)


def evaluate_boxes(
    root: Path,
    settings: SegmenterConfig,
    classes: str,
    limit: int | None,
    workers: int,
    report: Path | None,
    json: Path | None,
) -> None:
    """Score where masks lie in a folder of images with boxes.

    Raises:
        DatasetError: the folder or an image can't be used.
    """
    from llmseg_ros.evaluation.boxes import boxed_dataset, score_boxed_images

    data = boxed_dataset(root, [name.strip() for name in parse_classes(classes)])
    data = replace(data, images=data.images[:limit])
    if data.left_out:
        note(f'boxes left out, of no class: {", ".join(data.left_out)}')
    if report:
        prepare_folder(report)
    with waiting('loading the model'):
        import numpy as np

        from llmseg_ros.evaluation.report import boxes_report
        from llmseg_ros.segmenter import Segmenter

        segmenter = Segmenter(settings, data.classes)
    counts, laps = [], []
    with progress(len(data.images), 'images') as advance:
        for counts_c4, timings_ms in score_boxed_images(segmenter, data, workers):
            counts.append(counts_c4)
            laps.append(timings_ms)
            advance()
    summary = boxes_report(data, segmenter, np.array(counts), laps)
    print_boxes(summary)
    for target in (report and report / 'report.json', json):
        if target:
            write_json(target, summary)


def print_boxes(summary: dict[str, Any]) -> None:
    """Print a line per class and the means."""
    rows = [
        (
            name,
            summary['class_images'][name],
            percent(summary['class_pointing_accuracy'][name]),
            percent(summary['class_mask_in_box'][name]),
        )
        for name in summary['classes']
    ]
    means = (percent(summary['pointing_accuracy']), percent(summary['mask_in_box']))
    print_table(
        ('class', 'images', 'pointing accuracy', 'mask in box'),
        [*rows, ('mean over classes', summary['images'], *means)],
    )
    total = summary['timing_ms']['total']
    print(f'{summary["dataset"]}; {summary["encoder"]}; ms p50 {total["p50"]}, p95 {total["p95"]}')


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


def open_dataset(layout: str, root: Path, ignore: int, background: bool | None) -> Dataset:
    """Open a dataset.

    Raises:
        DatasetError: the folder isn't of this layout, or something is missing.
    """
    from llmseg_ros.evaluation.datasets import LAYOUTS, folder_dataset, published_dataset

    if layout == 'folder':
        return folder_dataset(root, ignore, background)
    return published_dataset(root, LAYOUTS[layout])


def narrow_down(dataset: Dataset, classes: str, ids: Path | None, limit: int | None) -> Dataset:
    """Keep the classes and images that are asked for.

    Raises:
        DatasetError: the dataset lacks a class or an image that is named.
    """
    from llmseg_ros.evaluation.datasets import only_classes, only_samples, read_lines

    if classes:
        dataset = only_classes(dataset, [name.strip() for name in parse_classes(classes)])
    if ids:
        dataset = only_samples(dataset, read_lines(ids, 'image names, one a line'))
    return replace(dataset, samples=dataset.samples[:limit])


def parse_shard(text: str) -> tuple[int, int]:
    """Return part and number of parts of 'I/N', 1 of 1 without a text.

    Raises:
        typer.BadParameter: it is something else.
    """
    if not text:
        return 1, 1
    part, slash, parts = text.partition('/')
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise typer.BadParameter(f'--shard takes I/N with I from 1 to N, not {printable(text)}')
    return int(part), int(parts)


def score_into(
    evaluator: Evaluator, samples: Sequence[Sample], workers: int, path: Path, resume: bool
) -> tuple[list[ImageScores], bool]:
    """Score images into a file; return all scores of its folder when resuming, else these.

    Raises:
        RecordsError: what is there was made with other settings.
    """
    from llmseg_ros.evaluation.records import (
        read_all_records,
        read_records,
        recording,
        settings_of,
        write_record,
    )

    settings = settings_of(evaluator)
    scored = read_all_records(path.parent, settings) if resume else {}
    own = list(read_records(path, settings)) if resume and path.exists() else []
    missing = [sample for sample in samples if sample.id not in scored]
    with recording(path, settings, own) as file:
        new, interrupted = score_all(
            evaluator, missing, workers, lambda image: write_record(file, image)
        )
    scored.update((image.id, image) for image in new)
    ordered = [scored[s.id] for s in evaluator.dataset.samples if s.id in scored]
    return ordered, interrupted


def score_all(
    evaluator: Evaluator,
    samples: Sequence[Sample],
    workers: int,
    keep: Callable[[ImageScores], None],
) -> tuple[list[ImageScores], bool]:
    """Score images; return what is done, and whether Ctrl-C ended it early."""
    from llmseg_ros.evaluation.evaluate import score_images

    scores: list[ImageScores] = []
    with progress(len(samples), 'images') as advance:
        try:
            for image in score_images(evaluator, samples, workers):
                keep(image)
                scores.append(image)
                advance()
        except KeyboardInterrupt:
            return scores, True
    return scores, False


def print_report(summary: dict[str, Any]) -> None:
    """Print a line per run, and the classes where there is one run."""
    runs = summary.get('runs', [summary])
    columns = ['', 'mIoU', 'boundary IoU', 'pixel acc.', 'mean acc.', 'fw IoU', 'ms p50', 'ms p95']
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
