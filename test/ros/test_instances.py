"""Components of masks in the node: one mask each, and as detections where vision_msgs is there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.msg import ClassMask, ClassMaskArray
from llmseg_ros.srv import SetClasses
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.method.components import find_components
from llmseg_ros.ros import results
from llmseg_ros.ros.conversions import (
    array_to_image,
    components_to_detections,
    segmentation_to_masks,
)
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.segmentation import ClassResult, Segmentation

from .test_node import CAT, send_until

HEADER = Header(frame_id='camera_optical')
WALL = np.full((300, 150, 3), 128, np.uint8)
TWO_CATS = np.hstack([CAT, WALL, CAT[:, ::-1]])
RGB = np.zeros((4, 6, 3), np.uint8)


def two_cats() -> Segmentation:
    labels = np.zeros((4, 6), np.uint16)
    labels[1:3, 0:2] = labels[0:3, 4:6] = 7
    confidence = np.full((4, 6), 0.5, np.float32)
    confidence[:, 4:] = 0.75
    cat, dog = ClassResult(7, 'cat', 0.25, 10, (0, 0, 6, 3)), ClassResult(8, 'dog', 0, 0, (0,) * 4)
    return Segmentation(labels, confidence, (dog, cat), 3, {})


def pixels(mask: ClassMask, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where a mask is in its image."""
    box = mask.roi
    whole = np.zeros(shape, bool)
    inside = np.frombuffer(mask.mask.data, np.uint8).reshape(box.height, box.width) == 255
    whole[box.y_offset : box.y_offset + box.height, box.x_offset : box.x_offset + box.width] = (
        inside
    )
    return whole


def test_a_mask_for_each_component() -> None:
    of = two_cats()
    message = segmentation_to_masks(of, HEADER, find_components(of))
    right, left = message.masks
    assert (right.instance, right.area, right.score) == (1, 6, 0.25)
    assert (left.instance, left.area, left.class_name, left.class_id) == (2, 4, 'cat', 7)
    assert (left.roi.x_offset, left.roi.y_offset, left.roi.width, left.roi.height) == (0, 1, 2, 2)
    assert (left.mask.header, message.header, message.label_version) == (HEADER, HEADER, 3)
    together = pixels(right, (4, 6)) | pixels(left, (4, 6))
    np.testing.assert_array_equal(together, of.labels == 7)
    whole = segmentation_to_masks(of, HEADER).masks
    assert [(mask.instance, mask.area) for mask in whole] == [(0, 10)]


def test_components_as_detections() -> None:
    messages = pytest.importorskip('vision_msgs.msg')
    made = components_to_detections(find_components(two_cats()), HEADER)
    assert isinstance(made, messages.Detection2DArray)
    assert made.header == HEADER
    right, left = made.detections
    assert (right.id, left.id, left.header) == ('1', '2', HEADER)
    centre = left.bbox.center
    assert (centre.position.x, centre.position.y, centre.theta) == (1.0, 2.0, 0.0)
    assert (left.bbox.size_x, left.bbox.size_y) == (2.0, 2.0)
    (result,) = right.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('cat', 0.75)


@pytest.fixture
def publishers(context: Any) -> Iterator[results.ResultPublishers]:
    node = LifecycleNode('looked_at', context=context)
    yield results.ResultPublishers(node)
    node.destroy_node()


def test_nothing_is_looked_for_that_nobody_wants(
    publishers: results.ResultPublishers, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(results, 'find_components', lambda *of: looked.append(of) or ())
    publishers.publish(RGB, two_cats(), HEADER, NodeConfig(instances=True))
    assert looked == []
    peer.collect(ClassMaskArray, '/looked_at/masks')
    peer.spin_until(publishers.wanted)
    publishers.publish(RGB, two_cats(), HEADER, NodeConfig())
    assert looked == []
    publishers.publish(RGB, two_cats(), HEADER, NodeConfig(instances=True, instance_area=0.25))
    assert [area for _, area in looked] == [0.25]


@pytest.mark.skipif(find_spec('vision_msgs') is None, reason='vision_msgs is not installed')
def test_who_wants_detections_gets_components_without_node_instances(
    publishers: results.ResultPublishers, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_msgs.msg import Detection2DArray

    sent = []
    peer.collect(Detection2DArray, '/looked_at/detections')
    peer.spin_until(publishers.wanted)
    monkeypatch.setattr(publishers._detections, 'publish', sent.append)
    publishers.publish(RGB, two_cats(), HEADER, NodeConfig())
    assert [one.id for one in sent[0].detections] == ['1', '2']


def set_parameters(peer: Any, **values: object) -> Any:
    given = [Parameter(f'node.{k}', value=v).to_parameter_msg() for k, v in values.items()]
    request = SetParameters.Request(parameters=given)
    return peer.call(SetParameters, '/seg/set_parameters', request).results[-1]


@pytest.fixture
def with_instances(seg: Any, peer: Any) -> Iterator[None]:
    assert set_parameters(peer, instances=True).successful
    yield
    assert set_parameters(peer, instances=False, instance_area=0.001).successful


@pytest.mark.usefixtures('with_instances')
def test_two_cats_are_two_masks_of_one_class_and_one_again(peer: Any) -> None:
    answer = peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat']))
    (cat,) = (item.id for item in answer.label_map.classes)
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    heard, labels = peer.collect(ClassMaskArray, '/seg/masks'), peer.collect(Image, '/seg/labels')
    detected: list[Any] = []
    if find_spec('vision_msgs') is not None:
        from vision_msgs.msg import Detection2DArray

        detected = peer.collect(Detection2DArray, '/seg/detections')

    def shown(second: int) -> tuple[list[ClassMask], NDArray[np.bool_]]:
        message = array_to_image(TWO_CATS, 'rgb8', Header(frame_id='camera_optical'))
        message.header.stamp.sec = second
        masks = send_until(peer, camera, heard, message)
        picture = send_until(peer, camera, labels, message)
        inside = np.frombuffer(picture.data, np.uint8).reshape(TWO_CATS.shape[:2]) == cat
        return list(masks.masks), inside

    masks, inside = shown(501)
    first, second = masks[:2]
    assert [mask.instance for mask in masks] == list(range(1, len(masks) + 1))
    assert {mask.class_id for mask in masks} == {cat}
    sides = {mask.roi.x_offset < TWO_CATS.shape[1] // 2 for mask in (first, second)}
    assert sides == {True, False}
    parts = [pixels(mask, inside.shape) for mask in masks]
    assert np.sum(parts, axis=0).max() == 1  # apart
    assert not (np.any(parts, axis=0) & ~inside).any()
    if find_spec('vision_msgs') is not None:
        peer.spin_until(lambda: any(m.header.stamp.sec == 501 for m in detected))
        array = next(m for m in detected if m.header.stamp.sec == 501)
        assert [one.id for one in array.detections] == [str(mask.instance) for mask in masks]
        box = array.detections[0].bbox
        assert box.center.position.x - box.size_x / 2 == first.roi.x_offset
        assert box.center.position.y + box.size_y / 2 == first.roi.y_offset + first.roi.height

    assert set_parameters(peer, instance_area=0.9).successful
    assert shown(502)[0] == []
    refused = set_parameters(peer, instance_area=1.5)
    assert not refused.successful
    assert 'node.instance_area' in refused.reason
    assert set_parameters(peer, instances=False).successful
    masks, inside = shown(503)
    assert [(mask.instance, mask.area) for mask in masks] == [(0, np.count_nonzero(inside))]
