"""The node without the names that Humble's rclpy lacks: test/ros/humble.py takes them away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.msg import ClassList
from llmseg_ros.srv import DescribeNames
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from llmseg_ros.ros.compat import with_message_info
from llmseg_ros.ros.qos import LATCHED


def set_parameter(peer: Any, name: str, value: object) -> Any:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return peer.call(SetParameters, '/old/set_parameters', request).results[0]


def classes_of(peer: Any) -> list[str]:
    request = GetParameters.Request(names=['classes'])
    answer = peer.call(GetParameters, '/old/get_parameters', request)
    return list(answer.values[0].string_array_value)


@pytest.mark.usefixtures('humble')
def test_parameters_and_class_lists_reach_the_node(
    start_seg: Callable[..., Any], peer: Any
) -> None:
    seg = start_seg('-r', '__node:=old')
    seg.wait_for_log('waiting to be configured')
    assert set_parameter(peer, 'classes', ['cat', 'cat', 'cup']).successful
    seg.wait_for_log('class list kept for configuring: cat, cup')
    assert classes_of(peer) == ['cat', 'cup']  # cleaned by the callback that comes after
    answer = peer.call(DescribeNames, '/old/describe', DescribeNames.Request(names=['cat']))
    assert 'the node is not configured' in answer.message
    refused = set_parameter(peer, 'background.threshold', 7.0)
    assert not refused.successful
    assert 'background.threshold' in refused.reason
    publisher = peer.publisher(ClassList, '/old/classes', LATCHED)
    stamped = Header(stamp=peer.node.get_clock().now().to_msg())
    publisher.publish(ClassList(header=stamped, names=['sofa']))
    seg.wait_for_log('class list kept for configuring: sofa')
    peer.spin_until(lambda: classes_of(peer) == ['sofa'])
    publisher.publish(ClassList(names=['lamp']))
    seg.wait_for_log('class list kept for configuring: lamp')
    peer.spin_until(lambda: classes_of(peer) == ['lamp'])
    peer.spin_for(0.3)  # for the second time the same comes
    assert seg.log.count('configuring: sofa') == 1  # both subscriptions heard it
    assert seg.log.count('configuring: lamp') == 2  # no stamp tells the two apart
    assert 'Traceback' not in seg.log


def test_message_info_is_handed_on_where_rclpy_gives_it() -> None:
    def callback(message: Any, info: dict[str, Any]) -> None: ...

    assert with_message_info(callback) is callback
