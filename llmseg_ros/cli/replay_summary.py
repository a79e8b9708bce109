"""What a replay prints in the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmseg_ros.cli.common import percent, print_table, printable

SHOWN = 5  # messages that could not be used; the report has more


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print a line per class, and what holds for the whole bag."""
    rows = [
        (
            name,
            percent(share),
            summary['presence_changes'][name],
            percent(summary['class_iou'][name]),
        )
        for name, share in summary['class_share'].items()
    ]
    has_truth = summary['labelled_frames'] > 0
    columns = ('class', 'share of pixels %', 'appeared or vanished', 'IoU %')
    width = len(columns) - (not has_truth)
    print_table(columns[:width], [row[:width] for row in rows])
    total = summary['timing_ms']['total']
    print(
        f'{summary["frames"]} frames of {printable(summary["image_topic"])}: '
        f'p50 {total["p50"]} ms, p95 {total["p95"]} ms; '
        f'{percent(summary["changed_pixels"])} % of the pixels change from frame to frame; '
        f'{summary["encoder"]}'
    )
    if has_truth:
        print(
            f'{summary["labelled_frames"]} frames with true labels: '
            f'mIoU {percent(summary["miou"])}, pixel accuracy {percent(summary["pixel_accuracy"])}'
        )
    for apart, of in summary.get('view_agreement', {}).items():
        if of['pairs']:
            print(
                f'views {apart} apart: {percent(of["agreement"])} % of {of["places"]} places have '
                f'the same label in both, {percent(of["class_agreement"])} % of those that are not '
                f'background in both; depth differs by {of["depth_difference_mm"]} mm'
            )
    print_rejections(summary)
    if 'live' in summary:
        print_live(summary['live'])


def print_rejections(summary: Mapping[str, Any]) -> None:
    """Print how many messages could not be used, the first of them, and what else was odd."""
    frames, labels = summary['rejected_frames'], summary['rejected_labels']
    if frames:
        print(f'rejected: {frames} of {frames + summary["frames"]} frames')
    if labels:
        print(f'rejected: {labels} label images')
    for rejected in summary.get('rejections', ())[:SHOWN]:
        stamp = rejected['stamp']
        when = f'recorded at {rejected["recorded"]}' if stamp is None else f'stamp {stamp}'
        print(f'  {printable(rejected["topic"])}, {when}: {printable(rejected["reason"])}')
    for sentence in summary.get('notes', ()):
        print(printable(sentence))


def print_live(live: dict[str, Any]) -> None:
    """Print how the node fared, and in which clock."""
    wall = live['wall_clock']
    latency = wall['latency_ms']
    print(
        f'{live["frames_out"]} of {live["frames_in"]} frames answered by the node; latency '
        f'p50 {latency["p50"]} ms, p95 {latency["p95"]} ms, max {latency["max"]} ms'
    )
    if 'bag_clock' in live:
        age = live['bag_clock']['age_ms']
        print(
            f'in {or_dash(wall["in_hz"])} Hz, out {or_dash(wall["out_hz"])} Hz, '
            f'jitter {or_dash(wall["jitter_ms"])} ms; age of the results by the clock of the bag '
            f'p50 {age["p50"]} ms, p95 {age["p95"]} ms, max {age["max"]} ms'
        )


def or_dash(value: float | None) -> str:
    """Return a number, and a dash where it is undefined."""
    return '-' if value is None else str(value)
