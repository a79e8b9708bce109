"""`llmseg evaluate --single`: one class at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmseg_ros.cli.common import INTERRUPTED, note, percent, print_table, progress, waiting
from llmseg_ros.files import write_json

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.evaluation.datasets import Dataset


def evaluate_single(
    data: Dataset, settings: SegmenterConfig, workers: int, json: Path | None
) -> None:
    """Score each class of a dataset as if nothing else were asked for.

    Raises:
        DatasetError: an image or its labels can't be used.
    """
    from llmseg_ros.evaluation.variants import find_subclasses, make_variants

    (variant,) = make_variants(settings, {})
    known = find_subclasses([variant], data.classes, progress, data.synonyms)
    with waiting('loading the model'):
        from llmseg_ros.evaluation.single import score_single, single_segmenters
        from llmseg_ros.reports.report import single_report

        segmenters = single_segmenters(variant.config, data.classes, known, data.rules)
    scores = []
    with progress(len(data.samples), 'images') as advance:
        try:
            for image in score_single(segmenters, data, workers):
                scores.append(image)
                advance()
        except KeyboardInterrupt:
            note(f'interrupted with {len(scores)} of {len(data.samples)} images scored')
    if not scores:
        raise typer.Exit(INTERRUPTED)
    summary = single_report(data, segmenters[0], scores)
    print_single(summary)
    if json:
        write_json(json, summary)
    if not summary['complete']:
        raise typer.Exit(INTERRUPTED)


def print_single(summary: dict[str, Any]) -> None:
    """Print a line per class and the mean."""
    rows = [(name, percent(iou)) for name, iou in summary['class_single_iou'].items()]
    rows.append(('mean over classes', percent(summary['single_miou'])))
    print_table(('class by itself', 'IoU'), rows)
    print(
        f'{summary["dataset"]}, {summary["images"]} images, {len(summary["classes"])} classes one '
        f'at a time; {summary["encoder"]}'
    )
