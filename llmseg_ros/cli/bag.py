"""`llmseg bag`: what is in a bag, and bags made of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmseg_ros.cli.common import CommandError, note, print_table, printable, track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmseg_ros.bags.storage import Connection

bag = typer.Typer(
    help='Look into bags, and make bags of image files.', no_args_is_help=True, add_completion=False
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
    from llmseg_ros.bags.topics import IMAGE_TYPE

    if connection.encoding not in IN_ROS:
        return 'not read, no ROS message; --out copies it'
    if connection.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE):
        return 'images'
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
) -> None:
    """Make a bag of the images of a folder, in the order of their names.

    They are on /camera/image_raw, or with --compressed on /camera/image_raw/compressed.

    \b
    Example:
      llmseg bag from-images photos/ --rate 10 --out photos_bag
    """
    from llmseg_ros.bags.writing import complete_bag, write_camera_bag, write_compressed_bag
    from llmseg_ros.cli.segment import images_below

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


def read_named(path: Path, sixteen_bit: str) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB.

    Raises:
        CommandError: it does not open.
    """
    from llmseg_ros.cli.segment import read_image

    try:
        return read_image(path, sixteen_bit)
    except ValueError as error:
        raise CommandError(f'{printable(path)}: {error}') from error
