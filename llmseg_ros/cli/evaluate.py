"""`llmseg evaluate`: how well a configuration does on images with true labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmseg_ros.cli.common import (
    INTERRUPTED,
    ConfigOption,
    NumbersOption,
    RayWorkersOption,
    SubclassesOption,
    check_rules,
    note,
    parse_classes_and_rules,
    percent,
    print_table,
    printable,
    progress,
    resolve_config,
    waiting,
)
from llmseg_ros.cli.evaluate_boxes import evaluate_boxes
from llmseg_ros.cli.evaluate_single import evaluate_single
from llmseg_ros.cli.scoring import opened_scorer, score_all, score_into
from llmseg_ros.cli.settings import parse_axes, read_settings
from llmseg_ros.files import prepare_folder, write_json

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.evaluation.datasets import Dataset

SHARES = {
    'miou': 'mIoU',
    'boundary_iou': 'boundary IoU',
    'pixel_accuracy': 'pixel acc.',
    'mean_accuracy': 'mean acc.',
    'frequency_weighted_iou': 'fw IoU',
    'presence_ap': 'presence AP',
}


def evaluate(
    root: Annotated[Path, typer.Option(metavar='DIR', help='Folder of the dataset.')],
    dataset: Annotated[
        Literal[
            'folder',
            'voc',
            'voc20',
            'context59',
            'context60',
            'coco-stuff',
            'coco-object',
            'ade20k',
            'cityscapes',
        ],
        typer.Option(help='Layout of that folder.'),
    ] = 'folder',
    config: ConfigOption = None,
    encoder: Annotated[str, typer.Option(help='Instead of the configured encoder.')] = '',
    fusion: Annotated[str, typer.Option(help='Instead of the configured fusion.')] = '',
    refine: Annotated[str, typer.Option(help='Instead of the configured refiner.')] = '',
    subclasses: SubclassesOption = 'configured',
    names: Annotated[
        Literal['usual', 'published'],
        typer.Option(
            help='What classes are called: usual is config/classes with its synonyms; published is '
            'the spelling and the lists of the paper the configuration is of, see '
            'config/published, and no curated subclasses.'
        ),
    ] = 'usual',
    ablate: Annotated[
        list[str] | None,
        typer.Option(
            metavar='LIST',
            help='Score all combinations of the values of fusion,refine,subclasses; of some '
            'values with --ablate fusion=mean,max --ablate refine=crf,none.',
        ),
    ] = None,
    boxes: Annotated[
        bool,
        typer.Option(
            '--boxes',
            help='The folder has images/ and boxes/ instead of labels: score where masks lie.',
        ),
    ] = False,
    single: Annotated[
        bool,
        typer.Option(
            '--single',
            help='Score each class in a list of its own, as if nothing else were asked for.',
        ),
    ] = False,
    classes: Annotated[
        str,
        typer.Option(
            help='Score only these classes, separated by commas or in a class file; '
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
    workers: Annotated[
        int, typer.Option(min=1, help='Threads that read files ahead, and as many that score.')
    ] = 2,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar='DIR',
            help='Write report.html, report.json and images.jsonl, the scores by image, here.',
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
    ray: Annotated[
        str,
        typer.Option(
            metavar='ADDRESS',
            help='Score on the Ray cluster at HOST:PORT; "local" is a process per GPU or CPU of '
            'this machine.',
        ),
    ] = '',
    ray_workers: RayWorkersOption = None,
    json: NumbersOption = None,
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
    axes = parse_axes(ablate or [], chosen)
    settings = read_settings(resolve_config(config), encoder, chosen)
    part, parts = parse_shard(shard)
    if (resume or shard) and not report:
        raise typer.BadParameter('--resume and --shard need --report DIR')
    if dataset != 'folder' and (background != 'auto' or ignore is not None):
        raise typer.BadParameter('--background and --ignore are for --dataset folder')
    if single and (boxes or axes or report or resume or shard or ray):
        raise typer.BadParameter('--single goes with --json, the dataset and the settings only')
    if boxes:
        if axes or resume or shard or ids or ray or dataset != 'folder' or background != 'auto':
            raise typer.BadParameter('--boxes goes with --classes, --limit and the settings only')
        evaluate_boxes(root, settings, classes, limit, workers, report, json)
        return
    with_background = {'auto': None, '0': True, 'none': False}[background]
    from llmseg_ros.evaluation.layouts import open_dataset

    opened = open_dataset(dataset, root, 255 if ignore is None else ignore, with_background)
    if names == 'published':
        if 'subclasses' in axes or subclasses != 'configured':
            raise typer.BadParameter(
                '--names published is without curated subclasses: leave out --subclasses and '
                '--ablate subclasses; subclasses.file of the configuration is taken'
            )
        opened, settings = published_names(opened, dataset, settings, resolve_config(config))
    elif published_papers(resolve_config(config)):
        note(f'{config} has published settings: --names published takes its class names too')
    data = narrow_down(opened, classes, ids, limit)
    if single:
        evaluate_single(data, settings, workers, json)
        return
    if report:
        prepare_folder(report)
    from llmseg_ros.evaluation.records import settings_of
    from llmseg_ros.evaluation.variants import find_subclasses, make_variants
    from llmseg_ros.reports.report import evaluation_report, write_report

    variants = make_variants(settings, axes)
    known = find_subclasses(variants, data.classes, progress, data.synonyms)
    samples = data.samples[part - 1 :: parts]
    with opened_scorer(data, variants, known, workers, ray, ray_workers) as scorer:
        if report:
            name = f'images-{part}of{parts}.jsonl' if shard else 'images.jsonl'
            same = settings_of(data, variants, known, scorer.encoder)
            scored, interrupted = score_into(scorer, samples, report / name, same, resume)
        else:
            scored, interrupted = score_all(scorer, samples, lambda image: None)
    scores = [scored[sample.id] for sample in data.samples if sample.id in scored]
    if not scores:
        raise typer.Exit(INTERRUPTED)
    summary = evaluation_report(data, variants, scorer.encoder, scores)
    print_report(summary)
    for sentence in summary['warnings']:
        note(sentence)
    if report and not shard:
        with waiting('writing the report'):
            from llmseg_ros.reports.evaluation_page import write_up_evaluation

            page = write_up_evaluation(
                data, variants, known, settings, summary, scores, scorer.loaded
            )
        write_report(report, summary, page)
    if json:
        write_json(json, summary)
    if interrupted:
        note(f'interrupted with {len(scores)} of {len(data.samples)} images scored')
        raise typer.Exit(INTERRUPTED)


def published_names(
    opened: Dataset, layout: str, settings: SegmenterConfig, config: Path
) -> tuple[Dataset, SegmenterConfig]:
    """Take the class names of the paper a configuration is of, and no others and no packs.

    Raises:
        typer.BadParameter: the configuration is of no paper.
        DatasetError: the paper has no names for this dataset.
    """
    from llmseg_ros.evaluation.layouts import with_published_names

    papers = published_papers(config)
    if not papers:
        raise typer.BadParameter(
            '--names published takes the names from the configuration: choose one of '
            'config/published, or write evaluation: {names: [sclip]} into yours'
        )
    subclasses = replace(settings.subclasses, packs=False, filter=False)
    return (
        with_published_names(opened, layout, papers),
        replace(settings, subclasses=subclasses),
    )


def published_papers(config: Path) -> list[str]:
    """Return the papers whose class names a configuration is for, none where it doesn't say."""
    from llmseg_ros.config_files import load_sections

    section = load_sections(config).get('evaluation')
    papers = section.get('names') if isinstance(section, dict) else None
    if not isinstance(papers, list) or not all(isinstance(paper, str) for paper in papers):
        return []
    return papers


def narrow_down(dataset: Dataset, classes: str, ids: Path | None, limit: int | None) -> Dataset:
    """Keep the classes and images that are asked for.

    Raises:
        DatasetError: the dataset lacks a class or an image that is named.
        CommandError: a rule of a class can't be used.
    """
    from llmseg_ros.evaluation.datasets import only_classes, only_samples, read_lines

    if classes:
        names, rules = parse_classes_and_rules(classes)
        dataset = only_classes(dataset, [name.strip() for name in names])
        check_rules(rules, dataset.classes)
        dataset = replace(dataset, rules=rules)
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


def print_report(summary: dict[str, Any]) -> None:
    """Print a line per run, and the classes where there is one run."""
    runs = summary.get('runs', [summary])
    columns = ['', *SHARES.values(), 'ms p50', 'ms p95']
    rows = []
    for run in runs:
        shares = (run[key] for key in SHARES)
        total = run['timing_ms']['total']
        rows.append([run['name'], *map(percent, shares), total['p50'], total['p95']])
    if len(runs) == 1:
        presence = runs[0]['class_presence_ap']
        values = [
            (k, percent(v), percent(presence.get(k))) for k, v in runs[0]['class_iou'].items()
        ]
        print_table(('class', 'IoU', 'presence AP'), values)
    print_table(columns, rows)
    print(
        f'{summary["dataset"]}, {summary["images"]} images, {len(summary["classes"])} classes; '
        f'{summary["encoder"]}'
    )
