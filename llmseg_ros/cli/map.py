"""`llmseg map`: camera frames with depth and poses into a labelled map."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from llmseg_ros.cli.common import (
    INTERRUPTED,
    CommandError,
    ConfigOption,
    DepthOption,
    NumbersOption,
    OdometryOption,
    SubclassesOption,
    ended_by_interrupt,
    note,
    percent,
    print_table,
    printable,
    progress,
    resolve_config,
    uninterrupted,
    waiting,
)
from llmseg_ros.cli.segment import accepted_classes
from llmseg_ros.cli.settings import read_settings
from llmseg_ros.files import prepare_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmseg_ros.mapping.agreement import AgreementMeter
    from llmseg_ros.mapping.rgbd import RgbdFrame
    from llmseg_ros.mapping.voxels import VoxelMap
    from llmseg_ros.segmenter import Segmenter


@dataclass
class Source:
    """Frames with depth and pose.

    Attributes:
        name: of the bag or folder.
        camera: topic or folder of the images.
        total: about how many frames there are.
        frames: in order.
        world: asks for the name of the frame that the map is in, once a frame was read.
        left_out: says what could not be used, once all were read.
    """

    name: str
    camera: str
    total: int
    frames: Iterator[RgbdFrame]
    world: Callable[[], str]
    left_out: Callable[[], str]


def build_map(
    source: Annotated[
        Path,
        typer.Argument(
            metavar='SOURCE',
            help='A bag with image, depth, camera_info and /tf or odometry, or a folder with '
            'color/, depth/, intrinsics.json and trajectory.log or trajectory.txt.',
        ),
    ],
    classes: Annotated[
        str,
        typer.Option(help='Class names separated by commas, or a class file.'),
    ],
    out: Annotated[Path, typer.Option(metavar='DIR', help='Where the map and its report go.')],
    voxel: Annotated[
        float, typer.Option(min=0.001, max=10, help='Edge of a voxel in metres.')
    ] = 0.05,
    farthest: Annotated[
        float, typer.Option(min=0.01, help='Depth beyond, in metres, stays out of the map.')
    ] = 5.0,
    limit: Annotated[
        int,
        typer.Option(min=1000, help='Voxels at most: the region seen longest ago goes first.'),
    ] = 2_000_000,
    image: Annotated[
        str,
        typer.Option(
            metavar='TOPIC', help='Camera topic of a bag, needed where there are several.'
        ),
    ] = '',
    depth: DepthOption = '',
    odometry: OdometryOption = '',
    frame: Annotated[
        str,
        typer.Option(
            metavar='FRAME', help='The map is in this frame of tf.  [default: the topmost]'
        ),
    ] = '',
    config: ConfigOption = None,
    subclasses: SubclassesOption = 'configured',
    json: NumbersOption = None,
) -> None:
    """Build a labelled map of camera frames with depth and poses.

    Writes map.ply (position, colour, label, probability and views of every voxel), classes.json
    (what the labels mean), top.png, view_left.png, view_right.png, and report.html, where the
    cloud can be turned, with report.json. Ctrl-C ends early with a whole map.

    \b
    Examples:
      llmseg map office.mcap --classes "chair, table, floor" --out office_map
      llmseg map kitchen/ --classes classes.txt --voxel 0.02 --out kitchen_map
    """
    names, rules = accepted_classes(classes)
    settings = read_settings(
        resolve_config(config), '', {'subclasses': subclasses.replace('configured', '')}
    )
    from llmseg_ros.evaluation.variants import load_with_known, look_up_subclasses
    from llmseg_ros.mapping.agreement import AgreementMeter
    from llmseg_ros.mapping.voxels import VoxelMap

    topics = Topics(image, depth, odometry, frame)
    with opened_source(source, topics, settings.images.sixteen_bit) as frames:
        settings, known = look_up_subclasses(settings, names, progress)
        prepare_folder(out)
        with waiting('loading the model'):
            segmenter = load_with_known(settings, names, known, rules)
        voxels = VoxelMap(voxel, limit)
        mapping = Mapping(frames, segmenter, names, voxels, AgreementMeter(keep_places=True))
        complete = mapping.run(farthest)
        with uninterrupted():
            summary = mapping.write(out, complete)
    print_map(summary)
    if json:
        write_json(json, summary)
    if not complete:
        note(f'interrupted: the map has the first {summary["frames"]} frames')
        raise typer.Exit(INTERRUPTED)


class Topics(NamedTuple):
    """What of a bag is used, each as named on the command line or ''."""

    image: str
    depth: str
    odometry: str
    frame: str


@contextmanager
def opened_source(path: Path, topics: Topics, sixteen_bit: str) -> Iterator[Source]:
    """Open a bag or a folder of RGB-D frames; sixteen_bit says how 16 bits become 8.

    Raises:
        BagError: the bag can't be used.
        RgbdError: the folder can't be used.
        CommandError: the folder is neither.
        typer.BadParameter: topics are named for a folder.
    """
    from llmseg_ros.mapping.rgbd_folder import is_rgbd_folder, open_rgbd_folder, read_rgbd_folder

    if is_rgbd_folder(path):
        if any(topics):
            raise typer.BadParameter(
                '--image, --depth, --odometry and --frame are for a bag, '
                f'{printable(path)} is a folder of images'
            )
        folder = open_rgbd_folder(path)
        without = sum(f.pose is None for f in folder.frames)
        yield Source(
            path.resolve().name,
            'color',
            len(folder.frames) - without,
            read_rgbd_folder(folder, sixteen_bit),
            lambda: 'of the trajectory',
            lambda: f'{without} frames without pose' if without else '',
        )
        return
    from llmseg_ros.bags.files import METADATA, is_bag_file

    if path.is_dir() and not any(p.name == METADATA or is_bag_file(p) for p in path.iterdir()):
        raise CommandError(
            f'{printable(path)} is neither a bag nor a folder of RGB-D frames, which has color/, '
            'depth/, intrinsics.json and a trajectory'
        )
    from llmseg_ros.bags.depth import (
        BagDepth,
        find_depth_topics,
        only_depth_topic,
        read_rgbd_frames,
    )
    from llmseg_ros.bags.reading import find_image_connections, opened_bag

    with opened_bag(path) as reader:
        depth = topics.depth or only_depth_topic(reader, topics.image)
        camera = find_image_connections(reader, topics.image, other_than=depth)
        topic = camera[0].topic
        chosen = find_depth_topics(reader, topic, depth, topics.odometry)
        found = BagDepth(reader, chosen, topics.frame)
        found.require_poses()
        yield Source(
            path.stem,
            topic,
            sum(connection.msgcount for connection in camera),
            read_rgbd_frames(reader, camera, found, sixteen_bit),
            lambda: found.world,
            found.missing_in_words,
        )


class Mapping:
    """Frames on their way into a map, and what is reported of them."""

    def __init__(
        self,
        source: Source,
        segmenter: Segmenter,
        names: Sequence[str],
        voxels: VoxelMap,
        meter: AgreementMeter,
    ) -> None:
        from llmseg_ros.bags.replay import ReplayScores
        from llmseg_ros.reports.pictures import ReplayRecorder

        labels = ['background', *names]
        self.source = source
        self.segmenter = segmenter
        self.voxels = voxels
        self.meter = meter
        self.scores = ReplayScores(labels)
        self.recorder = ReplayRecorder(labels, source.total, None)
        self.poses: list[Any] = []
        self.seconds = 0.0

    def run(self, farthest_m: float) -> bool:
        """Map the frames; return whether all were, False after Ctrl-C.

        A frame is in the map as a whole: Ctrl-C ends after it.

        Raises:
            CommandError: no frame could be used.
            KeyboardInterrupt: by a second Ctrl-C.
        """
        from llmseg_ros.bags.replay import Frame
        from llmseg_ros.mapping.mapper import map_frames

        begin = time.perf_counter()
        with ended_by_interrupt() as ended, progress(self.source.total, 'frames') as advance:
            for frame, result in map_frames(
                self.source.frames, self.segmenter, self.voxels, self.meter, farthest_m
            ):
                self.scores.add(result, None)
                self.recorder.add(Frame(frame.stamp, None, frame.rgb), result, None)
                self.poses.append(frame.pose)
                advance()
                if ended.is_set():
                    break
        self.seconds = time.perf_counter() - begin
        if not self.scores.frames:
            raise CommandError(
                f'no frame of {printable(self.source.name)} can be used: {self.source.left_out()}'
            )
        return not ended.is_set()

    def write(self, out: Path, complete: bool) -> dict[str, Any]:
        """Write map, pictures and report; return the summary.

        Raises:
            WriteError: they can't be written.
            CommandError: there is nothing in the map.
        """
        import numpy as np

        from llmseg_ros.mapping.ply import write_ply
        from llmseg_ros.reports.cloud_pictures import make_scene, write_views
        from llmseg_ros.reports.map_page import map_page
        from llmseg_ros.reports.map_report import class_list, make_cloud, map_facts
        from llmseg_ros.reports.report import offline_report, write_report

        if not len(self.voxels):
            raise CommandError('no depth is known within --farthest: the map is empty')
        source, found = self.source, self.voxels.voxels()
        poses = np.stack(self.poses)
        summary = {
            **offline_report(
                source.name, source.camera, self.segmenter, self.scores, self.seconds, complete
            ),
            'frame': source.world(),
            'left_out': source.left_out(),
            **map_facts(self.voxels, found, self.meter),
        }
        classes = class_list(
            self.segmenter.vocabulary.classes, found, self.voxels.voxel_m, source.world()
        )
        names = {of['id']: of['name'] for of in classes['classes']}
        scene = make_scene(found, poses, self.voxels.voxel_m)
        write_ply(out / 'map.ply', found)
        write_json(out / 'classes.json', classes)
        pictures = write_views(out, scene, names, found.labels)
        cloud = make_cloud(found, names, scene, poses[:, :3, 3])
        page = map_page(summary, classes['classes'], cloud, pictures, self.recorder)
        write_report(out, summary, page)
        return summary


def print_map(summary: dict[str, Any]) -> None:
    """Print a line for each distance between views, and what holds for the whole map."""
    in_map = summary['view_agreement_in_map']
    rows = [
        (
            apart,
            of['places'],
            '-' if of['depth_difference_mm'] is None else of['depth_difference_mm'],
            *(percent(of[kind]) for kind in ('agreement', 'class_agreement')),
            *(percent(in_map[apart][kind]) for kind in ('agreement', 'class_agreement')),
        )
        for apart, of in summary['view_agreement'].items()
    ]
    columns = ('frames apart', 'places', 'depth differs mm', 'same label %', 'same class %')
    print_table((*columns, 'in the map: label %', 'class %'), rows)
    of = summary['map']
    total = summary['timing_ms']['total']
    print(
        f'{summary["frames"]} frames into {of["voxels"]} voxels of {100 * of["voxel_m"]:g} cm; '
        f'p50 {total["p50"]} ms, p95 {total["p95"]} ms a frame; '
        f'{percent(summary["changed_pixels"])} % of the pixels change from frame to frame; '
        f'{summary["encoder"]}'
    )
    if summary['left_out']:
        print(f'left out: {summary["left_out"]}')
    if of['forgotten_voxels']:
        print(f'{of["forgotten_voxels"]} voxels were forgotten at --limit')
