"""`llmseg replay`: the camera frames of a bag through the segmenter."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from llmseg_ros.cli.common import (
    INTERRUPTED,
    ConfigOption,
    DepthOption,
    NumbersOption,
    OdometryOption,
    RayWorkersOption,
    SubclassesOption,
    note,
    printable,
    require_ros,
    resolve_config,
)
from llmseg_ros.cli.replay_bag import (
    Interrupted,
    Job,
    find_geometry,
    replay_live,
    replay_offline,
)
from llmseg_ros.cli.replay_summary import print_summary
from llmseg_ros.cli.segment import accepted_classes
from llmseg_ros.cli.settings import read_settings
from llmseg_ros.files import prepare_folder, write_json

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
        typer.Option(help='Class names separated by commas, or a class file.'),
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
    depth: DepthOption = '',
    odometry: OdometryOption = '',
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
            metavar='BAG',
            help='Write a new bag: all messages, and labels, masks and label map; offline, where '
            'there is depth, the labelled cloud too.',
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
    With --out or --report, where the bag has depth and poses, also how well views of one place
    agree.

    \b
    Examples:
      llmseg replay office.mcap --classes "chair, person" --out segmented --report result
      llmseg replay BAGS --classes classes.txt --report results --ray local
    """
    check_mode(mode, rate)
    names, rules = accepted_classes(classes)
    path = resolve_config(config)
    settings = read_settings(path, '', {'subclasses': subclasses.replace('configured', '')})
    from llmseg_ros.reports.bag_folder import FolderReplay, is_folder_of_bags

    if is_folder_of_bags(bag):
        if mode != 'offline' or out or depth or odometry or not report:
            raise typer.BadParameter(
                f'{printable(bag)} is a folder of bags: that needs --report DIR, and goes with '
                '--mode offline, without --out, --depth and --odometry'
            )
        from llmseg_ros.cli.replay_folder import replay_folder

        task = FolderReplay(
            bag.absolute(),
            report.absolute(),
            settings,
            tuple(names),
            known={},
            rules=rules,
            image=image,
            labels=labels,
            video=video,
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
    from llmseg_ros.reports.replay_page import replay_page
    from llmseg_ros.reports.report import write_report

    recorder = None

    try:
        with ExitStack() as stack:
            reader = stack.enter_context(opened_bag(bag))
            camera = find_image_connections(reader, image, other_than=labels or depth)
            truth = TrueLabels(reader, labels) if labels else None
            geometry = find_geometry(reader, camera[0].topic, depth, odometry, bool(out or report))
            with_points = geometry is not None and mode == 'offline'
            written = stack.enter_context(result_bag(out, reader, with_points)) if out else None
            if report:
                total = sum(connection.msgcount for connection in camera)
                recorder = stack.enter_context(replay_recorder(report, names, total, video))
            job = Job(bag, reader, camera, truth, written, recorder, geometry)
            if mode == 'offline':
                summary = replay_offline(job, settings, names, rules)
            else:
                live_rate = None if mode == 'lockstep' else (rate or 1.0)
                summary = replay_live(job, path, settings, names, rules, live_rate)
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
