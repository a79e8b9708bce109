"""Poses of clouds, by odometry and, where it is installed, by tf2_ros; in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node

from llmseg_ros.ros.cloud_poses import NoPose, OdometryPoses, TfPoses

from .test_semantic_map import header


@pytest.fixture
def node(context: Any) -> Iterator[Node]:
    made = Node('poses', context=context)
    yield made
    made.destroy_node()


def odometry(stamp: float, x: float, frame: str = 'odom', child: str = 'base') -> Odometry:
    message = Odometry(header=header(stamp, frame), child_frame_id=child)
    message.pose.pose.position.x = x
    return message


def followed(node: Node, *in_base: float) -> OdometryPoses:
    found = OdometryPoses(node, lambda: in_base or (0.0,) * 6, lambda: None)
    for stamp in range(3):
        found.take(odometry(stamp, float(stamp)))
    return found


@pytest.mark.parametrize(
    ('frame', 'child'), [('other_odom', 'base'), ('odom', 'other_base'), ('', 'base')]
)
def test_odometry_of_another_robot_on_the_topic(node: Node, frame: str, child: str) -> None:
    poses = followed(node)
    poses.take(odometry(2.5, 100.0, frame, child))
    poses.take(odometry(3.0, 3.0))
    assert poses.bad == 1
    found = poses.find(header(2.5, 'base'))
    assert found is not None
    assert found[0, 3] == pytest.approx(2.5)
    assert poses.world == 'odom'


def test_odometry_without_frame_makes_no_map(node: Node) -> None:
    poses = OdometryPoses(node, lambda: (0.0,) * 6, lambda: None)
    poses.take(odometry(1.0, 1.0, frame=''))
    assert (poses.bad, poses.world) == (1, '')


def test_one_mount_is_of_one_camera(node: Node) -> None:
    poses = followed(node, 0.1, 0.0, 0.5, 0.0, 0.0, 0.0)
    found = poses.find(header(1.0, 'left_optical'))
    assert found is not None
    np.testing.assert_allclose(found[:3, 3], (1.1, 0, 0.5))
    with pytest.raises(NoPose, match="clouds are in 'left_optical' and in 'right_optical'"):
        poses.find(header(1.0, 'right_optical'))


def test_clouds_in_another_frame_than_odometry_moves(node: Node) -> None:
    with pytest.raises(NoPose, match="moves 'base', clouds are in '': say by"):
        followed(node).find(header(1.0, ''))


def moved(stamp: float, parent: str, child: str, x: float) -> TransformStamped:
    message = TransformStamped(header=header(stamp, parent), child_frame_id=child)
    message.transform.translation.x = x
    return message


def test_tf(node: Node, peer: Any) -> None:
    """Played, and after half a minute played again from the start."""
    pytest.importorskip('tf2_ros')
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    poses = TfPoses(node, 'map')
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def arrived(stamp: float, frame: str = 'camera') -> Any:
        executor.spin_once(0.01)
        return poses.find(header(stamp, frame))

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    fixed = peer.publisher(TFMessage, '/tf_static', latched)
    fixed.publish(TFMessage(transforms=[moved(0, 'base', 'camera', 0.5)]))
    tf = peer.publisher(TFMessage, '/tf', QoSProfile(depth=100))
    for offset in (0.0, 5.0):
        for second in range(1, 31):
            tf.publish(TFMessage(transforms=[moved(second, 'map', 'base', second + offset)]))
        peer.spin_until(lambda: arrived(30.0) is not None)
        found = poses.find(header(29.5, 'camera'))
        assert found is not None
        assert found[0, 3] == pytest.approx(30.0 + offset)
        assert poses.find(header(32.0, 'camera')) is None
        assert 'extrapolation into the future' in poses.reason
        assert poses.find(header(30.0, 'nowhere')) is None
        assert 'nowhere' in poses.reason
        if not offset:
            assert poses.find(header(2.0, 'camera')) is None  # told that time went back
    executor.shutdown()
