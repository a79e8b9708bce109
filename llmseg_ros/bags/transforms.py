"""The frames of reference of a bag: /tf, /tf_static and odometry."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rosbags.highlevel import AnyReader

from llmseg_ros.bags.reading import BagError, connections_of, full_type, read_messages
from llmseg_ros.bags.replay import deserialize_image
from llmseg_ros.bags.topics import NANOSECONDS, ODOMETRY_TYPE, TF_TYPES
from llmseg_ros.mapping.geometry import GeometryError, Matrix
from llmseg_ros.mapping.poses import FrameTree, PoseTrack, StampedPose, pose_from_quaternion

STATIC = 'tf_static'  # how the topic of transforms ends that hold for good


def frame_tree(reader: AnyReader, odometry: str = '') -> tuple[FrameTree, int]:
    """Return the frames of a bag, and how many transforms were left out as no poses.

    Args:
        reader: of the open bag.
        odometry: topic whose poses count beside tf, or '' for none.

    Raises:
        BagError: the topic is not there, or stamps jump back.
    """
    tree = FrameTree()
    moving: dict[tuple[str, str], list[StampedPose]] = defaultdict(list)
    bad = 0
    connections = [c for c in reader.connections if full_type(c) in TF_TYPES]
    for message in read_messages(reader, connections) if connections else ():
        for item in deserialize_image(reader, message).transforms:
            pose = pose_of(item.transform.translation, item.transform.rotation)
            child, parent = plain(item.child_frame_id), plain(item.header.frame_id)
            if pose is None:
                bad += 1
            elif message.connection.topic.endswith(STATIC):
                tree.add_fixed(child, parent, pose)
            else:
                moving[child, parent].append(StampedPose(stamp_of(item.header), pose))
    if odometry:
        for message in read_messages(reader, connections_of(reader, odometry, (ODOMETRY_TYPE,))):
            item = deserialize_image(reader, message)
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
