"""`llmseg replay`: the camera frames of a bag through the segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmseg_ros.cli.common import (
    CommandError,
    parse_classes,
    percent,
    prepare_folder,
    print_table,
    printable,
    progress,
    resolve_config,
    write_json,
)
from llmseg_ros.cli.segment import load_segmenter

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

    from llmseg_ros.evaluation.replay import ReplayScores, TrueLabels
    from llmseg_ros.evaluation.result_bag import ResultBag
    from llmseg_ros.segmenter import Segmenter


def replay(
    bag: Annotated[
        Path, typer.Argument(metavar='BAG', help='A rosbag2 folder, or a .mcap, .db3 or .bag file.')
    ],
    classes: Annotated[
        str,
        typer.Option(help='Class names separated by commas, or a text file with one a line.'),
    ],
    image: Annotated[
        str, typer.Option(metavar='TOPIC', help='Camera topic, needed where there are several.')
    ] = '',
    labels: Annotated[
        str,
        typer.Option(
            metavar='TOPIC',
            help='True labels in the bag, with the stamps of their frames: value 0 is '
            'background, 1 the first class.',
        ),
    ] = '',
    config: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Configuration.  [default: config/offline.yaml]'),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar='BAG', help='Write a new bag: all messages, and labels, masks and label map.'
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar='DIR', help='Write report.json into this folder.')
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Also write the numbers here.')
    ] = None,
) -> None:
    """Segment every camera frame of a bag, without ROS: the same result every time.

    Reports time by stage, share of the pixels by class, how much the labels change from frame
    to frame, and with --labels how right they are.

    \b
    Example:
      llmseg replay office.mcap --classes "chair, person" --out segmented --report result
    """
    names = parse_classes(classes)
    path = resolve_config(config)
    if report:
        prepare_folder(report)
    from llmseg_ros.evaluation.bag import find_image_connections, opened_bag
    from llmseg_ros.evaluation.replay import ReplayScores, TrueLabels
    from llmseg_ros.evaluation.report import replay_report
    from llmseg_ros.evaluation.result_bag import result_bag

    with ExitStack() as stack:
        reader = stack.enter_context(opened_bag(bag))
        camera = find_image_connections(reader, image, other_than=labels)
        truth = TrueLabels(reader, labels) if labels else None
        written = stack.enter_context(result_bag(out, reader)) if out else None
        segmenter = load_segmenter(path, names)
        scores = ReplayScores(['background', *(c.name for c in segmenter.vocabulary.classes)])
        run(reader, camera, segmenter, truth, written, scores)
    summary = replay_report(bag.stem, camera[0].topic, segmenter, scores)
    print_summary(summary)
    for target in (report and report / 'report.json', json):
        if target:
            write_json(target, summary)


def run(
    reader: AnyReader,
    camera: Sequence[Connection],
    segmenter: Segmenter,
    truth: TrueLabels | None,
    out: ResultBag | None,
    scores: ReplayScores,
) -> None:
    """Segment the frames, count them into `scores`, and write the new bag.

    Raises:
        BagError: a frame or its true labels can't be used, or no frame has true labels.
    """
    from llmseg_ros.evaluation.replay import replay_frames

    others = [c for c in reader.connections if c.topic != camera[0].topic] if out else []
    total = sum(connection.msgcount for connection in camera)
    if out:
        out.write_label_map(segmenter.vocabulary, reader.start_time)
    with progress(total, 'frames') as advance:
        for message, frame, result in replay_frames(reader, camera, others, segmenter):
            if out:
                out.write_message(message)
            if frame is None or result is None:
                continue
            scores.add(result, truth.find(frame, len(scores.names)) if truth else None)
            if out:
                out.write_result(frame, result, message.time)
            advance()
    if truth and not scores.labelled:
        raise CommandError('no label image has the stamp of a camera frame')


def print_summary(summary: dict[str, Any]) -> None:
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
