"""report.html of an evaluation: settings, classes, images, time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmseg_ros.encoders import EncoderUnavailable
from llmseg_ros.evaluation.boxes import BoxedDataset
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores
from llmseg_ros.evaluation.variants import Known, Variant, make_variants
from llmseg_ros.reports import tables
from llmseg_ros.reports.charts import Chart, histogram, timeline
from llmseg_ros.reports.pictures import (
    Shot,
    image_ious,
    segment_boxed,
    segment_samples,
    worst_and_best,
)
from llmseg_ros.reports.report_page import (
    Fact,
    Section,
    about_section,
    confusion_section,
    gallery,
    render,
    time_fact,
    time_section,
)
from llmseg_ros.reports.tables import percent

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.encoders import Encoder
    from llmseg_ros.segmenter import Segmenter

NO_PICTURES = 'There are no pictures: the model is not on this machine.'


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
            tables=[
                tables.class_table(
                    dataset.names, dataset.first_id, confusion, run['class_presence_ap']
                )
            ],
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
    background = ' and background' if dataset.background else ''
    facts = [
        Fact('images', f'{summary["images"]:,}'),
        Fact('classes', f'{len(dataset.classes)}{background}'),
    ]
    facts += [
        Fact(title, percent(run[key]))
        for key, title in (
            ('miou', 'mIoU'),
            ('boundary_iou', 'boundary IoU'),
            ('pixel_accuracy', 'pixel accuracy'),
            ('mean_accuracy', 'mean accuracy'),
            ('presence_ap', 'presence AP'),
        )
    ]
    facts.append(time_fact(run['timing_ms'], 'image'))
    notes = [] if summary['complete'] else ['Not all images of the dataset are scored yet.']
    notes += [f'{sentence[0].upper()}{sentence[1:]}.' for sentence in summary['warnings']]
    return render(f'Evaluation on {summary["dataset"]}', summary, ' '.join(notes), facts, sections)


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
