"""A class list that is described while the node is cleaned up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Header

from llmseg_ros.config import ImageNetConfig, SegmenterConfig
from llmseg_ros.ros.class_list import ClassListInterface, NotConfigured
from llmseg_ros.ros.segment_service import label_map_of
from llmseg_ros.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures('encoders_are_loaded_once')
RULES = [('dog', {'minimum_score': 0.5})]


@pytest.fixture
def class_list(context: Any) -> Iterator[ClassListInterface]:
    """Give the class list of a node of its own, and a segmenter that it is attached to."""
    node = Node('of_classes', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    with ThreadPoolExecutor(1) as updates:
        yield ClassListInterface(node, ['cat'], updates, lambda: None)
    executor.shutdown()
    node.destroy_node()


@pytest.fixture
def segmenter(class_list: ClassListInterface) -> Iterator[Segmenter]:
    config = SegmenterConfig(imagenet=ImageNetConfig(model='lite0', short_sides=(64,)))
    segmenter = Segmenter(config, class_list.names, class_list.registry)
    yield segmenter
    segmenter.close()


def test_a_list_that_is_late_for_its_segmenter_is_not_in_force(
    class_list: ClassListInterface, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_list.attach(segmenter)
    describe = segmenter.set_classes

    def set_classes(*arguments: Any) -> Any:
        update = describe(*arguments)
        class_list.detach()  # as cleanup does, on another thread
        return update

    monkeypatch.setattr(segmenter, 'set_classes', set_classes)
    with pytest.raises(NotConfigured, match='cleaned up meanwhile'):
        class_list._apply(['dog'], RULES)
    assert class_list.names == ['cat']
    assert class_list.rules == ()


def test_a_call_has_its_own_label_map_while_the_node_has_none(
    class_list: ClassListInterface, segmenter: Segmenter
) -> None:
    own, now = segmenter.describe(['lamp']).vocabulary, Header(frame_id='now')
    before = class_list.label_map
    assert before.version == own.version == 0
    assert [item.name for item in label_map_of(own, before, now).classes] == ['lamp']
    class_list.attach(segmenter)
    assert label_map_of(segmenter.vocabulary, class_list.label_map, now) is class_list.label_map
