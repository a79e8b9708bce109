"""`llmseg bag`: what is in a bag, and bags made of image files and videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmseg_ros.cli.common import CommandError, note, print_table, printable, progress, track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmseg_ros.bags.storage import Connection

bag = typer.Typer(
    help='Look into bags, and make bags of image files and videos.',
    no_args_is_help=True,
    add_completion=False,
)


@bag.command()
def info(
    path: Annotated[
        Path, typer.Argument(metavar='BAG', help='A rosbag2 folder, or a .mcap, .db3 or .bag file.')
    ],
) -> None:
    """Print the topics of a bag: type, encoding, messages, and what replay does with them.

    \b
    Example:
      llmseg bag info office.mcap
    """
    from llmseg_ros.bags.reading import opened_bag

    with opened_bag(path) as reader:
        rows = sorted(
            (c.topic, c.msgtype or '-', c.encoding or '-', c.msgcount, what_it_is_for(c))
            for c in reader.connections
        )
        duration = (reader.end_time - reader.start_time) / 1e9
        count, notes = reader.message_count, reader.notes
    print_table(('topic', 'type', 'encoding', 'messages', 'replay'), rows)
    print(f'{printable(path)}: {count} messages in {duration:.2f} s')
    for sentence in notes:
        note(sentence)


def what_it_is_for(connection: Connection) -> str:
    """Return what replay does with a topic."""
    from llmseg_ros.bags.reading import COMPRESSED_TYPE, IN_ROS
    from llmseg_ros.bags.topics import CAMERA_INFO_TYPE, IMAGE_TYPE, ODOMETRY_TYPE, TF_TYPES

    if connection.encoding not in IN_ROS:
        return 'not read, no ROS message; --out copies it'
    if connection.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE):
        return 'images'
    if connection.msgtype in (CAMERA_INFO_TYPE, ODOMETRY_TYPE, *TF_TYPES):
        return 'depth and poses'
    return 'not read; --out copies it'


@bag.command()
def from_images(
    folder: Annotated[Path, typer.Argument(metavar='DIR', help='Folder of images.')],
    out: Annotated[Path, typer.Option(metavar='BAG', help='The new bag, a folder.')],
    rate: Annotated[float, typer.Option(min=0.01, max=1000, help='Images a second.')] = 10.0,
    compressed: Annotated[
        bool, typer.Option('--compressed', help='Keep JPEG and PNG files as they are.')
    ] = False,
    sixteen_bit: Annotated[
        Literal['high_byte', 'stretch'],
        typer.Option(
            help='How 16 bits a value become 8: their high byte, or each picture stretched from '
            'its lowest to its highest value.'
        ),
    ] = 'high_byte',
    depth: Annotated[
        Path | None,
        typer.Option(metavar='DIR', help='16 bit PNG files with depth, named as the images.'),
    ] = None,
    intrinsics: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE', help='JSON: width height fx fy cx cy, depth_scale in units a metre.'
        ),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Poses: 4x4 matrices (.log), or lines of TUM (.txt).'),
    ] = None,
) -> None:
    """Make a bag of the images of a folder, in the order of their names.

    They are on /camera/image_raw, or with --compressed on /camera/image_raw/compressed. With
    --depth, --intrinsics and --trajectory there are /camera/depth (with --compressed
    compressedDepth), /camera/camera_info and /tf too, as `llmseg map` takes them.

    \b
    Examples:
      llmseg bag from-images photos/ --rate 10 --out photos_bag
      llmseg bag from-images room/color --depth room/depth --intrinsics room/intrinsics.json \\
        --trajectory room/trajectory.log --out room_bag
    """
    if depth or intrinsics or trajectory:
        if not (depth and intrinsics and trajectory):
            raise typer.BadParameter('--depth, --intrinsics and --trajectory go together')
        write_rgbd(folder, depth, intrinsics, trajectory, out, rate, compressed)
        return
    from llmseg_ros.bags.writing import complete_bag, write_camera_bag, write_compressed_bag
    from llmseg_ros.formats.image_files import images_below

    paths = images_below(folder, out)
    if not paths:
        raise CommandError(f'no images in {printable(folder)}')
    if compressed:
        write_compressed_bag(out, paths, rate)
    else:
        with complete_bag(out) as partial:
            frames = (read_named(path, sixteen_bit) for path in track(paths, 'writing'))
            write_camera_bag(partial, frames, rate)
    print(f'{len(paths)} images in {printable(out)}')


@bag.command()
def from_video(
    video: Annotated[Path, typer.Argument(metavar='VIDEO', help='Video file.')],
    out: Annotated[Path, typer.Option(metavar='BAG', help='The new bag, a folder.')],
    compressed: Annotated[
        bool, typer.Option('--compressed', help='As JPEG, far smaller than the raw pictures.')
    ] = False,
) -> None:
    """Make a bag of the frames of a video, upright and at their true times.

    They are on /camera/image_raw, or with --compressed on /camera/image_raw/compressed; the stamp
    of the first is one second, since 0 means none.

    \b
    Example:
      llmseg bag from-video clip.mp4 --compressed --out clip_bag
    """
    from llmseg_ros.bags.writing import complete_bag, write_timed_bag
    from llmseg_ros.frame_sources.videos import open_video

    with (
        complete_bag(out) as partial,
        open_video(video) as source,
        progress(source.expected, 'frames') as advance,
    ):

        def timed() -> Iterator[tuple[float, NDArray[np.uint8]]]:
            for frame in source:
                yield frame.stamp, frame.rgb
                advance()

        count = write_timed_bag(partial, timed(), compressed)
    for sentence in source.notes:
        note(sentence)
    print(f'{count} frames in {printable(out)}')


def write_rgbd(
    color: Path,
    depth: Path,
    intrinsics: Path,
    trajectory: Path,
    out: Path,
    rate: float,
    compressed: bool,
) -> None:
    """Make a bag of images with depth and poses.

    Raises:
        RgbdError: a file is missing or can't be used.
        BagError: the bag exists.
    """
    from llmseg_ros.bags.rgbd_writing import write_rgbd_bag
    from llmseg_ros.bags.writing import complete_bag
    from llmseg_ros.mapping.rgbd_folder import open_rgbd_files

    folder = open_rgbd_files(color, depth, intrinsics, trajectory)
    with complete_bag(out) as partial:
        write_rgbd_bag(partial, folder, track(folder.frames, 'writing'), rate, compressed)
    print(f'{len(folder.frames)} images with depth in {printable(out)}')


def read_named(path: Path, sixteen_bit: str) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB.

    Raises:
        CommandError: it does not open.
    """
    from llmseg_ros.cli.segment_images import read_image

    try:
        return read_image(path, sixteen_bit)
    except ValueError as error:
        raise CommandError(f'{printable(path)}: {error}') from error
