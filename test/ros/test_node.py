"""The node over DDS: frames and class lists in, labels and masks out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.msg import ClassList, ClassMaskArray, ClassRule, LabelMap
from llmseg_ros.srv import GetClasses, SetClasses
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.formats.image_messages import image_to_rgb
from llmseg_ros.ros.conversions import array_to_image

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CAT = data.chelsea()  # 451 x 300, the cat in the middle


def frame(second: int = 1) -> Image:
    message = array_to_image(CAT, 'rgb8', Header(frame_id='camera_optical'))
    message.header.stamp.sec, message.header.stamp.nanosec = second, 123456789
    return message


def set_classes(peer: Any, *names: str) -> SetClasses.Response:
    return peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=list(names)))


def label_map(peer: Any) -> LabelMap:
    return peer.call(GetClasses, '/seg/get_classes', GetClasses.Request()).label_map


def names(label_map: LabelMap) -> list[str]:
    return [item.name for item in label_map.classes]


def send_until(peer: Any, publisher: Any, received: list[Any], message: Image) -> Any:
    """Send a frame until its result is here; a frame may be dropped for a newer one."""

    def answered() -> bool:
        if not any(result.header == message.header for result in received):
            publisher.publish(message)
            peer.spin_for(0.3)
        return any(result.header == message.header for result in received)

    peer.spin_until(answered)
    return next(result for result in received if result.header == message.header)


@pytest.fixture
def camera(seg: Any, peer: Any) -> Any:
    return peer.publisher(Image, '/image', qos_profile_sensor_data)


def test_the_cat_is_labelled_cat(peer: Any, camera: Any) -> None:
    in_force = set_classes(peer, 'cat', 'airplane').label_map
    ids = {item.name: item.id for item in in_force.classes}
    all_labels = peer.collect(Image, '/seg/labels')
    all_masks = peer.collect(ClassMaskArray, '/seg/masks')
    labels = send_until(peer, camera, all_labels, frame())
    peer.spin_until(lambda: any(m.header == labels.header for m in all_masks))
    masks = next(m for m in all_masks if m.header == labels.header)

    assert labels.header == frame().header
    assert (labels.encoding, labels.height, labels.width) == ('mono8', 300, 451)
    label_hw = np.frombuffer(labels.data, np.uint8).reshape(300, 451)
    assert label_hw[150, 225] == ids['cat']
    assert (label_hw == ids['airplane']).mean() < 0.02

    assert (masks.height, masks.width) == (300, 451)
    assert masks.label_version == in_force.version
    cat = masks.masks[0]
    assert (cat.class_name, cat.class_id) == ('cat', ids['cat'])
    assert cat.area == np.count_nonzero(label_hw == cat.class_id)
    rows = slice(cat.roi.y_offset, cat.roi.y_offset + cat.roi.height)
    columns = slice(cat.roi.x_offset, cat.roi.x_offset + cat.roi.width)
    mask = np.frombuffer(cat.mask.data, np.uint8).reshape(cat.roi.height, cat.roi.width)
    np.testing.assert_array_equal(mask == 255, label_hw[rows, columns] == cat.class_id)
    assert cat.mask.header == labels.header


def test_confidence_and_overlay_come_while_subscribed(peer: Any, camera: Any) -> None:
    set_classes(peer, 'cat')
    confidences = peer.collect(Image, '/seg/confidence', qos_profile_sensor_data)
    overlays = peer.collect(Image, '/seg/overlay', qos_profile_sensor_data)
    confidence = send_until(peer, camera, confidences, frame(2))
    overlay = send_until(peer, camera, overlays, frame(3))
    assert (confidence.encoding, confidence.height, confidence.width) == ('mono8', 300, 451)
    assert overlay.encoding == 'rgb8'
    assert image_to_rgb(overlay).shape == CAT.shape
    assert (image_to_rgb(overlay) != CAT).any()


def test_a_list_from_a_volatile_publisher_is_heard(seg: Any, peer: Any) -> None:
    volatile = QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
    publisher = peer.publisher(ClassList, '/seg/classes', volatile)
    publisher.publish(ClassList(names=['volatile lamp']))
    peer.spin_until(lambda: names(label_map(peer)) == ['volatile lamp'])


def test_a_list_published_before_the_connection_is_heard(
    seg: Any, peer: Any, stranger: Any
) -> None:
    publisher = stranger.unheard_publisher(ClassList, '/seg/classes', LATCHED)
    publisher.publish(ClassList(names=['latched lamp']))
    assert publisher.get_subscription_count() == 0  # only history can bring it to the node
    peer.spin_until(lambda: names(label_map(peer)) == ['latched lamp'])


def test_lists_of_a_latched_publisher_are_applied_once_each(seg: Any, peer: Any) -> None:
    """Both of the node's subscriptions hear them."""
    announced = peer.collect(LabelMap, '/seg/label_map', LATCHED)
    publisher = peer.publisher(ClassList, '/seg/classes', LATCHED)
    peer.spin_until(lambda: publisher.get_subscription_count() == 2)
    version = set_classes(peer, 'first').label_map.version
    for name in ('second', 'third'):
        publisher.publish(ClassList(names=[name]))
        peer.spin_until(lambda name=name: names(announced[-1]) == [name])
    peer.spin_for(0.3)
    assert announced[-1].version == version + 2


def test_a_late_subscriber_gets_the_label_map(seg: Any, peer: Any) -> None:
    in_force = set_classes(peer, 'cat', 'zebra crossing').label_map
    announced = peer.collect(LabelMap, '/seg/label_map', LATCHED)
    peer.spin_until(lambda: announced)
    assert announced == [in_force]
    assert names(in_force) == ['cat', 'zebra crossing']
    assert in_force.classes[0].source == 'pack'
    assert len(in_force.classes[0].subclasses) > 5
    assert list(in_force.classes[1].subclasses) == ['zebra crossing']


def test_label_info_says_the_same_as_the_label_map(seg: Any, peer: Any) -> None:
    messages = pytest.importorskip('vision_msgs.msg')
    set_classes(peer, 'cat', 'zebra crossing')
    announced = peer.collect(messages.LabelInfo, '/seg/label_info', LATCHED)
    peer.spin_until(lambda: announced)
    classes = {item.class_id: item.class_name for item in announced[-1].class_map}
    in_force = label_map(peer)
    assert classes == {0: 'background', **{item.id: item.name for item in in_force.classes}}
    assert announced[-1].header == in_force.header


def test_bad_names_are_refused_and_the_rest_is_taken(seg: Any, peer: Any) -> None:
    response = set_classes(peer, 'cat', ' CAT', 'x' * 65, 'bell\a', '', 'dog')
    assert not response.success
    assert names(response.label_map) == ['cat', 'dog']
    for part in ("'CAT' repeats 'cat': merged", '65 characters', 'control characters', 'empty'):
        assert part in response.message
    assert set_classes(peer, 'cat', 'CAT').success  # merged, nothing lost


def test_rules_of_classes_are_in_force_shown_and_gone_with_their_list(seg: Any, peer: Any) -> None:
    rules = [
        ClassRule(name='Cat', minimum_score=0.25, also=['mouser'], never=['stuffed toy']),
        ClassRule(name='cup', minimum_score=7.0, minimum_area=40),
        ClassRule(name='dog'),
    ]
    request = SetClasses.Request(names=['cat', 'cup'], rules=rules)
    response = peer.call(SetClasses, '/seg/set_classes', request)
    assert not response.success
    assert "rule of 'cup': minimum_score is 7.0, expected 0 to 1" in response.message
    assert "rule of 'dog': the list has no such class" in response.message
    cat, cup = response.label_map.rules
    assert (cat.name, cat.minimum_score, cat.never) == ('cat', 0.25, ['stuffed toy'])
    assert (cup.name, cup.minimum_score, cup.minimum_area) == ('cup', 0.0, 40)
    assert 'mouser' in response.label_map.classes[0].subclasses
    assert names(response.label_map) == ['cat', 'cup']

    publisher = peer.publisher(ClassList, '/seg/classes', LATCHED)
    publisher.publish(ClassList(names=['cup'], rules=[ClassRule(name='cup', minimum_area=9)]))
    peer.spin_until(lambda: [r.minimum_area for r in label_map(peer).rules] == [9])
    version = label_map(peer).version
    after = set_classes(peer, 'cup').label_map
    assert (list(after.rules), after.version) == ([], version + 1)


def test_ids_keep_their_names(seg: Any, peer: Any) -> None:
    before = {item.name: item.id for item in set_classes(peer, 'cup', 'plate').label_map.classes}
    set_classes(peer, 'fork')
    after = {item.name: item.id for item in set_classes(peer, 'plate', 'cup').label_map.classes}
    assert before == after


def test_without_classes_all_is_background(peer: Any, camera: Any) -> None:
    response = set_classes(peer)
    assert (response.success, names(response.label_map)) == (True, [])
    labels = peer.collect(Image, '/seg/labels')
    masks = peer.collect(ClassMaskArray, '/seg/masks')
    answer = send_until(peer, camera, labels, frame(4))
    assert not any(answer.data)
    assert send_until(peer, camera, masks, frame(5)).masks == []


def spoil(**changes: object) -> Callable[[Image], None]:
    def apply(message: Image) -> None:
        for name, value in changes.items():
            setattr(message, name, value)

    return apply


@pytest.mark.parametrize(
    'change',
    [
        spoil(encoding='theora'),
        spoil(step=7),
        spoil(data=b'short'),
        spoil(width=0),
        spoil(encoding='32FC1', step=4 * 451, data=np.full((300, 451), np.nan, 'f4').tobytes()),
    ],
    ids=['encoding', 'step', 'data', 'width', 'nan'],
)
def test_a_bad_frame_is_survived(
    seg: Any, peer: Any, camera: Any, change: Callable[[Image], None]
) -> None:
    labels = peer.collect(Image, '/seg/labels')
    bad, good = frame(6), frame(7)
    change(bad)
    for _ in range(3):
        camera.publish(bad)
        peer.spin_for(0.1)
    send_until(peer, camera, labels, good)
    assert all(message.header != bad.header for message in labels)
    assert '/image: frame rejected: ' in seg.log
    assert 'Traceback' not in seg.log
