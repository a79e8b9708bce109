"""report.html: what an evaluation or a replay found, for people."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llmseg_ros.encoders import EncoderUnavailable
from llmseg_ros.evaluation.boxes import BoxedDataset
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores
from llmseg_ros.evaluation.metrics import Counts
from llmseg_ros.evaluation.variants import Known, Variant, make_variants
from llmseg_ros.reports import tables
from llmseg_ros.reports.charts import Chart, histogram, timeline
from llmseg_ros.reports.pictures import (
    ReplayRecorder,
    Shot,
    image_ious,
    segment_boxed,
    segment_samples,
    worst_and_best,
)
from llmseg_ros.reports.tables import Matrix, Table, percent

if TYPE_CHECKING:
    from llmseg_ros.bags.replay import ReplayScores
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.encoders import Encoder
    from llmseg_ros.segmenter import Segmenter

FOLDER = Path(__file__).parent / 'page'
VIDEO = 'overlay.mp4'
NO_PICTURES = 'There are no pictures: the model is not on this machine.'


class Fact(NamedTuple):
    """A number of the summary."""

    name: str
    text: str
    note: str = ''


class Figure(NamedTuple):
    """Pictures of one image side by side: title and data URI each; the classes seen in them."""

    caption: str
    about: str
    pictures: Sequence[tuple[str, str]]
    legend: Sequence[tuple[str, str]]


class Gallery(NamedTuple):
    """Figures under one heading."""

    title: str
    note: str
    figures: Sequence[Figure]


@dataclass
class Section:
    """A part of the page; whatever it has is shown in this order."""

    id: str
    title: str
    note: str = ''
    video: str = ''
    poster: str = ''
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    matrix: Matrix | None = None
    galleries: list[Gallery] = field(default_factory=list)


def write_up_evaluation(
    dataset: Dataset,
    variants: Sequence[Variant],
    known: Known,
    configured: SegmenterConfig,
    summary: Mapping[str, Any],
    scores: Sequence[ImageScores],
    encoder: Encoder | None = None,
) -> str:
    """Return the page on an evaluation; a few images are segmented again for it.

    Args:
        dataset: that was scored.
        variants: in the order of the scores.
        known: subclasses under every variant.
        configured: settings before what an ablation changed.
        summary: evaluation_report's.
        scores: of all images, in the dataset's order.
        encoder: the variants' own, where it is loaded already.
    """
    run = best_run(summary)
    ious = image_ious(dataset, scores, run)
    worst, best = worst_and_best(ious)
    about = {scores[i].id: f'mIoU {percent(ious[i])}' for i in (*worst, *best)}
    try:
        shots = segment_samples(Evaluator(dataset, [variants[run]], known, encoder), about)
    except EncoderUnavailable:  # it is on the machines of the cluster that scored
        shots, worst, best = {}, [], []
    chosen = [[shots[scores[i].id] for i in indices] for indices in (worst, best)]
    name = configured_variant(variants, configured).name
    return evaluation_page(summary, dataset, scores, chosen[0], chosen[1], name)


def best_run(summary: Mapping[str, Any]) -> int:
    """Return the index of the run with the highest mIoU."""
    runs = summary.get('runs', [summary])
    return max(range(len(runs)), key=lambda index: tables.miou_of(runs[index]))


def configured_variant(variants: Sequence[Variant], configured: SegmenterConfig) -> Variant:
    """Return the variant that is closest to the configuration."""
    wanted = make_variants(configured, {})[0].config

    def agreement(variant: Variant) -> int:
        config = variant.config
        return (
            (config.fusion == wanted.fusion)
            + (config.refine == wanted.refine)
            + (config.subclasses == wanted.subclasses)
            + (config.subclasses.packs == wanted.subclasses.packs)
        )

    return max(variants, key=agreement)


def evaluation_page(
    summary: Mapping[str, Any],
    dataset: Dataset,
    scores: Sequence[ImageScores],
    worst: Sequence[Shot],
    best: Sequence[Shot],
    configured: str,
) -> str:
    """Return the page on an evaluation.

    Args:
        summary: evaluation_report's.
        dataset: that was scored.
        scores: of all images, in the dataset's order.
        worst: images under the best run, the worst first.
        best: the same, the best first.
        configured: name of the run with the settings as configured.
    """
    index = best_run(summary)
    runs = summary.get('runs', [summary])
    run = runs[index]
    confusion = np.array(run['confusion']['pixels'], np.int64)
    ious = image_ious(dataset, scores, index)
    totals_ms = [sum(image.runs[index].timings_ms.values()) for image in scores]
    ids = [image.id for image in scores]
    charts = image_charts(ious, ids)
    sections = []
    if len(runs) > 1:
        compared = [
            tables.run_table(runs, configured),
            tables.class_by_run_table(runs, dataset.first_id),
        ]
        note = f'What follows is about the best of them: {run["name"]}.'
        sections.append(Section('settings', 'Settings compared', note, tables=compared))
    sections += [
        Section(
            'classes',
            'Classes',
            tables=[tables.class_table(dataset.names, dataset.first_id, confusion)],
        ),
        confusion_section(dataset.names, confusion),
        Section(
            'images',
            'Images',
            '' if worst or not charts else NO_PICTURES,
            charts=charts,
            galleries=[
                gallery('Worst images', worst, dataset.names),
                gallery('Best images', best, dataset.names),
            ],
        ),
        time_section(totals_ms, ids, run['timing_ms'], 'images'),
        about_section(run),
    ]
    facts = [Fact('images', f'{summary["images"]:,}'), Fact('classes', str(len(dataset.classes)))]
    facts += [
        Fact(title, percent(run[key]))
        for key, title in (
            ('miou', 'mIoU'),
            ('boundary_iou', 'boundary IoU'),
            ('pixel_accuracy', 'pixel accuracy'),
            ('mean_accuracy', 'mean accuracy'),
        )
    ]
    facts.append(time_fact(run['timing_ms'], 'image'))
    note = '' if summary['complete'] else 'Not all images of the dataset are scored yet.'
    return render(f'Evaluation on {summary["dataset"]}', summary, note, facts, sections)


def image_charts(ious: Sequence[float], ids: Sequence[str]) -> list[Chart]:
    """Return how the images' mIoU is distributed, nothing where there is none."""
    defined = [iou for iou in ious if not math.isnan(iou)]
    if not defined:
        return []
    return [
        histogram('Images by mIoU', defined, percent),
        timeline('mIoU by image, in the order of the dataset', ious, ids, percent),
    ]


def write_up_boxes(
    dataset: BoxedDataset,
    segmenter: Segmenter,
    summary: Mapping[str, Any],
    laps: Sequence[Mapping[str, float]],
) -> str:
    """Return the page on images with boxes; a few are segmented again for it.

    Args:
        dataset: that was scored.
        segmenter: that was used.
        summary: boxes_report's.
        laps: wall time by stage of every image.
    """
    names = ('background', *dataset.classes)
    totals_ms = [sum(timings_ms.values()) for timings_ms in laps]
    shown = gallery('Evenly spaced, with their boxes', segment_boxed(segmenter, dataset), names)
    sections = [
        Section('classes', 'Classes', tables=[tables.boxes_table(summary)]),
        Section('images', 'Images', galleries=[shown]),
        time_section(totals_ms, [i.id for i in dataset.images], summary['timing_ms'], 'images'),
        about_section(summary),
    ]
    facts = [
        Fact('images', f'{summary["images"]:,}'),
        Fact('classes', str(len(dataset.classes))),
        Fact('pointing accuracy', percent(summary['pointing_accuracy'])),
        Fact('mask in box', percent(summary['mask_in_box'])),
        time_fact(summary['timing_ms'], 'image'),
    ]
    return render(f'Evaluation on the boxes of {summary["dataset"]}', summary, '', facts, sections)


def replay_page(summary: Mapping[str, Any], recorded: ReplayRecorder) -> str:
    """Return the page on a bag.

    Args:
        summary: as in report.json.
        recorded: of all its frames.
    """
    names = recorded.names
    frames = [recorded.frame_name(index) for index in range(len(recorded.stamps))]
    labelled = summary['labelled_frames'] > 0
    class_tables = [tables.presence_table(summary)]
    if labelled:
        class_tables.insert(0, tables.class_table(names, 0, recorded.confusion))
    galleries = [
        gallery('Worst frames', recorded.top('worst'), names),
        gallery('Best frames', recorded.top('best'), names),
        gallery('Most changed since the frame before', recorded.top('changed'), names),
        gallery('Evenly spaced', recorded.spread, names),
    ]
    changes = timeline('Pixels whose label changed', recorded.changed, frames, percent)
    sections = [
        Section('classes', 'Classes', tables=class_tables),
        *([confusion_section(names, recorded.confusion)] if labelled else []),
        *([live_section(summary)] if 'live' in summary else []),
        Section(
            'frames',
            'Frames',
            video=VIDEO if recorded.video and summary['complete'] else '',
            poster=recorded.spread[0].overlay(),
            charts=[changes] if len(frames) > 1 else [],
            galleries=galleries,
        ),
        time_section(recorded.totals_ms, frames, summary['timing_ms'], 'frames'),
        about_section(summary),
    ]
    facts = replay_facts(summary)
    note = f'Camera topic {summary["image_topic"]}, mode {summary["mode"]}.'
    if not summary['complete']:
        note += ' Interrupted before the end of the bag.'
    return render(f'Replay of {summary["dataset"]}', summary, note, facts, sections)


def folder_page(summary: Mapping[str, Any], scores: ReplayScores) -> str:
    """Return the page on a folder of bags.

    Args:
        summary: as in report.json.
        scores: of all its frames.
    """
    labelled = summary['labelled_frames'] > 0
    problems = [tables.problem_table(summary['problems'])] if summary['problems'] else []
    class_tables = [tables.presence_table(summary)]
    if labelled:
        class_tables.insert(0, tables.class_table(scores.names, 0, scores.confusion))
    times = [histogram('Frames by time', scores.timings_ms['total'], milliseconds)]
    stages = [tables.stage_table(summary['timing_ms'])]
    sections = [
        Section('bags', 'Bags', tables=[tables.bag_table(summary['bags']), *problems]),
        Section('classes', 'Classes', tables=class_tables),
        *([confusion_section(scores.names, scores.confusion)] if labelled else []),
        Section('time', 'Time', charts=times, tables=stages),
        about_section(summary),
    ]
    facts = [Fact('bags', f'{len(summary["bags"]):,}'), *replay_facts(summary)]
    note = f'Camera topic {summary["image_topic"]}.'
    if not summary['complete']:
        note += ' Interrupted before the last bag.'
    if problems:
        note += f' {len(summary["problems"])} more bags can not be used.'
    return render(f'Replay of the bags in {summary["dataset"]}', summary, note, facts, sections)


def replay_facts(summary: Mapping[str, Any]) -> list[Fact]:
    """Return what holds for all frames."""
    facts = [
        Fact('frames', f'{summary["frames"]:,}'),
        Fact('classes', str(len(summary['classes']) - 1)),
    ]
    if 'live' in summary:
        facts.append(Fact('frames dropped', f'{summary["live"]["frames_dropped"]:,}'))
    if summary['labelled_frames']:
        facts += [
            Fact('frames with true labels', f'{summary["labelled_frames"]:,}'),
            Fact('mIoU', percent(summary['miou'])),
            Fact('pixel accuracy', percent(summary['pixel_accuracy'])),
        ]
    facts.append(Fact('pixels changed from frame to frame', percent(summary['changed_pixels'])))
    facts.append(time_fact(summary['timing_ms'], 'frame'))
    return facts


def confusion_section(names: Sequence[str], confusion: Counts) -> Section:
    """Return the confusion matrix as a table, or where it is too large as a picture."""
    table = tables.confusion_table(names, confusion)
    return Section(
        'confusion',
        'Confusion',
        tables=[t for t in (table, tables.confused_pairs(names, confusion)) if t and t.rows],
        matrix=tables.confusion_matrix_cells(names, confusion),
    )


def live_section(summary: Mapping[str, Any]) -> Section:
    """Return how the node fared."""
    live = summary['live']
    stages = tables.stage_table(live['node']['stages_ms'], 'Time by stage in the node')
    shown = [tables.clock_table(live), stages, tables.count_table(live)]
    return Section('node', 'Node', tables=[table for table in shown if table.rows])


def time_section(
    totals_ms: Sequence[float], names: Sequence[str], timing: Mapping[str, Any], what: str
) -> Section:
    """Return how long images or frames took."""
    return Section(
        'time',
        'Time',
        charts=[
            histogram(f'{what.capitalize()} by time', totals_ms, milliseconds),
            timeline(f'Time by {what[:-1]}', totals_ms, names, milliseconds),
        ],
        tables=[tables.stage_table(timing)],
    )


def time_fact(timing: Mapping[str, Mapping[str, float]], what: str) -> Fact:
    p50, p95 = (milliseconds(timing['total'][key]) for key in ('p50', 'p95'))
    return Fact(f'time per {what}, median', p50, f'p95 {p95}')


def about_section(run: Mapping[str, Any]) -> Section:
    return Section(
        'about',
        'Configuration and versions',
        tables=[tables.settings_table(run['config']), tables.version_table(run['versions'])],
    )


def milliseconds(value: float) -> str:
    """Write a time."""
    return f'{value:,.1f} ms' if value < 100 else f'{value:,.0f} ms'


def gallery(title: str, shots: Sequence[Shot], names: Sequence[str]) -> Gallery:
    """Show images with their labels and the names of the colours in them."""
    figures = [
        Figure(
            shot.name,
            shot.about,
            shot.pictures(),
            [(names[class_id], tables.colour_of(class_id)) for class_id in shot.ids()],
        )
        for shot in shots
    ]
    with_truth = any(shot.truth is not None for shot in shots)
    note = (
        'In the error pictures wrong pixels are red, plain grey ones do not count.'
        if with_truth
        else ''
    )
    return Gallery(title, note, figures)


def render(
    title: str,
    summary: Mapping[str, Any],
    note: str,
    facts: Sequence[Fact],
    sections: Sequence[Section],
) -> str:
    """Fill in the template; every text is escaped there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (FOLDER / 'report.js').read_text(encoding='utf-8')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')
    return environment.get_template('report.html.j2').render(
        title=title,
        encoder=summary['encoder'],
        note=note,
        facts=facts,
        sections=sections,
        script=script,
        script_hash=f'sha256-{digest}',
        style=(FOLDER / 'report.css').read_text(encoding='utf-8'),
    )
