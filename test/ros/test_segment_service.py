"""One image asked for once: what ~/segment answers, and what it leaves as it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from llmseg_ros.msg import ClassRule
from llmseg_ros.srv import GetClasses, SegmentImage, SetClasses
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.ros.calls import CALLS, MOST_WAITING
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.segment_service import MOST_PIXELS

CAT = np.ascontiguousarray(data.chelsea())
MATCHING_S = 0.3
PARTS = ('also', 'never')
CUP = np.ascontiguousarray(data.coffee())


def image(rgb: Any = CAT, second: int = 7) -> Image:
    message = array_to_image(rgb, 'rgb8', Header(frame_id='gripper'))
    message.header.stamp.sec = second
    return message


def compressed(data: bytes) -> CompressedImage:
    message = CompressedImage(format='png', header=Header(frame_id='gripper'))
    message.data.frombytes(data)
    return message


def segment(peer: Any, **fields: Any) -> SegmentImage.Response:
    return peer.call(SegmentImage, '/seg/segment', SegmentImage.Request(**fields))


def set_classes(peer: Any, *names: str) -> Any:
    request = SetClasses.Request(names=list(names))
    return peer.call(SetClasses, '/seg/set_classes', request).label_map


def label_map(peer: Any) -> Any:
    return peer.call(GetClasses, '/seg/get_classes', GetClasses.Request()).label_map


def ids(label_map: Any) -> dict[str, int]:
    return {item.name: item.id for item in label_map.classes}


def labels_of(message: Any) -> Any:
    assert message.encoding == 'mono8'
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


def next_result(peer: Any, publisher: Any, results: list[Any], message: Image) -> Any:
    """Send a frame until its result is there."""
    end = time.monotonic() + 20
    while not (found := [r for r in results if r.header == message.header]):
        assert time.monotonic() < end
        publisher.publish(message)
        peer.spin_for(0.1)
    return found[0]


def test_an_image_is_answered_as_a_frame_is(seg: Any, peer: Any) -> None:
    in_force = set_classes(peer, 'cat', 'airplane')
    results = peer.collect(Image, '/seg/labels')
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    frame = next_result(peer, camera, results, image())
    answer = segment(peer, image=image())
    assert (answer.success, answer.message) == (True, '')
    assert answer.header == image().header
    assert answer.labels == frame
    assert answer.label_map == in_force
    assert answer.confidence.encoding == 'mono8'
    assert answer.masks.label_version == in_force.version
    cat = answer.masks.masks[0]
    label_hw = labels_of(answer.labels)
    assert (cat.class_name, cat.area) == ('cat', np.count_nonzero(label_hw == ids(in_force)['cat']))
    assert list(answer.stages) == [
        'convert',
        'describe',
        'wait',
        'encode',
        'gate',
        'fuse',
        'refine',
    ]
    assert all(value >= 0 for value in answer.milliseconds)
    png = cv2.imencode('.png', CAT[..., ::-1])[1].tobytes()
    assert segment(peer, compressed=compressed(png)).labels.data == answer.labels.data


def test_a_list_of_its_own_leaves_that_of_the_node_alone(seg: Any, peer: Any) -> None:
    in_force = set_classes(peer, 'airplane', 'cat')
    before = image(CUP)
    answer = segment(peer, image=before, names=['Cat', 'cup ', 'saucer', 'cup'])
    assert answer.success
    assert "repeats 'cup': merged" in answer.message
    assert answer.label_map.version == answer.masks.label_version == 0
    found = ids(answer.label_map)
    assert list(found) == ['cat', 'cup', 'saucer']  # the node's spelling of what it knows
    assert found['cat'] == ids(in_force)['cat']
    assert len({*found.values(), *ids(in_force).values()}) == 4
    assert labels_of(answer.labels)[200, 300] == found['cup']
    assert label_map(peer) == in_force
    # the ids of the call were of the call alone
    own = set_classes(peer, 'airplane', 'cat', 'never asked for')
    assert ids(own)['never asked for'] in (found['cup'], found['saucer'])


def test_the_newest_frame_of_the_camera(seg: Any, peer: Any) -> None:
    set_classes(peer, 'cat', 'cup')
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    for second, rgb in ((8, CAT), (9, CUP)):
        camera.publish(image(rgb, second))
        peer.spin_for(0.2)
    answer = segment(peer, max_age=60.0)
    assert answer.header == image(second=9).header
    assert answer.masks.masks[0].class_name == 'cup'
    peer.spin_for(0.2)
    old = segment(peer, max_age=0.1)
    assert not old.success
    assert 'the newest frame of /image came' in old.message
    assert 'max_age is 0.1 s' in old.message


def test_thresholds_and_rules_of_a_call(seg: Any, peer: Any) -> None:
    set_classes(peer, 'cat', 'cup')
    assert segment(peer, image=image()).masks.masks
    assert not segment(peer, image=image(), minimum=1.9).masks.masks
    everything = segment(peer, image=image(), background=0.0, names=['cat'])
    assert (labels_of(everything.labels) > 0).mean() > 0.5
    assert not segment(peer, image=image(), background=1.0, names=['cat']).masks.masks
    strict = ClassRule(name='cat', minimum_area=CAT.shape[0] * CAT.shape[1])
    ruled = segment(peer, image=image(), rules=[strict])  # of the node's own list
    assert ruled.success
    assert not ruled.masks.masks
    assert ids(ruled.label_map) == ids(label_map(peer))
    assert not label_map(peer).rules


def test_masks_are_of_components_where_those_of_frames_are(seg: Any, peer: Any) -> None:
    def set_instances(value: bool) -> None:
        parameter = Parameter('node.instances', value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        assert peer.call(SetParameters, '/seg/set_parameters', request).results[0].successful

    whole = segment(peer, image=image(), names=['cat']).masks.masks
    assert [mask.instance for mask in whole] == [0]
    set_instances(True)
    try:
        parts = segment(peer, image=image(), names=['cat']).masks.masks
    finally:
        set_instances(False)
    assert parts
    assert [mask.instance for mask in parts] == list(range(1, len(parts) + 1))


def png_of(width: int, height: int) -> bytes:
    return cv2.imencode('.png', np.zeros((height, width), np.uint8))[1].tobytes()


BAD = {
    'an empty image': ({'image': Image(width=4, encoding='rgb8')}, '4 x 0 pixels'),
    'an image that was not filled': ({'image': Image(encoding='rgb8')}, '0 x 0 pixels'),
    'no compressed data': ({'compressed': CompressedImage(format='jpeg')}, 'no readable JPEG'),
    '40 megapixels': (
        {'compressed': compressed(png_of(8000, 5000))},
        f'8000 x 5000 pixels are more than the {MOST_PIXELS} of a call',
    ),
    '40 megapixels by its header': (
        {'image': Image(width=8000, height=5000, encoding='rgb8', step=24000)},
        '8000 x 5000 pixels are more',
    ),
    'an encoding': ({'image': Image(width=1, height=1, encoding='32FC1')}, "'32FC1' is not"),
    'no image': ({'compressed': compressed(b'GIF89a')}, 'no readable JPEG or PNG'),
    'half an image': ({'compressed': compressed(png_of(64, 64)[:60])}, 'cut off'),
    'a camera': ({'camera': 'rear'}, "no camera 'rear': its one camera has no name"),
    'a minimum': ({'image': image(), 'minimum': 2.5}, 'gate.minimum is 2.5, expected 0.0 to 2.0'),
    'a number': ({'image': image(), 'minimum': math.nan}, 'gate.minimum is nan, expected'),
    'a background': ({'image': image(), 'background': -0.5}, 'background.threshold is -0.5'),
    'an age': ({'max_age': math.nan}, 'max_age is nan, expected seconds'),
    'a name': ({'image': image(), 'names': ['cat', '']}, 'a class name is empty: refused'),
    'too many names': (
        {'image': image(), 'names': [f'thing {i}' for i in range(101)]},
        '101 names are more than the 100 of a call',
    ),
    'a rule of an unknown class': (
        {'image': image(), 'names': ['cat'], 'rules': [ClassRule(name='cup')]},
        "rule of 'cup': the list has no such class",
    ),
    'a score out of range': (
        {'image': image(), 'names': ['cat'], 'rules': [ClassRule(name='cat', minimum_score=3.0)]},
        'minimum_score is 3.0, expected 0 to 1',
    ),
}


@pytest.mark.parametrize('what', BAD)
def test_bad_calls_are_refused_in_a_sentence(seg: Any, peer: Any, what: str) -> None:
    fields, sentence = BAD[what]
    answer = segment(peer, **fields)
    assert not answer.success
    assert sentence in answer.message
    assert len(answer.labels.data) == len(answer.label_map.classes) == 0


def test_a_thousand_calls_at_once_and_the_stream_goes_on(seg: Any, peer: Any) -> None:
    set_classes(peer, 'cat', 'cup')
    assert segment(peer, image=image()).success
    results = peer.collect(Image, '/seg/labels')
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    next_result(peer, camera, results, image(second=20))
    # a client whose own queues hold less would lose calls before the node sees them
    client = peer.node.create_client(SegmentImage, '/seg/segment', qos_profile=CALLS)
    peer.spin_until(client.service_is_ready)
    peer.spin_for(MATCHING_S)
    request = SegmentImage.Request(image=image(CAT[::4, ::4].copy()), names=['cat', 'cup'])
    calls = [client.call_async(request) for _ in range(1000)]
    begin = time.monotonic()
    next_result(peer, camera, results, image(second=21))
    stream_s = time.monotonic() - begin
    peer.spin_until(lambda: all(call.done() for call in calls))
    answers = [call.result() for call in calls]
    peer.node.destroy_client(client)
    refused = [answer for answer in answers if not answer.success]
    sentence = f'{MOST_WAITING} calls are waiting already, try again later'
    assert {answer.message for answer in refused} == {sentence}
    assert MOST_WAITING < len(answers) - len(refused) < 100
    assert stream_s < 5
    assert segment(peer, image=image()).success


def test_the_node_does_other_things_while_names_are_described(seg: Any, peer: Any) -> None:
    """No name of a rule takes an id, so this leaves few ids behind."""
    rules = [
        ClassRule(name=name, **{part: [f'{part} {name} {i}' for i in range(32)] for part in PARTS})
        for name in ('slow cat', 'slow cup', 'slow lamp', 'slow sofa')
    ]
    client = peer.node.create_client(SetClasses, '/seg/set_classes')
    peer.spin_until(client.service_is_ready)
    peer.spin_for(MATCHING_S)
    label_map(peer)
    call = client.call_async(SetClasses.Request(names=[rule.name for rule in rules], rules=rules))
    answered = 0
    while not call.done():
        label_map(peer)
        answered += not call.done()
    peer.node.destroy_client(client)
    assert call.result().success
    assert answered > 3


def test_without_a_model_and_without_frames(start_seg: Callable[..., Any], peer: Any) -> None:
    seg = start_seg(
        *('-r', '__node:=still', '-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[64]')
    )
    seg.wait_for_log('waiting to be configured')

    def ask(**fields: Any) -> SegmentImage.Response:
        return peer.call(SegmentImage, '/still/segment', SegmentImage.Request(**fields))

    unconfigured = ask(image=image())
    assert not unconfigured.success
    assert 'the node is not configured' in unconfigured.message
    configure = ChangeState.Request()
    configure.transition.id = Transition.TRANSITION_CONFIGURE
    assert peer.call(ChangeState, '/still/change_state', configure, 240.0).success
    answer = ask(image=image(), names=['cat'])
    assert answer.success
    assert answer.masks.masks[0].class_name == 'cat'
    assert 'no frame of /image: it is heard while the node is active' in ask().message
