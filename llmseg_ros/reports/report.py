"""What is written down about an evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.class_rules import as_given, in_report
from llmseg_ros.evaluation import boxes, metrics
from llmseg_ros.evaluation.boxes import BoxedDataset
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.evaluate import (
    ImageScores,
    RunScore,
    Variant,
    presence_of,
    sum_boundaries,
    sum_cells,
)
from llmseg_ros.evaluation.single import SingleScores, single_iou
from llmseg_ros.evaluation.versions import versions
from llmseg_ros.files import replacing, write_json, writing

if TYPE_CHECKING:
    from llmseg_ros.bags.scores import ReplayScores
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.segmenter import Segmenter

DIGITS = 6
MANY_IGNORED = 0.1  # of the pixels; the borders of PASCAL VOC are half as many
NAMES_SHOWN = 5


def evaluation_report(
    dataset: Dataset, variants: Sequence[Variant], encoder: str, scores: Sequence[ImageScores]
) -> dict[str, Any]:
    """Sum up the images scored: one run's report, or several under `runs`."""
    truth_n = sum_cells((image.runs[0] for image in scores), len(dataset.names)).sum(axis=1)
    ignored = sum(image.ignored for image in scores)
    common = {
        'dataset': dataset.name,
        'images': len(scores),
        'complete': len(scores) == len(dataset.samples),
        'ignored_share': number(ignored / max(1, int(truth_n.sum()) + ignored)),
        'warnings': truth_warnings(dataset.classes, truth_n[1:], ignored, int(truth_n.sum())),
        'classes': list(dataset.names[dataset.first_id :]),
        'encoder': encoder,
        **in_report(dataset.rules),
        'versions': versions(),
    }
    runs = [
        run_report(dataset, variant, [image.runs[index] for image in scores])
        for index, variant in enumerate(variants)
    ]
    if len(variants) == 1:
        return {**common, **runs[0]}
    return {**common, 'runs': [{**common, **run} for run in runs]}


def truth_warnings(
    classes: Sequence[str], truth_c: NDArray[np.int64], ignored: int, counted: int
) -> list[str]:
    """Say where scores are of little worth because the truth has few of the classes.

    Masks are often drawn with 0 and 255, and 255 does not count: all that is left is background,
    which anything gets right.

    Args:
        classes: without the background.
        truth_c: pixels of each in the labels.
        ignored: pixels that don't count.
        counted: pixels that do.
    """
    absent = [name for name, pixels in zip(classes, truth_c, strict=True) if not pixels]
    share = ignored / max(1, ignored + counted)
    if not absent or not ignored or (len(absent) < len(classes) and share < MANY_IGNORED):
        return []
    more = ' ...' if len(absent) > NAMES_SHOWN else ''
    sentence = (
        f'{len(absent)} of {len(classes)} classes have no pixel in the labels '
        f'({", ".join(absent[:NAMES_SHOWN])}{more}), and {100 * share:.1f} % of the pixels do not '
        'count: the scores say nothing about these classes'
    )
    if len(absent) == len(classes):
        sentence += (
            '; where masks are drawn with 0 and 255, write the value before each name in '
            'classes.txt, as in `255 person`, and give --ignore 254'
        )
    return [sentence]


def run_report(dataset: Dataset, variant: Variant, scores: Sequence[RunScore]) -> dict[str, Any]:
    """Return the metrics and timings of one variant; a value that is undefined is None."""
    confusion = sum_cells(scores, len(dataset.names))
    overlaps = sum_boundaries(scores, len(dataset.names))
    first = dataset.first_id
    iou_n = metrics.class_iou(confusion)[first:].tolist()
    presence_ic, shown_ic = presence_of(scores, len(dataset.classes))
    presence_ap_c = [
        metrics.average_precision(*pair) for pair in zip(presence_ic.T, shown_ic.T, strict=True)
    ]
    return {
        'name': variant.name,
        'miou': number(metrics.mean_iou(confusion, first)),
        'pixel_accuracy': number(metrics.pixel_accuracy(confusion)),
        'mean_accuracy': number(metrics.mean_accuracy(confusion)),
        'boundary_iou': number(metrics.boundary_iou(overlaps, first)),
        'frequency_weighted_iou': number(metrics.frequency_weighted_iou(confusion)),
        'presence_ap': number(metrics.average_precision(presence_ic, shown_ic)),
        'class_iou': dict(zip(dataset.names[first:], map(number, iou_n), strict=True)),
        'class_presence_ap': dict(zip(dataset.classes, map(number, presence_ap_c), strict=True)),
        'confusion': {'names': list(dataset.names), 'pixels': confusion.tolist()},
        'timing_ms': timing([score.timings_ms for score in scores]),
        'config': dataclasses.asdict(variant.config),
    }


def boxes_report(
    dataset: BoxedDataset,
    segmenter: Segmenter,
    counts_nc4: NDArray[np.int64],
    laps: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Sum up images with boxes; means are over the classes for which a value is defined."""
    counts_c4 = counts_nc4.sum(axis=0)
    report: dict[str, Any] = {
        'dataset': dataset.name,
        'images': len(counts_nc4),
        'complete': len(counts_nc4) == len(dataset.images),
        'classes': list(dataset.classes),
        'encoder': segmenter.encoder.name,
        **in_report(as_given(segmenter.vocabulary.rules)),
        'versions': versions(),
    }
    for key, values_c in (
        ('pointing_accuracy', boxes.pointing_accuracy(counts_c4)),
        ('mask_in_box', boxes.mask_in_box(counts_c4)),
    ):
        defined = values_c[~np.isnan(values_c)]
        report[key] = number(float(defined.mean())) if len(defined) else None
        report[f'class_{key}'] = dict(
            zip(dataset.classes, map(number, values_c.tolist()), strict=True)
        )
    images_c = counts_c4[:, boxes.SHOWN].tolist()
    report['class_images'] = dict(zip(dataset.classes, images_c, strict=True))
    report['timing_ms'] = timing(laps)
    report['config'] = dataclasses.asdict(segmenter.config)
    return report


def single_report(
    dataset: Dataset, segmenter: Segmenter, scores: Sequence[SingleScores]
) -> dict[str, Any]:
    """Sum up images scored one class at a time; the mean is over the classes that occur."""
    pixels_c3 = np.sum([image.pixels_c3 for image in scores], axis=0)
    iou_c = single_iou(pixels_c3)
    return {
        'dataset': dataset.name,
        'images': len(scores),
        'complete': len(scores) == len(dataset.samples),
        'classes': list(dataset.classes),
        'encoder': segmenter.encoder.name,
        **in_report(dataset.rules),
        'versions': versions(),
        'single_miou': number(metrics.mean_of_present(iou_c)),
        'class_single_iou': dict(zip(dataset.classes, map(number, iou_c.tolist()), strict=True)),
        'timing_ms': timing([image.timings_ms for image in scores]),
        'config': dataclasses.asdict(segmenter.config),
    }


def timing(laps: Iterable[Any]) -> dict[str, dict[str, float]]:
    """Return the median and 95th percentile by stage and of the whole."""
    by_stage: dict[str, list[float]] = {}
    for timings_ms in laps:
        for stage, value in {**timings_ms, 'total': sum(timings_ms.values())}.items():
            by_stage.setdefault(stage, []).append(value)
    return {stage: percentiles(values) for stage, values in by_stage.items()}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {'p50': round(float(p50), 2), 'p95': round(float(p95), 2)}


def number(value: float) -> float | None:
    """Return a value as JSON has it: NaN is None."""
    return None if math.isnan(value) else round(value, DIGITS)


def write_report(folder: Path, summary: Mapping[str, Any], page: str) -> None:
    """Write report.html and report.json so that they are there complete or not at all.

    Raises:
        WriteError: they can't be written.
    """
    path = folder / 'report.html'
    with writing(path), replacing(path) as partial:
        partial.write_text(page, encoding='utf-8', errors='backslashreplace')
        write_json(folder / 'report.json', summary)


def replay_report(
    bag: str, topic: str, encoder: str, config: SegmenterConfig, scores: ReplayScores
) -> dict[str, Any]:
    """Sum up the frames of a bag, or of several."""
    return {
        'dataset': bag,
        'image_topic': topic,
        'classes': list(scores.names),
        'encoder': encoder,
        'versions': versions(),
        **frames_report(scores),
        'config': dataclasses.asdict(config),
    }


def frames_report(scores: ReplayScores) -> dict[str, Any]:
    """Return what was counted over frames; what needs true labels is None where there are none."""
    confusion = scores.confusion

    def by_name(values_n: NDArray[Any]) -> dict[str, Any]:
        return dict(zip(scores.names, values_n.tolist(), strict=True))

    shares_n = scores.pixels_n / scores.pixels_n.sum()
    changed = scores.changed / scores.compared if scores.compared else float('nan')
    return {
        'frames': scores.frames,
        'rejected_frames': scores.rejected,
        'rejected_labels': scores.rejected_labels,
        'rejections': [rejection._asdict() for rejection in scores.rejections],
        'labelled_frames': scores.labelled,
        'miou': number(metrics.mean_iou(confusion)),
        'pixel_accuracy': number(metrics.pixel_accuracy(confusion)),
        'class_iou': {k: number(v) for k, v in by_name(metrics.class_iou(confusion)).items()},
        'class_share': {k: number(v) for k, v in by_name(shares_n).items()},
        'changed_pixels': number(changed),
        'presence_changes': by_name(scores.presence_changes_n),
        'timing_ms': {stage: percentiles(ms) for stage, ms in scores.timings_ms.items()},
    }


def offline_report(
    bag: str,
    topic: str,
    segmenter: Segmenter,
    scores: ReplayScores,
    wall_s: float,
    complete: bool = True,
) -> dict[str, Any]:
    """Return the report on a bag that was segmented in this process."""
    seconds = {
        'wall': round(wall_s, 3),
        'segmenting': round(sum(scores.timings_ms['total']) / 1000, 3),
    }
    summary = replay_report(bag, topic, segmenter.encoder.name, segmenter.config, scores)
    rules = in_report(as_given(segmenter.vocabulary.rules))
    return summary | rules | {'mode': 'offline', 'complete': complete, 'seconds': seconds}
