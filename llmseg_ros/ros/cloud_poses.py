"""Where the camera was when a cloud was taken: by odometry, or by tf where it is installed."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from llmseg_ros.mapping.geometry import GeometryError, Matrix
from llmseg_ros.mapping.poses import (
    MAX_JUMP_NS,
    PoseTrack,
    StampedPose,
    pose_from_quaternion,
)
from llmseg_ros.ros.depth_subscription import stamp_ns

KEPT = 3000  # poses: 30 s of 100 a second
ODOMETRY = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)


class NoPose(Exception):
    """A cloud has no pose; the message is one sentence that says why."""


class CloudPoses(Protocol):
    """Poses by the header of a cloud.

    Attributes:
        world: frame they are in; '' while it is not known.
        reason: why the last one asked for was not there, where that is known.
    """

    world: str
    reason: str

    def find(self, header: Header) -> Matrix | None:
        """Return the (4, 4) pose of a cloud's frame, None while it may still come.

        Raises:
            NoPose: it will not come.
        """


class OdometryPoses:
    """Poses of a topic with odometry, interpolated between its messages.

    Attributes:
        world: frame of the odometry.
        reason: is not known.
        bad: messages that were left out, as their numbers are no pose.
    """

    def __init__(
        self, node: Node, in_base: Callable[[], tuple[float, ...]], on_pose: Callable[[], None]
    ) -> None:
        """Subscribe; `in_base` tells x y z roll pitch yaw, `on_pose` is called after each pose."""
        self.world = self.reason = ''
        self.bad = 0
        self.topic: str = node.resolve_topic_name('odometry')
        self._child = ''
        self._mounted = ''  # frame of the clouds that camera_in_base is of
        self._in_base = in_base
        self._on_pose = on_pose
        self._poses: deque[StampedPose] = deque(maxlen=KEPT)
        self._node = node
        node.create_subscription(Odometry, 'odometry', self.take, ODOMETRY)

    def take(self, message: Odometry) -> None:
        """Keep a pose; those of before a jump back in time are forgotten."""
        stamp = stamp_ns(message.header)
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        try:
            pose = pose_from_quaternion(
                (place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w)
            )
        except GeometryError as error:
            self._leave_out(str(error))
            return
        frames = message.header.frame_id, message.child_frame_id
        if not frames[0] or (self.world and frames != (self.world, self._child)):
            known = f'{self._child!a} in {self.world!a}' if self.world else 'a frame in another'
            self._leave_out(f'it is of {frames[1]!a} in {frames[0]!a}, expected {known}')
            return
        if self._poses and stamp < self._poses[-1].stamp - MAX_JUMP_NS:
            self._poses.clear()
        if self._poses and stamp <= self._poses[-1].stamp:
            return
        self.world, self._child = frames
        self._poses.append(StampedPose(stamp, pose))
        self._on_pose()

    def find(self, header: Header) -> Matrix | None:
        """Return the (4, 4) pose of a cloud's frame, None while it may still come.

        Raises:
            NoPose: it will not come.
        """
        stamp = stamp_ns(header)
        if not self._poses or self._poses[-1].stamp < stamp:
            return None
        after = len(self._poses) - 1
        while after > 0 and self._poses[after - 1].stamp >= stamp:
            after -= 1
        around = [self._poses[n] for n in (after - 1, after) if n >= 0]
        pose = PoseTrack(around).at(stamp)
        if pose is None:
            raise NoPose(f'{self.topic} has no poses around its time')
        return pose @ self._camera(header.frame_id)

    def _leave_out(self, reason: str) -> None:
        self.bad += 1
        self._node.get_logger().warning(
            f'{self.topic}: a pose is left out: {reason}', throttle_duration_sec=10.0
        )

    def _camera(self, frame: str) -> Matrix:
        values = np.array(self._in_base(), np.float64)
        if not values.any():
            if frame != self._child:
                raise NoPose(
                    f'{self.topic} moves {self._child!a}, clouds are in {frame!a}: say by '
                    'map.camera_in_base where one is in the other'
                )
            return np.eye(4)
        self._mounted = self._mounted or frame
        if frame != self._mounted:
            raise NoPose(
                f'clouds are in {self._mounted!a} and in {frame!a}, map.camera_in_base is of one'
            )
        pose = np.eye(4)
        pose[:3, 3] = values[:3]
        pose[:3, :3] = Rotation.from_euler('xyz', values[3:]).as_matrix()
        return pose


class TfPoses:
    """Poses of tf, by tf2_ros.

    Attributes:
        world: frame of the map.
        reason: what tf2 said when it had no pose.
    """

    def __init__(self, node: Node, world: str) -> None:
        """Listen to tf."""
        from tf2_ros import Buffer, TransformListener

        self.world = world
        self.reason = ''
        self._newest = 0  # stamp of a cloud
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)

    def find(self, header: Header) -> Matrix | None:
        """Return the (4, 4) pose of a cloud's frame, None while it may still come."""
        stamp = Time.from_msg(header.stamp)
        if stamp.nanoseconds < self._newest - MAX_JUMP_NS:
            # tf2 would take the transforms of a bag that is played again for too old.
            self._buffer.clear()
            self._newest = 0
        self._newest = max(self._newest, stamp.nanoseconds)
        asked = self.world, header.frame_id, stamp
        is_there, self.reason = self._buffer.can_transform(*asked, return_debug_tuple=True)
        if not is_there:
            return None
        found: Any = self._buffer.lookup_transform(self.world, header.frame_id, stamp).transform
        place, turn = found.translation, found.rotation
        return pose_from_quaternion((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def has_tf() -> bool:
    """Return whether tf2_ros is installed."""
    return importlib.util.find_spec('tf2_ros') is not None
