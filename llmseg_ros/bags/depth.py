"""Depth, camera and pose of the frames of a bag."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from llmseg_ros.bags.reading import (
    COMPRESSED_TYPE,
    BagError,
    BagMessage,
    connections_of,
    full_type,
    read_messages,
    topics_in_words,
)
from llmseg_ros.bags.replay import (
    StampedMessages,
    deserialize_image,
    frame_stamp,
    refuse_second,
    stamp_in,
    to_frame,
)
from llmseg_ros.bags.topics import CAMERA_INFO_TYPE, IMAGE_TYPE, ODOMETRY_TYPE, TF_TYPES
from llmseg_ros.bags.transforms import frame_tree
from llmseg_ros.images import BadImage
from llmseg_ros.mapping.depth_messages import message_to_depth
from llmseg_ros.mapping.geometry import Camera, Floats, GeometryError, Matrix, camera_from_info
from llmseg_ros.mapping.rgbd import RgbdFrame

SLOP_NS = 20_000_000  # between a frame and its depth, where no depth has its very stamp
AFTER_HEADER_STAMP = 12  # bytes of a raw message


class FrameDepth(NamedTuple):
    """What makes points of a frame: (h, w) metres, the camera of the image, its pose."""

    depth: Floats
    camera: Camera
    pose: Matrix


class DepthTopics(NamedTuple):
    """Topics for the geometry of a camera; `odometry` is empty where tf has the poses."""

    depth: str
    info: str
    odometry: str = ''


def find_depth_topics(
    reader: AnyReader, image: str = '', depth: str = '', odometry: str = ''
) -> DepthTopics:
    """Choose the topics with depth, camera_info and poses, each given or the only one.

    Raises:
        BagError: one is missing, or the choice is not clear.
    """
    if not depth:
        names = sorted(
            {c.topic for c in reader.connections if c.msgcount and c.topic != image and is_depth(c)}
        )
        # Where a raw topic and its compressed twin are there, the raw one.
        names = [n for n in names if n.removesuffix('/compressedDepth') not in {*names} - {n}]
        if len(names) != 1:
            found = ', '.join(names) or topics_in_words(reader)
            raise BagError(
                f'choose the depth registered to the image with --depth, one of {found}'
                if names
                else f'the bag has no depth images; it has {found}'
            )
        depth = names[0]
    infos = {c.topic for c in reader.connections if full_type(c) == CAMERA_INFO_TYPE and c.msgcount}
    candidates = [info_beside(topic) for topic in (depth, image) if topic]
    info = next((topic for topic in candidates if topic in infos), '')
    if not info:
        raise BagError(
            f'the bag has no camera_info for {depth}: expected {" or ".join(candidates)}; '
            f'it has {topics_in_words(reader)}'
        )
    has_tf = any(full_type(c) in TF_TYPES and c.msgcount for c in reader.connections)
    tracks = sorted({c.topic for c in reader.connections if full_type(c) == ODOMETRY_TYPE})
    if not odometry and not has_tf:
        if len(tracks) != 1:
            raise BagError(
                f'the bag has no /tf, choose the poses with --odometry, one of {", ".join(tracks)}'
                if tracks
                else f'the bag has no poses: neither /tf nor odometry; '
                f'it has {topics_in_words(reader)}'
            )
        odometry = tracks[0]
    return DepthTopics(depth, info, odometry)


def is_depth(connection: Connection) -> bool:
    """Tell depth images from others by type and name."""
    name = connection.topic
    if full_type(connection) == COMPRESSED_TYPE:
        return name.endswith('/compressedDepth')
    return full_type(connection) == IMAGE_TYPE and 'depth' in name


def info_beside(topic: str) -> str:
    """Return where a camera driver publishes the camera_info of an image topic."""
    for transport in ('/compressedDepth', '/compressed'):
        topic = topic.removesuffix(transport)
    return f'{topic.rpartition("/")[0]}/camera_info'


class BagDepth:
    """Find depth, camera and pose of frames by stamp.

    Attributes:
        topics: they come from.
        world: frame of the poses; '' until the first frame where none was asked for.
        missing: frames without, counted by what they lack.
        bad_poses: transforms that were left out, as their numbers are no pose.
    """

    def __init__(self, reader: AnyReader, topics: DepthTopics, world: str = '') -> None:
        """Look through the topics.

        Raises:
            BagError: one isn't there, is of another type, or can't be used.
        """
        self.topics = topics
        self.world = world
        self.missing: Counter[str] = Counter()
        self._reader = reader
        types = (IMAGE_TYPE, COMPRESSED_TYPE)
        self._depth = StampedMessages(reader, connections_of(reader, topics.depth, types))
        self._stamps = sorted(self._depth.times)
        self._infos = list(changed_infos(reader, topics.info))
        self._tree, self.bad_poses = frame_tree(reader, topics.odometry)

    def find(self, stamp: int, frame_id: str) -> FrameDepth | None:
        """Return what belongs to a frame, None where something is missing; that is counted.

        Raises:
            BagError: the depth does not decode or is of another camera, or the frame hangs on
                nothing.
        """
        pose = self._pose(stamp, frame_id)
        message = self._nearest(stamp)
        if pose is None or message is None:
            self.missing['pose' if pose is None else 'depth'] += 1
            return None
        image = deserialize_image(self._reader, message)
        if image.header.frame_id != frame_id:
            raise BagError(
                f'the depth of {self.topics.depth} is in the frame {image.header.frame_id!a}, the '
                f'image in {frame_id!a}: choose depth that is registered to the image'
            )
        try:
            depth = message_to_depth(image)
        except BadImage as error:
            raise BagError(
                f'a depth image of {self.topics.depth} can not be used: {error}'
            ) from error
        return FrameDepth(depth, self._camera(stamp), pose)

    def missing_in_words(self) -> str:
        """Say what frames lack, '' where they lack nothing."""
        found = [f'{count} frames without {what}' for what, count in self.missing.items()]
        if self.bad_poses:
            found.append(f'{self.bad_poses} transforms that are no poses')
        return ', '.join(found)

    def _nearest(self, stamp: int) -> BagMessage | None:
        after = bisect_left(self._stamps, stamp)
        near = self._stamps[max(after - 1, 0) : after + 1]
        best = min(near, key=lambda other: abs(other - stamp), default=None)
        return None if best is None or abs(best - stamp) > SLOP_NS else self._depth.find(best)

    def _camera(self, stamp: int) -> Camera:
        """Return the camera by the last camera_info up to a stamp, else by the first."""
        index = bisect_right(self._infos, stamp, key=lambda pair: pair[0])
        return self._infos[max(index - 1, 0)][1]

    def _pose(self, stamp: int, frame_id: str) -> Matrix | None:
        try:
            if not self.world:
                self.world = self._tree.chain(frame_id)[-1]
            if frame_id not in self._tree and frame_id != self.world:
                raise GeometryError(f'the frame {frame_id!a} of the image hangs on nothing in tf')
            return self._tree.pose(frame_id, self.world, stamp)
        except GeometryError as error:
            raise BagError(f'the poses of the bag can not be used: {error}') from error


def changed_infos(reader: AnyReader, topic: str) -> Iterator[tuple[int, Camera]]:
    """Yield stamp and camera of each camera_info that differs from the one before.

    Raises:
        BagError: one is not calibrated, or of an unknown lens.
    """
    last = b''
    for message in read_messages(reader, connections_of(reader, topic, (CAMERA_INFO_TYPE,))):
        content = bytes(message.raw[AFTER_HEADER_STAMP:])
        if content == last:
            continue
        last = content
        info: Any = deserialize_image(reader, message)
        try:
            yield stamp_in(message, reader.is2), camera_from_info(info)
        except GeometryError as error:
            raise BagError(f'a message of {topic} can not be used: {error}') from error


def read_rgbd_frames(
    reader: AnyReader, camera: Sequence[Connection], depth: BagDepth
) -> Iterator[RgbdFrame]:
    """Yield the camera's frames that have depth and a pose, by time.

    Raises:
        BagError: a frame or its depth does not decode, or two frames have one stamp.
    """
    stamps: set[int] = set()
    for message in read_messages(reader, camera):
        stamp = frame_stamp(message, reader.is2)
        refuse_second(stamp, stamps, message)
        frame = to_frame(reader, message)
        found = depth.find(stamp, frame.header.frame_id)
        if found is not None:
            name = f'frame {len(stamps)}'
            yield RgbdFrame(name, stamp, frame.rgb, found.depth, found.camera, found.pose)
