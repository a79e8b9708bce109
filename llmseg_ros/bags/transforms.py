"""The frames of reference of a bag: /tf, /tf_static and odometry."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from llmseg_ros.bags.reading import IN_ROS, Bag, connections_of
from llmseg_ros.bags.storage import BagError
from llmseg_ros.bags.topics import NANOSECONDS, ODOMETRY_TYPE, TF_TYPES
from llmseg_ros.mapping.geometry import GeometryError, Matrix
from llmseg_ros.mapping.poses import FrameTree, PoseTrack, StampedPose, pose_from_quaternion

STATIC = 'tf_static'  # how the topic of transforms ends that hold for good


def frame_tree(bag: Bag, odometry: str = '') -> tuple[FrameTree, int]:
    """Return the frames of a bag, and how many transforms were left out as no poses.

    Args:
        bag: to read.
        odometry: topic whose poses count beside tf, or '' for none.

    Raises:
        BagError: the topic is not there, or stamps jump back.
    """
    tree = FrameTree()
    moving: dict[tuple[str, str], list[StampedPose]] = defaultdict(list)
    bad = 0
    connections = [c for c in bag.connections if c.msgtype in TF_TYPES and c.encoding in IN_ROS]
    for message in bag.messages(connections):
        for item in bag.deserialize(message).transforms:
            pose = pose_of(item.transform.translation, item.transform.rotation)
            child, parent = plain(item.child_frame_id), plain(item.header.frame_id)
            if pose is None:
                bad += 1
            elif message.connection.topic.endswith(STATIC):
                tree.add_fixed(child, parent, pose)
            else:
                moving[child, parent].append(StampedPose(stamp_of(item.header), pose))
    if odometry:
        for message in bag.messages(connections_of(bag, odometry, (ODOMETRY_TYPE,))):
            item = bag.deserialize(message)
            pose = pose_of(item.pose.pose.position, item.pose.pose.orientation)
            if pose is None:
                bad += 1
                continue
            names = plain(item.child_frame_id), plain(item.header.frame_id)
            moving[names].append(StampedPose(stamp_of(item.header), pose))
    for (child, parent), poses in moving.items():
        try:
            tree.add_moving(child, parent, PoseTrack(poses))
        except GeometryError as error:
            raise BagError(f'{child} in {parent}: {error}') from error
    return tree, bad


def pose_of(translation: Any, rotation: Any) -> Matrix | None:
    """Return the (4, 4) pose of a vector and a quaternion message, None where it is none."""
    try:
        return pose_from_quaternion(
            (translation.x, translation.y, translation.z),
            (rotation.x, rotation.y, rotation.z, rotation.w),
        )
    except GeometryError:
        return None


def stamp_of(header: Any) -> int:
    """Return the stamp of a header in nanoseconds."""
    time = header.stamp
    return int(time.sec * NANOSECONDS + time.nanosec)


def plain(frame: str) -> str:
    """Return the name of a frame as tf2 has it, without the slash of tf before."""
    return frame.removeprefix('/')
