"""Depth, camera and pose of the frames of a bag."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from llmseg_ros.bags.frames import Frame, stamp_in, to_frame
from llmseg_ros.bags.reading import (
    COMPRESSED_TYPE,
    IN_ROS,
    Bag,
    BagMessage,
    connections_of,
    topics_in_words,
)
from llmseg_ros.bags.replay import FramePoints, Result, StampedMessages, Step
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import CAMERA_INFO_TYPE, IMAGE_TYPE, ODOMETRY_TYPE, TF_TYPES
from llmseg_ros.bags.transforms import STATIC, frame_tree, plain
from llmseg_ros.formats.decoding import BadImage
from llmseg_ros.mapping.depth_messages import COMPRESSED_DEPTH, info_beside, message_to_depth
from llmseg_ros.mapping.geometry import (
    Camera,
    Floats,
    GeometryError,
    Matrix,
    camera_from_info,
    depth_to_points,
    fit_depth,
)
from llmseg_ros.mapping.rgbd import RgbdFrame

SLOP_NS = 20_000_000  # between a frame and its depth, where no depth has its very stamp
AFTER_HEADER_STAMP = 12  # bytes of a raw message


class FrameDepth(NamedTuple):
    """What makes points of a frame: (h, w) metres, the camera, its pose; None where unknown."""

    depth: Floats
    camera: Camera
    pose: Matrix | None


class DepthTopics(NamedTuple):
    """Topics for the geometry of a camera; `odometry` is empty where tf has the poses."""

    depth: str
    info: str
    odometry: str = ''


def find_depth_topics(
    bag: Bag, image: str = '', depth: str = '', odometry: str = ''
) -> DepthTopics:
    """Choose the topics with depth, camera_info and poses, each given or the only one.

    Raises:
        BagError: there is no depth or no camera_info, or the choice is not clear.
    """
    depth = depth or only_depth_topic(bag, image)
    infos = {c.topic for c in bag.connections if c.msgtype == CAMERA_INFO_TYPE and c.msgcount}
    # In their order, each once.
    candidates = [*dict.fromkeys(info_beside(topic) for topic in (depth, image) if topic)]
    info = next((topic for topic in candidates if topic in infos), '')
    if not info:
        raise BagError(
            f'the bag has no camera_info for {depth}: expected {" or ".join(candidates)}; '
            f'it has {topics_in_words(bag)}'
        )
    has_tf = any(
        c.msgtype in TF_TYPES and c.msgcount and not c.topic.endswith(STATIC)
        for c in bag.connections
    )
    tracks = odometry_topics(bag)
    if not odometry and not has_tf and tracks:
        if len(tracks) > 1:
            raise BagError(
                f'the bag has no /tf, choose the poses with --odometry, one of {", ".join(tracks)}'
            )
        odometry = tracks[0]
    return DepthTopics(depth, info, odometry)


def only_depth_topic(bag: Bag, image: str = '') -> str:
    """Return the topic with depth images that is not that of the camera.

    Raises:
        BagError: there is none, or several.
    """
    found = {c.topic for c in bag.connections if is_depth(c)} - {image}
    # Where a raw topic and its compressed twin are there, the raw one.
    names = sorted(n for n in found if n.removesuffix(COMPRESSED_DEPTH) not in found - {n})
    if not names:
        raise BagError(f'the bag has no depth images; it has {topics_in_words(bag)}')
    if len(names) > 1:
        raise BagError(
            f'choose the depth registered to the image with --depth, one of {", ".join(names)}'
        )
    return names[0]


def is_depth(connection: Connection) -> bool:
    """Tell topics with depth images from others by type and name."""
    name = connection.topic
    if not connection.msgcount or connection.encoding not in IN_ROS:
        return False
    if connection.msgtype == COMPRESSED_TYPE:
        return name.endswith(COMPRESSED_DEPTH)
    return connection.msgtype == IMAGE_TYPE and 'depth' in name


class BagDepth:
    """Find depth, camera and pose of frames by stamp.

    Attributes:
        topics: they come from.
        world: frame of the poses; '' until the first frame where none was asked for.
        missing: frames without, counted by what they lack.
        bad_poses: transforms that were left out, as their numbers are no pose.
        problem: what was wrong with the first depth or image that can't be used, else ''.
    """

    def __init__(self, bag: Bag, topics: DepthTopics, world: str = '') -> None:
        """Look through the topics.

        Raises:
            BagError: one isn't there, is of another type, or can't be used.
        """
        self.topics = topics
        self.world = plain(world)
        self.missing: Counter[str] = Counter()
        self.problem = ''
        self._bag = bag
        types = (IMAGE_TYPE, COMPRESSED_TYPE)
        self._depth = StampedMessages(bag, connections_of(bag, topics.depth, types))
        self._stamps = sorted(self._depth.times)
        self._infos = list(changed_infos(bag, topics))
        self._tree, self.bad_poses = frame_tree(bag, topics.odometry)

    def require_poses(self) -> None:
        """Raise BagError where there are none at all."""
        if not self._tree:
            raise BagError(
                'the bag has no poses, neither on /tf nor as odometry; '
                f'it has {topics_in_words(self._bag)}'
            )

    def find(self, stamp: int, frame_id: str) -> FrameDepth | None:
        """Return what belongs to a frame, None where it has no depth; what is missing is counted.

        Raises:
            BagError: the depth is of another camera, or the frame hangs on nothing though there are
                poses.
        """
        message = self._nearest(stamp)
        pose = self._pose(stamp, frame_id)
        if message is None or pose is None:
            self.missing['depth' if message is None else 'pose'] += 1
        if message is None:
            return None
        try:
            image = self._bag.deserialize(message)
            depth = message_to_depth(image)
        except (BagError, BadImage) as error:
            self.missing['usable depth'] += 1
            self.problem = self.problem or str(error)
            return None
        if plain(image.header.frame_id) != plain(frame_id):
            raise BagError(
                f'the depth of {self.topics.depth} is in the frame {image.header.frame_id!a}, the '
                f'image in {frame_id!a}: choose depth that is registered to the image'
            )
        return FrameDepth(depth, self._camera(stamp), pose)

    def missing_in_words(self) -> str:
        """Say what frames lack, '' where they lack nothing."""
        found = [f'{count} frames without {what}' for what, count in self.missing.items()]
        if self.bad_poses:
            found.append(f'{self.bad_poses} transforms that are no poses')
        words = ', '.join(found)
        return f'{words} ({self.problem})' if self.problem else words

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
        if not self._tree:
            return None
        try:
            if not self._tree.has(frame := plain(frame_id)):
                raise GeometryError(f'the frame {frame_id!a} of the image hangs on nothing in tf')
            if not self.world:
                self.world = self._tree.chain(frame)[-1]
                self._check_moves(frame)
            return self._tree.pose(frame, self.world, stamp)
        except GeometryError as error:
            raise BagError(f'the poses of the bag can not be used: {error}') from error

    def _check_moves(self, frame: str) -> None:
        """Raise GeometryError where tf has wheels or the like alone, and odometry the poses."""
        tracks = odometry_topics(self._bag)
        if tracks and not self.topics.odometry and not self._tree.moves(frame):
            raise GeometryError(
                f'in tf nothing moves between the camera and {self.world!a}, choose the poses '
                f'with --odometry, one of {", ".join(tracks)}'
            )


def odometry_topics(bag: Bag) -> list[str]:
    """Return the names of the topics with odometry."""
    return sorted({c.topic for c in bag.connections if c.msgtype == ODOMETRY_TYPE and c.msgcount})


def changed_infos(bag: Bag, topics: DepthTopics) -> Iterator[tuple[int, Camera]]:
    """Yield stamp and camera of each camera_info that differs from the one before.

    Raises:
        BagError: one is not calibrated, or of an unknown lens.
    """
    last = b''
    for message in bag.messages(connections_of(bag, topics.info, (CAMERA_INFO_TYPE,))):
        content = bytes(message.raw[AFTER_HEADER_STAMP:])
        if content == last:
            continue
        last = content
        try:
            yield stamp_in(message), camera_from_info(bag.deserialize(message), topics.depth)
        except GeometryError as error:
            raise BagError(f'a message of {topics.info} can not be used: {error}') from error


def read_rgbd_frames(
    bag: Bag, camera: Sequence[Connection], depth: BagDepth, sixteen_bit: str = 'high_byte'
) -> Iterator[RgbdFrame]:
    """Yield the camera's frames that have depth and a pose, by time; others are counted in `depth`.

    Raises:
        BagError: the depth is of another camera, or the bag is damaged.
    """
    for number, message in enumerate(bag.messages(camera), start=1):
        try:
            frame = to_frame(bag, message, sixteen_bit)
        except BagError as error:
            depth.missing['usable image'] += 1
            depth.problem = depth.problem or str(error)
            continue
        found = depth.find(frame.stamp, frame.header.frame_id)
        if found is not None and found.pose is not None:
            name = f'frame {number}'
            yield RgbdFrame(name, frame.stamp, frame.rgb, found.depth, found.camera, found.pose)


def with_points(
    steps: Iterable[Step[Result]], depth: BagDepth, on_problem: Callable[[str], None] | None = None
) -> Iterator[Step[Result]]:
    """Add the points of the frames that have depth to the steps.

    Args:
        steps: of a replay.
        depth: of the bag.
        on_problem: called with what is wrong with the depth where the replay should go on without;
            None to raise.

    Raises:
        BagError: depth, camera or poses can't be used.
    """
    usable = True
    for step in steps:
        if usable and step.frame is not None and step.result is not None:
            try:
                step = replace(step, points=points_of(step.frame, depth))
            except BagError as error:
                if on_problem is None:
                    raise
                usable = False
                on_problem(str(error))
        yield step


def points_of(frame: Frame, depth: BagDepth) -> FramePoints | None:
    """Return the points of a frame, None where it has no depth.

    Raises:
        BagError: depth, camera or poses can't be used.
    """
    found = depth.find(frame.stamp, frame.header.frame_id)
    if found is None:
        return None
    height, width = frame.rgb.shape[:2]
    try:
        camera = found.camera.scaled(width, height)
        points = depth_to_points(fit_depth(found.depth, width, height), camera)
    except GeometryError as error:
        raise BagError(f'the depth of {depth.topics.depth} can not be used: {error}') from error
    return FramePoints(points, camera, found.pose)
