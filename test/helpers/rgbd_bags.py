"""Bags of the ray-cast room: colour, depth, camera_info and poses, as whole as a test asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from llmseg_ros.mapping.geometry import Camera

from .bags import IMAGE, SECOND, TYPES, header, image
from .room import CAMERA, circle, shoot

INFO = 'sensor_msgs/msg/CameraInfo'
TF = 'tf2_msgs/msg/TFMessage'
ODOMETRY = 'nav_msgs/msg/Odometry'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
STEP = SECOND // 10
IN_BASE = np.eye(4)  # the camera in the robot: ahead and up, its optical axes
IN_BASE[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
IN_BASE[:3, 3] = (0.2, 0, 0.9)
Messages = list[tuple[str, str, Any, int]]


def make(kind: str, **fields: Any) -> Any:
    return TYPES.types[kind](**fields)


def camera_info(camera: Camera, stamp: int, **changes: Any) -> Any:
    roi = make(
        'sensor_msgs/msg/RegionOfInterest',
        **dict.fromkeys(('x_offset', 'y_offset', 'height', 'width'), 0),
        do_rectify=False,
    )
    fields = {
        'header': header(stamp),
        'height': camera.height,
        'width': camera.width,
        'distortion_model': 'plumb_bob',
        'd': np.array(camera.distortion or (0.0,) * 5),
        'k': camera.matrix.ravel(),
        'r': np.eye(3).ravel(),
        'p': np.zeros(12),
        'binning_x': 0,
        'binning_y': 0,
        'roi': roi,
    }
    return make(INFO, **{**fields, **changes})


def quaternion(pose: NDArray[np.float64]) -> Any:
    values = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
    return make('geometry_msgs/msg/Quaternion', **dict(zip('xyzw', values, strict=True)))


def transform(child: str, parent: str, pose: NDArray[np.float64], stamp: int) -> Any:
    place = dict(zip('xyz', pose[:3, 3].tolist(), strict=True))
    return make(
        TF,
        transforms=[
            make(
                'geometry_msgs/msg/TransformStamped',
                header=header(stamp, parent),
                child_frame_id=child,
                transform=make(
                    'geometry_msgs/msg/Transform',
                    translation=make('geometry_msgs/msg/Vector3', **place),
                    rotation=quaternion(pose),
                ),
            )
        ],
    )


def odometry(child: str, parent: str, pose: NDArray[np.float64], stamp: int) -> Any:
    place = dict(zip('xyz', pose[:3, 3].tolist(), strict=True))
    zero = make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
    return make(
        ODOMETRY,
        header=header(stamp, parent),
        child_frame_id=child,
        pose=make(
            'geometry_msgs/msg/PoseWithCovariance',
            pose=make(
                'geometry_msgs/msg/Pose',
                position=make('geometry_msgs/msg/Point', **place),
                orientation=quaternion(pose),
            ),
            covariance=np.zeros(36),
        ),
        twist=make(
            'geometry_msgs/msg/TwistWithCovariance',
            twist=make('geometry_msgs/msg/Twist', linear=zero, angular=zero),
            covariance=np.zeros(36),
        ),
    )


def room_messages(count: int = 4, poses: str = 'tf', depth_lag: int = 0) -> Messages:
    """Return (topic, type, message, stamp) of views of the room, a tenth of a second apart.

    Args:
        count: views, on an arc.
        poses: 'tf' for /tf and /tf_static, 'odometry' for odometry and /tf_static, '' for none.
        depth_lag: nanoseconds by which depth is later than colour.
    """
    messages: Messages = []
    if poses:
        static = transform('camera', 'base_link', IN_BASE, SECOND)
        messages.append(('/tf_static', TF, static, SECOND))
    for index, pose in enumerate(circle(count)):
        stamp = SECOND + index * STEP
        shot = shoot(pose)
        base = pose @ np.linalg.inv(IN_BASE)
        if poses == 'tf':
            messages.append(('/tf', TF, transform('base_link', 'map', base, stamp), stamp))
        elif poses:
            moved = odometry('base_link', 'odom', base, stamp)
            messages.append(('/odometry', ODOMETRY, moved, stamp))
        info = camera_info(CAMERA, stamp)
        messages.append(('/camera/camera_info', INFO, info, stamp))
        depth = image(np.rint(1000 * shot.depth).astype(np.uint16), '16UC1', stamp + depth_lag)
        messages.append(('/camera/depth', IMAGE, depth, stamp + depth_lag))
        messages.append(('/camera/image', IMAGE, image(shot.rgb, 'rgb8', stamp), stamp))
    return messages


def compressed_depth(message: Any) -> Any:
    """Return a 16UC1 image as compressed_depth_image_transport sends it."""
    pixels = message.data.view(np.uint16).reshape(message.height, message.width)
    data = bytes(12) + cv2.imencode('.png', pixels)[1].tobytes()
    kind = '16UC1; compressedDepth png'
    return make(COMPRESSED, header=message.header, format=kind, data=np.frombuffer(data, np.uint8))


def changed(messages: Messages, topic: str, change: Callable[[int, Any], Any | None]) -> Messages:
    """Return messages with those of a topic changed by their number, left out where None."""
    found: Messages = []
    number = 0
    for name, kind, message, stamp in messages:
        if name == topic:
            message = change(number, message)
            number += 1
        if message is not None:
            found.append((name, kind, message, stamp))
    return found


def write_messages(path: Path, messages: Sequence[tuple[str, str, Any, int]]) -> Path:
    """Write messages with the times of their stamps."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for topic, kind, message, stamp in sorted(messages, key=lambda item: item[3]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], stamp, TYPES.serialize_cdr(message, kind))
    return path
