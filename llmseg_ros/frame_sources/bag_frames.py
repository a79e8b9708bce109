"""The camera frames of a bag as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from llmseg_ros.bags.frames import Stamps, to_frame
from llmseg_ros.bags.reading import Bag, find_image_connections, opened_bag
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import NANOSECONDS
from llmseg_ros.frame_sources.frames import FrameSource, SourceError, TimedFrame


def open_bag_frames(path: Path, topic: str = '', sixteen_bit: str = 'high_byte') -> FrameSource:
    """Open the frames of a bag's camera.

    Args:
        path: a rosbag2 folder or a file of a bag.
        topic: of the camera; '' where there is only one.
        sixteen_bit: high_byte or stretch: how 16 bits become 8.

    Raises:
        SourceError: the bag can't be read, or which camera is not clear.
    """
    with ExitStack() as stack:
        try:
            bag = stack.enter_context(opened_bag(path))
            camera = find_image_connections(bag, topic)
        except BagError as error:
            raise SourceError(str(error)) from error
        count = sum(connection.msgcount for connection in camera)
        duration = (bag.end_time - bag.start_time) / NANOSECONDS
        rate = count / duration if duration > 0 else None
        close = stack.pop_all().close
    source = FrameSource('bag', str(path), iter(()), close, rate, count, duration, bag.notes)
    source.frames = read_frames(bag, camera, path.stem, sixteen_bit, source.notes)
    return source


def read_frames(
    bag: Bag, camera: Sequence[Connection], stem: str, sixteen_bit: str, notes: list[str]
) -> Iterator[TimedFrame]:
    """Yield the frames that can be used; note what can't.

    Raises:
        SourceError: the bag does not go on, or no frame can be used.
    """
    stamps = Stamps(distinct=False)
    refused: list[str] = []
    number = -1
    try:
        for number, message in enumerate(bag.messages(camera)):
            try:
                stamp, frame = stamps.add(message), to_frame(bag, message, sixteen_bit)
            except BagError as error:
                refused.append(str(error))
                continue
            yield TimedFrame(frame.rgb, stamp / NANOSECONDS, f'{stem}_{number:06d}', number)
    except BagError as error:
        raise SourceError(str(error)) from error
    notes += [sentence for sentence in bag.notes if sentence not in notes]
    if refused and len(refused) == number + 1:
        raise SourceError(f'none of the {len(refused)} frames can be used: {refused[0]}')
    if refused:
        notes.append(f'{len(refused)} frames can not be used, the first because {refused[0]}')
