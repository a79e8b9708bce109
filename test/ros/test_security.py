"""The security policy allows what the node does, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.files import shipped_path

WITH_VISION_MSGS = {'/seg/label_info', '/seg/detections'}
ONLY_SOMETIMES = {'/clock', *WITH_VISION_MSGS}  # the clock with use_sim_time

PATH = ".//profile[@node='{0}']/{1}s[@{2}='ALLOW']/{1}"


def allowed(kind: str, access: str, node: str = 'seg') -> set[str]:
    """Return the names of a node's topics or services under an access, in full."""
    root = ET.parse(shipped_path('config/sros2_policy.xml')).getroot()
    names = [e.text or '' for e in root.iterfind(PATH.format(node, kind, access))]
    assert len(names) == len(set(names))
    return {f'/{name.replace("~", node).strip("/")}' for name in names}


def test_the_policy_is_what_the_node_does(seg: Any, stranger: Any) -> None:
    node = stranger.node
    stranger.spin_until(lambda: ('seg', '/') in node.get_node_names_and_namespaces())
    stranger.spin_until(lambda: node.count_publishers('/seg/overlay'))
    published = {name for name, _ in node.get_publisher_names_and_types_by_node('seg', '/')}
    subscribed = {name for name, _ in node.get_subscriber_names_and_types_by_node('seg', '/')}
    served = {name for name, _ in node.get_service_names_and_types_by_node('seg', '/')}
    assert allowed('topic', 'publish') - ONLY_SOMETIMES == published - ONLY_SOMETIMES
    assert allowed('topic', 'subscribe') - ONLY_SOMETIMES == subscribed - ONLY_SOMETIMES
    assert allowed('service', 'reply') == served
    assert node.get_client_names_and_types_by_node('seg', '/') == []
