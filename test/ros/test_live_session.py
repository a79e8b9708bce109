"""A running node as what the page of `llmseg live` looks at."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.msg import ClassRule
from llmseg_ros.srv import GetClasses, SetClasses
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.cli.live import running_node
from llmseg_ros.config_files import load_config
from llmseg_ros.live.frames import LiveFrame
from llmseg_ros.live.session import LiveError
from llmseg_ros.ros.conversions import array_to_image, labels_to_image
from llmseg_ros.ros.live_parts import PartCollector, image_to_labels, without_labels
from llmseg_ros.ros.live_session import Graph, NodeSession, running_nodes
from llmseg_ros.visualize import label_contours, overlay

CAT = data.chelsea()


@pytest.fixture
def session(seg: Any, graph: None) -> Iterator[NodeSession]:
    own = Graph()
    end = time.monotonic() + 20.0
    while '/seg' not in running_nodes(own, 1.0):  # a killed node of another test is seen for long
        assert time.monotonic() < end
        time.sleep(0.1)
    session = NodeSession(own, '/seg')
    yield session
    session.close()


def test_a_running_node_is_shown_and_asked(session: NodeSession, peer: Any, tmp_path: Any) -> None:
    """Frames while someone looks, classes by its service, thresholds with its own checks."""
    frames: list[LiveFrame] = []
    session.start(frames.append)
    camera = peer.publisher(Image, '/image')
    session.watch(True)
    assert session.set_classes(['cat', '']) == ['a class name is empty: refused']
    cat = next(item for item in session.describe()['classes'] if item['name'] == 'cat')
    assert cat['source'] == 'pack'
    assert 'tabby cat' in cat['subclasses']

    def cat_is_found() -> bool:
        message = array_to_image(CAT, 'rgb8', Header())
        message.header.stamp = peer.node.get_clock().now().to_msg()
        camera.publish(message)
        peer.spin_for(0.2)
        return bool(frames) and any(c.id == cat['id'] and c.share > 0.1 for c in frames[-1].classes)

    peer.spin_until(cat_is_found)
    frame = frames[-1]
    inside = (frame.labels == cat['id']) & ~label_contours(frame.labels)
    assert np.abs(frame.rgb[inside].astype(int) - CAT[inside]).max() <= 2
    assert frame.age_ms is not None

    peer.spin_until(lambda: {'encode', 'total'} <= set(session.describe()['timings_ms']))
    assert session.describe()['encoder'] == 'imagenet lite0'
    session.set_threshold('gate.minimum', 0.04)
    assert [
        t['value'] for t in session.describe()['thresholds'] if t['name'] == 'gate.minimum'
    ] == [0.04]
    with pytest.raises(LiveError, match=r'gate.minimum.*5'):
        session.set_threshold('gate.minimum', 5.0)
    with pytest.raises(LiveError, match='from its files'):
        session.set_subclasses('cat', ['tabby'])
    path = tmp_path / 'saved.yaml'
    path.write_text(yaml.safe_dump(session.settings()))
    assert load_config(path).gate.minimum == 0.04
    session.set_threshold('gate.minimum', 0.03)

    session.watch(False)
    peer.spin_until(lambda: not peer.node.count_subscribers('/seg/overlay'))


def test_rules_of_a_node_outlive_a_change_of_its_list(session: NodeSession, peer: Any) -> None:
    rules = [ClassRule(name='cat', minimum_area=7), ClassRule(name='sofa', minimum_area=8)]
    request = SetClasses.Request(names=['cat', 'sofa'], rules=rules)
    assert peer.call(SetClasses, '/seg/set_classes', request).success
    session.start(lambda _: None)
    peer.spin_until(lambda: {c['name'] for c in session.describe()['classes']} == {'cat', 'sofa'})
    assert session.set_classes(['cat', 'cup']) == []
    in_force = peer.call(GetClasses, '/seg/get_classes', GetClasses.Request()).label_map
    assert [item.name for item in in_force.classes] == ['cat', 'cup']
    assert [(rule.name, rule.minimum_area) for rule in in_force.rules] == [('cat', 7)]
    given = [('cup', {'minimum_score': 0, 'minimum_area': 9}), ('sofa', {'minimum_area': -1})]
    said = session.set_classes(['cat', 'cup', 'sofa'], given)  # as `llmseg live ros --classes FILE`
    assert said == ["rule of 'sofa': minimum_area is -1, expected a number of pixels from 0 on"]
    in_force = peer.call(GetClasses, '/seg/get_classes', GetClasses.Request()).label_map
    rules = [(rule.name, rule.minimum_area) for rule in in_force.rules]
    assert rules == [('cat', 7), ('cup', 9)]


@pytest.mark.parametrize(
    ('camera', 'classes', 'sentence'),
    [
        ('nope', '', "/seg has no camera 'nope'"),
        ('', 'there_is_no_such.yaml', 'there_is_no_such.yaml does not exist'),
    ],
)
def test_who_is_refused_leaves_the_graph(
    session: NodeSession, camera: str, classes: str, sentence: str
) -> None:
    """A thread of ROS that is there at the end of a process may abort it."""
    before = set(threading.enumerate())
    with pytest.raises(Exception, match=sentence):
        running_node('seg', camera, classes, 5.0)
    assert set(threading.enumerate()) <= before


def test_a_node_that_is_not_there_is_told(graph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is silent, at once."""
    monkeypatch.setattr('llmseg_ros.ros.live_session.SILENT_S', 0.8)
    monkeypatch.setattr('llmseg_ros.ros.live_session.ANSWER_S', 2.0)
    own = Graph()
    session = NodeSession(own, '/nowhere')
    session.start(lambda _: None)
    try:
        assert session.describe()['trouble'] == ''
        with pytest.raises(LiveError, match='is gone'):
            session.set_classes(['cat'])
        assert '/nowhere is silent' in session.describe()['trouble']
        begin = time.monotonic()
        with pytest.raises(LiveError, match='is gone'):
            session.set_classes(['cat'])
        assert time.monotonic() - begin < 0.5
        with pytest.raises(LiveError, match='is gone'):
            session.settings()
    finally:
        begin = time.monotonic()
        session.close()
        assert time.monotonic() - begin < 5


def test_parts_of_a_frame_are_put_together_by_stamp() -> None:
    collector = PartCollector()

    def part(second: int) -> Image:
        message = Image()
        message.header.stamp.sec = second
        return message

    for second in (1, 2):
        assert collector.add('labels', part(second)) is None
        assert collector.add('confidence', part(second)) is None
    parts = collector.add('overlay', part(1))
    assert parts is not None
    assert {message.header.stamp.sec for message in parts.values()} == {1}


@pytest.mark.parametrize('encoding', ['mono8', 'mono16', '16SC1'])
def test_labels_come_back(encoding: str) -> None:
    labels = np.arange(60, dtype=np.uint16).reshape(6, 10) % 3
    assert np.array_equal(image_to_labels(labels_to_image(labels, encoding, Header())), labels)


def test_the_picture_below_an_overlay_comes_back() -> None:
    labels = np.zeros(CAT.shape[:2], np.uint16)
    labels[50:200, 100:300] = 7
    below = without_labels(overlay(CAT, labels), labels)
    differs = np.abs(below.astype(int) - CAT).max(axis=2) > 2
    assert not differs[~label_contours(labels)].any()
