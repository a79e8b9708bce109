"""`llmseg replay`: the camera frames of a bag through the segmenter."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmseg_ros.cli.common import (
    INTERRUPTED,
    CommandError,
    ConfigOption,
    NumbersOption,
    RayWorkersOption,
    SubclassesOption,
    note,
    parse_classes,
    percent,
    print_table,
    printable,
    progress,
    require_ros,
    resolve_config,
    waiting,
)
from llmseg_ros.cli.evaluate import read_settings
from llmseg_ros.cli.segment import accepted_names
from llmseg_ros.files import prepare_folder, write_json

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

    from llmseg_ros.bags.replay import ReplayScores, Step, TrueLabels
    from llmseg_ros.bags.result_bag import ResultBag
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.reports.pictures import ReplayRecorder
    from llmseg_ros.ros.live_replay import Answer
    from llmseg_ros.segmentation import Segmentation

MODES = ('offline', 'lockstep', 'realtime')


def replay(
    bag: Annotated[
        Path,
        typer.Argument(
            metavar='BAG',
            help='A rosbag2 folder, a .mcap, .db3 or .bag file, or a folder with many of them.',
        ),
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
    config: ConfigOption = None,
    subclasses: SubclassesOption = 'configured',
    mode: Annotated[
        str,
        typer.Option(
            metavar='MODE',
            help='offline: here, the same every time. lockstep: by the node over ROS 2, each '
            'frame after the answer to the one before. realtime: by the node, at the pace of '
            'the bag, with /clock.',
        ),
    ] = 'offline',
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=100, help='realtime: seconds of the bag in a second.  [default: 1.0]'
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar='BAG', help='Write a new bag: all messages, and labels, masks and label map.'
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar='DIR',
            help='Write report.html, report.json and overlay.mp4 into this folder; of a folder of '
            'bags, into a folder for each bag, and a report on all of them.',
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            '--resume', help='Of a folder of bags: only those not yet in the --report folder.'
        ),
    ] = False,
    ray: Annotated[
        str,
        typer.Option(
            metavar='ADDRESS',
            help='A folder of bags on the Ray cluster at HOST:PORT; "local" is a process per GPU '
            'or CPU of this machine.',
        ),
    ] = '',
    ray_workers: RayWorkersOption = None,
    video: Annotated[
        bool,
        typer.Option(
            '--video/--no-video', help='overlay.mp4 takes some 20 ms of a CPU core a frame.'
        ),
    ] = True,
    json: NumbersOption = None,
) -> None:
    """Segment the camera frames of a bag.

    Reports time by stage, share of the pixels by class, how much the labels change from frame
    to frame, and with --labels how right they are; where the node does it, also its latency.

    \b
    Examples:
      llmseg replay office.mcap --classes "chair, person" --out segmented --report result
      llmseg replay BAGS --classes classes.txt --report results --ray local
    """
    check_mode(mode, rate)
    names = accepted_names(parse_classes(classes))
    path = resolve_config(config)
    settings = read_settings(path, '', {'subclasses': subclasses.replace('configured', '')})
    from llmseg_ros.reports.bag_folder import FolderReplay, is_folder_of_bags

    if is_folder_of_bags(bag):
        if mode != 'offline' or out or not report:
            raise typer.BadParameter(
                f'{printable(bag)} is a folder of bags: that needs --report DIR, and goes with '
                '--mode offline, without --out'
            )
        from llmseg_ros.cli.replay_folder import replay_folder

        task = FolderReplay(
            bag.absolute(), report.absolute(), settings, tuple(names), {}, image, labels, video
        )
        replay_folder(task, resume, ray, ray_workers, json)
        return
    if resume or ray or ray_workers:
        raise typer.BadParameter('--resume and --ray are for a folder of bags')
    if report:
        prepare_folder(report)
    from llmseg_ros.bags.reading import find_image_connections, opened_bag
    from llmseg_ros.bags.replay import TrueLabels
    from llmseg_ros.bags.result_bag import result_bag
    from llmseg_ros.reports.pictures import replay_recorder
    from llmseg_ros.reports.report import write_report
    from llmseg_ros.reports.report_page import replay_page

    recorder = None

    try:
        with ExitStack() as stack:
            reader = stack.enter_context(opened_bag(bag))
            camera = find_image_connections(reader, image, other_than=labels)
            truth = TrueLabels(reader, labels) if labels else None
            written = stack.enter_context(result_bag(out, reader)) if out else None
            if report:
                total = sum(connection.msgcount for connection in camera)
                recorder = stack.enter_context(replay_recorder(report, names, total, video))
            job = Job(bag, reader, camera, truth, written, recorder)
            if mode == 'offline':
                summary = replay_offline(job, settings, names)
            else:
                live_rate = None if mode == 'lockstep' else (rate or 1.0)
                summary = replay_live(job, path, settings, names, live_rate)
    except Interrupted as early:
        summary = early.summary
    print_summary(summary)
    if report and recorder:
        write_report(report, summary, replay_page(summary, recorder))
    if json:
        write_json(json, summary)
    if not summary['complete']:
        without = f', {printable(out)} is not written' if out else ''
        note(f'interrupted with {summary["frames"]} frames done{without}')
        raise typer.Exit(INTERRUPTED)


class Interrupted(Exception):
    """Ctrl-C ended the replay early.

    Attributes:
        summary: of what was done until then.
    """

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__()
        self.summary = summary


@dataclass(frozen=True)
class Job:
    """What is replayed.

    Attributes:
        bag: as it was named.
        reader: of the open bag.
        camera: connections of the camera's topic.
        truth: true labels, where there are any.
        out: new bag, where one is wanted.
        recorder: of what the report shows, where one is wanted.
    """

    bag: Path
    reader: AnyReader
    camera: Sequence[Connection]
    truth: TrueLabels | None
    out: ResultBag | None
    recorder: ReplayRecorder | None

    @property
    def others(self) -> list[Connection]:
        """The connections whose messages go into the new bag as they are."""
        if self.out is None:
            return []
        return [c for c in self.reader.connections if c.topic != self.camera[0].topic]


def check_mode(mode: str, rate: float | None) -> None:
    """Check what can be seen before anything is read.

    Raises:
        typer.BadParameter: there is no such mode, or it has no rate.
        CommandError: ROS 2 is missing for it.
    """
    if mode not in MODES:
        raise typer.BadParameter(f'--mode takes {", ".join(MODES)}, not {printable(mode)}')
    if rate is not None and mode != 'realtime':
        raise typer.BadParameter('--rate is for --mode realtime')
    if mode != 'offline':
        require_ros(f'--mode {mode}')


def replay_offline(job: Job, settings: SegmenterConfig, names: Sequence[str]) -> dict[str, Any]:
    """Segment the frames here; return the report.

    Raises:
        SubclassesError: the language model gave no answer.
        BagError: a frame or its true labels can't be used.
        Interrupted: by Ctrl-C, after some frames.
    """
    from llmseg_ros.bags.replay import ReplayScores, replay_frames
    from llmseg_ros.evaluation.variants import load_with_known, look_up_subclasses
    from llmseg_ros.reports.report import offline_report

    settings, known = look_up_subclasses(settings, names, progress)
    with waiting('loading the model'):
        segmenter = load_with_known(settings, names, known)
    scores = ReplayScores(['background', *names])
    if job.out:
        job.out.write_label_map(segmenter.vocabulary, job.reader.start_time)

    def write(out: ResultBag, step: Step[Segmentation]) -> None:
        if step.frame and step.result:
            out.write_result(step.frame, step.result, step.message.time)

    steps = replay_frames(job.reader, job.camera, job.others, segmenter)
    begin = time.perf_counter()
    complete = count_frames(job, steps, scores, write)
    wall_s = time.perf_counter() - begin
    topic = job.camera[0].topic
    return checked(offline_report(job.bag.stem, topic, segmenter, scores, wall_s, complete))


def checked(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary that is complete.

    Raises:
        Interrupted: it is not.
    """
    if not summary['complete']:
        raise Interrupted(summary)
    return summary


def replay_live(
    job: Job, config: Path, settings: SegmenterConfig, names: Sequence[str], rate: float | None
) -> dict[str, Any]:
    """Play the frames into the node, at a rate or each after the answer before it; report.

    Raises:
        SubclassesError: the language model gave no answer.
        LiveReplayError: the node failed.
        CommandError: it answered nothing.
        BagError: a frame or its true labels can't be used.
        Interrupted: by Ctrl-C, after some frames.
    """
    from llmseg_ros.bags.replay import ReplayScores
    from llmseg_ros.bags.topics import LABEL_MAP_TOPIC
    from llmseg_ros.evaluation.variants import look_up_subclasses
    from llmseg_ros.reports.report import replay_report
    from llmseg_ros.ros import live_replay

    settings, _ = look_up_subclasses(settings, names, progress)
    # What the language model has answered is in the store: no answer comes amid the frames.
    asked = replace(settings, subclasses=replace(settings.subclasses, llm='off'))
    scores = ReplayScores(['background', *names])

    def write(out: ResultBag, step: Step[Answer]) -> None:
        if step.result:
            for topic, raw in step.result.messages.items():
                out.write_raw(topic, raw, step.message.time)

    with tempfile.TemporaryDirectory(prefix='llmseg_replay_') as name:
        folder = Path(name)
        live_replay.write_parameters(
            folder / live_replay.PARAMETERS, config, asked, names, live=rate is not None
        )
        played_all = play(job, folder, rate)
        with live_replay.opened_answers(folder) as answers:
            if job.out and (label_map := answers.label_map()):
                job.out.write_raw(LABEL_MAP_TOPIC, label_map, job.reader.start_time)
            steps = live_replay.answered_frames(job.reader, job.camera, job.others, answers)
            complete = count_frames(job, steps, scores, write) and played_all
            live = live_replay.live_numbers(answers.played, answers.arrivals)
    encoder = answers.played.encoder
    summary = replay_report(job.bag.stem, job.camera[0].topic, encoder, settings, scores)
    mode = 'lockstep' if rate is None else 'realtime'
    return checked(summary | {'mode': mode, 'complete': complete, 'live': live})


def play(job: Job, folder: Path, rate: float | None) -> bool:
    """Play the camera into the node, showing how far it is; False where Ctrl-C ended it.

    Raises:
        LiveReplayError: the node or the player failed.
    """
    from llmseg_ros.bags.reading import COMPRESSED_TYPE, full_type
    from llmseg_ros.ros import live_replay

    total, done = sum(connection.msgcount for connection in job.camera), 0
    with progress(total, 'frames') as advance:

        def say(line: str) -> None:
            nonlocal done
            while line.isdecimal() and done < int(line):
                advance()
                done += 1

        camera = job.camera[0]
        compressed = full_type(camera) == COMPRESSED_TYPE
        wants_masks = job.out is not None
        return live_replay.play(job.bag, camera.topic, folder, say, compressed, wants_masks, rate)


def count_frames(
    job: Job,
    steps: Iterable[Step[Any]],
    scores: ReplayScores,
    write_result: Callable[[ResultBag, Step[Any]], None],
) -> bool:
    """Count the frames into `scores` and write the new bag; return whether all could be.

    Raises:
        BagError: a frame or its true labels can't be used.
        CommandError: no frame was answered.
        KeyboardInterrupt: before the first was done.
    """
    from llmseg_ros.bags.replay import count_steps

    def write(step: Step[Any]) -> None:
        if job.out:
            job.out.write_message(step.message)
            write_result(job.out, step)

    total = sum(connection.msgcount for connection in job.camera)
    show = job.recorder.add if job.recorder else None
    with progress(total, 'frames') as advance:
        try:
            for _ in count_steps(steps, job.truth, scores, write, show):
                advance()
        except KeyboardInterrupt:
            if not scores.frames:
                raise
            return False
    if not scores.frames:
        raise CommandError('no frame was answered')
    return True


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
    if 'live' in summary:
        print_live(summary['live'])


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
