"""`llmseg evaluate --boxes`: where masks lie in images with boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.cli.common import (
    check_rules,
    note,
    parse_classes_and_rules,
    percent,
    print_table,
    progress,
    waiting,
)
from llmseg_ros.files import prepare_folder, write_json

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig


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
        CommandError: a rule of a class can't be used.
    """
    from llmseg_ros.evaluation.boxes import boxed_dataset, score_boxed_images

    names, rules = parse_classes_and_rules(classes)
    data = boxed_dataset(root, [name.strip() for name in names])
    check_rules(rules, data.classes)
    data = replace(data, images=data.images[:limit])
    if data.left_out:
        note(f'boxes left out, of no class: {", ".join(data.left_out)}')
    if report:
        prepare_folder(report)
    from llmseg_ros.evaluation.variants import load_with_known, look_up_subclasses

    settings, known = look_up_subclasses(settings, data.classes, progress)
    with waiting('loading the model'):
        import numpy as np

        from llmseg_ros.reports.report import boxes_report, write_report

        segmenter = load_with_known(settings, data.classes, known, rules)
    counts, laps = [], []
    with progress(len(data.images), 'images') as advance:
        for counts_c4, timings_ms in score_boxed_images(segmenter, data, workers):
            counts.append(counts_c4)
            laps.append(timings_ms)
            advance()
    summary = boxes_report(data, segmenter, np.array(counts), laps)
    print_boxes(summary)
    if report:
        with waiting('writing the report'):
            from llmseg_ros.reports.evaluation_page import write_up_boxes

            page = write_up_boxes(data, segmenter, summary, laps)
        write_report(report, summary, page)
    if json:
        write_json(json, summary)


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
