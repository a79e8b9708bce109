"""The running node: parameters, laziness, age of results, answers while it computes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray
from llmseg_ros.msg import ClassList, LabelMap
from llmseg_ros.srv import GetClasses, SetClasses
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.qos import LATCHED

FRAME = array_to_image(data.chelsea(), 'rgb8', Header(frame_id='camera'))


@pytest.fixture
def camera(seg: Any, peer: Any) -> Any:
    return peer.publisher(Image, '/image', qos_profile_sensor_data)


def set_parameter(peer: Any, name: str, value: object) -> Any:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return peer.call(SetParameters, '/seg/set_parameters', request).results[0]


def send(peer: Any, camera: Any) -> None:
    FRAME.header.stamp = peer.node.get_clock().now().to_msg()
    camera.publish(FRAME)


def stream(peer: Any, camera: Any, seconds: float, rate_hz: float = 30.0) -> None:
    begin = time.monotonic()
    for index in range(round(seconds * rate_hz)):
        send(peer, camera)
        peer.spin_for(max(0.001, begin + (index + 1) / rate_hz - time.monotonic()))


def newest_counts(peer: Any) -> dict[str, int]:
    arrays = peer.collect(DiagnosticArray, '/diagnostics')
    peer.spin_until(lambda: len(arrays) == 2)  # the second was made after this call
    return {p.key: int(p.value) for p in arrays[-1].status[0].values if p.key.startswith('frames')}


def test_nothing_is_computed_while_nobody_subscribes(peer: Any, camera: Any) -> None:
    before = newest_counts(peer)
    stream(peer, camera, 1.0)
    after = newest_counts(peer)
    assert after['frames in'] > before['frames in'] + 20
    assert after['frames out'] == before['frames out']
    unwanted = after['frames nobody wanted'] - before['frames nobody wanted']
    assert unwanted == after['frames in'] - before['frames in']


def test_results_are_young_though_frames_come_faster_than_they_go(peer: Any, camera: Any) -> None:
    peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat', 'cup']))
    arrived: list[tuple[float, float]] = []

    def on_labels(message: Image) -> None:
        stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
        arrived.append((time.monotonic(), time.time() - stamp))

    subscription = peer.node.create_subscription(Image, '/seg/labels', on_labels, 10)
    stream(peer, camera, 4.0, rate_hz=60.0)
    peer.node.destroy_subscription(subscription)
    times, ages = np.array(arrived[3:]).T
    processing = np.median(np.diff(times))
    assert len(ages) > 5
    assert np.median(ages) < 2 * processing + 0.05


def test_services_answer_while_a_frame_is_segmented(peer: Any, camera: Any) -> None:
    peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat', 'cup']))
    labels = peer.collect(Image, '/seg/labels')
    answers = []
    for _ in range(15):
        for _ in range(3):  # one in work, one waiting
            send(peer, camera)
        peer.spin_for(0.02)
        begin = time.monotonic()
        peer.call(GetClasses, '/seg/get_classes', GetClasses.Request())
        answers.append(time.monotonic() - begin)
    peer.spin_until(lambda: labels)
    assert np.median(answers) < 0.05


def test_a_parameter_changes_while_frames_come(peer: Any, camera: Any) -> None:
    labels = peer.collect(Image, '/seg/labels')

    def newest_is(encoding: str) -> bool:
        send(peer, camera)
        peer.spin_for(0.2)
        return bool(labels) and labels[-1].encoding == encoding

    try:
        for encoding in ('16SC1', 'mono16'):
            assert set_parameter(peer, 'node.label_encoding', encoding).successful
            peer.spin_until(lambda encoding=encoding: newest_is(encoding))
    finally:
        set_parameter(peer, 'node.label_encoding', 'auto')
    peer.spin_until(lambda: newest_is('mono8'))


def test_a_setting_of_the_segmenter_changes_its_labels(peer: Any, camera: Any) -> None:
    peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat', 'cup']))
    labels = peer.collect(Image, '/seg/labels')

    def background(message: Image) -> float:
        return float(np.mean(np.frombuffer(message.data, np.uint8) == 0))

    def shares_after(threshold: float) -> float:
        assert set_parameter(peer, 'background.threshold', threshold).successful
        del labels[:]
        while len(labels) < 3:
            send(peer, camera)
            peer.spin_for(0.2)
        return background(labels[-1])

    try:
        low, high = shares_after(0.05), shares_after(0.95)
    finally:
        set_parameter(peer, 'background.threshold', 0.25)
    assert high > low


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('background.threshold', 2.0, 'background.threshold'),
        ('refine.name', 'magic', "refine.name is 'magic', expected one of crf"),
        ('encoder.name', 'simseg', 'read-only'),
        ('subclasses.store', '/etc/passwd', 'read-only'),
        ('node.lazy', 'yes', 'Wrong parameter type'),
        ('classes', [1, 2], 'classes is '),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_the_reason(
    seg: Any, peer: Any, name: str, value: object, reason: str
) -> None:
    result = set_parameter(peer, name, value)
    assert not result.successful
    assert reason in result.reason


def test_the_classes_parameter_sets_the_classes(seg: Any, peer: Any) -> None:
    assert set_parameter(peer, 'classes', ['towel', 'sponge']).successful

    def in_force() -> list[str]:
        request = GetClasses.Request()
        label_map = peer.call(GetClasses, '/seg/get_classes', request).label_map
        return [item.name for item in label_map.classes]

    peer.spin_until(lambda: in_force() == ['towel', 'sponge'])
    request = GetParameters.Request(names=['classes'])
    values = peer.call(GetParameters, '/seg/get_parameters', request).values
    assert list(values[0].string_array_value) == ['towel', 'sponge']


def test_time_going_backwards_is_survived(seg: Any, peer: Any, camera: Any) -> None:
    labels = peer.collect(Image, '/seg/labels')
    camera.publish(Image(encoding='theora', width=1, height=1, step=3, data=b'123'))
    seg.wait_for_log('frame rejected', 5)  # a warning before what is only an information
    for second in (1000, 10):
        FRAME.header.stamp.sec, FRAME.header.stamp.nanosec = second, 0

        def answered(second: int = second) -> bool:
            camera.publish(FRAME)
            peer.spin_for(0.2)
            return any(message.header.stamp.sec == second for message in labels)

        peer.spin_until(answered)
    seg.wait_for_log('time went back by ', 5)


def test_who_is_not_heard_is_named(seg: Any, peer: Any) -> None:
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    peer.unheard_publisher(ClassList, '/seg/classes', best_effort)
    seg.wait_for_log('/seg/classes: /peer is not heard: ', 20)


def test_many_changes_of_the_class_list_end_with_the_last(seg: Any, peer: Any) -> None:
    announced = peer.collect(LabelMap, '/seg/label_map', LATCHED)
    publisher = peer.publisher(ClassList, '/seg/classes', LATCHED)
    for number in range(200):
        publisher.publish(ClassList(names=['cat', f'thing {number}']))
        peer.spin_for(0.002)
    peer.spin_until(lambda: [c.name for c in announced[-1].classes] == ['cat', 'thing 199'])
    versions = [message.version for message in announced]
    assert versions == sorted(set(versions))
    cats = {c.id for message in announced for c in message.classes if c.name == 'cat'}
    assert len(cats) == 1


def test_contrasts_are_shown_and_go_and_come_with_their_parameter(seg: Any, peer: Any) -> None:
    announced = peer.collect(LabelMap, '/seg/label_map', LATCHED)
    request = SetClasses.Request(names=['boat', 'dock'])
    first = peer.call(SetClasses, '/seg/set_classes', request).label_map
    boat, _ = first.classes
    assert {'sea', 'surfboard'} <= set(boat.contrasts)
    assert 'dock' not in boat.contrasts  # a class that competes already
    try:
        assert set_parameter(peer, 'background.contrasts', False).successful
        peer.spin_until(lambda: announced and announced[-1].version > first.version)
        assert [list(item.contrasts) for item in announced[-1].classes] == [[], []]
        assert [item.id for item in announced[-1].classes] == [item.id for item in first.classes]
    finally:
        set_parameter(peer, 'background.contrasts', True)
    peer.spin_until(lambda: announced[-1].version == first.version + 2)
    assert announced[-1].classes == first.classes
