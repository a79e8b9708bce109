"""Several cameras in one node: each with its own topics, all with one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray
from llmseg_ros.srv import GetClasses, SetClasses
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.config import ConfigError
from llmseg_ros.files import shipped_path
from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.diagnostics import WARN
from llmseg_ros.ros.parameters import NodeConfig, check_cameras, of_camera
from llmseg_ros.ros.pipeline import FramePipeline, TakenFrame
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.frame_statistics import FrameStatistics

CAT = data.chelsea()
CUP = np.ascontiguousarray(data.coffee()[::2, ::2])
LABELLED = ('labels', 'masks', 'confidence', 'overlay')
WITH_DEPTH = ('points', 'mask', 'depth', 'camera_info')


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        ({'cameras': ('front', '')}, 'an empty name: name each camera, such as front'),
        ({'cameras': ('front', 'rear', 'front')}, "has 'front' twice: name each camera once"),
        ({'cameras': ('front left',)}, "no topic can have 'front left' in its name: take 1 to 64"),
        ({'cameras': ('2nd',)}, "no topic can have '2nd' in its name"),
        ({'cameras': ('front/left',)}, 'letters, digits and _, and no digit first'),
        ({'cameras': ('x' * 65,)}, 'take 1 to 64 letters'),
        ({'cameras': ('a',), 'compressed_cameras': ('b',)}, "has 'b', which node.cameras has not"),
        ({'depth': '/{camera}/depth'}, 'node.cameras has no name to put into it'),
        (
            {'cameras': ('a', 'b'), 'depth': '/depth/image'},
            "is '/depth/image' for 2 cameras: write {camera} where their topics have the name, "
            'such as /{camera}/image',
        ),
    ],
)
def test_names_and_topics_that_cannot_be_used_are_refused(
    given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_cameras(NodeConfig(**given))
    assert sentence in str(refusal.value)


def test_the_topics_of_one_camera() -> None:
    config = NodeConfig(
        cameras=('a', 'b'), compressed_cameras=('b',), depth='/{camera}/depth/image'
    )
    check_cameras(config)
    front, rear = (of_camera(config, name) for name in 'ab')
    assert (front.depth, front.image_transport) == ('/a/depth/image', 'raw')
    assert (rear.depth, rear.image_transport) == ('/b/depth/image', 'compressed')


def test_a_name_given_twice_ends_the_node_with_a_sentence(start_seg: Callable[..., Any]) -> None:
    seg = start_seg('-p', 'node.cameras:=[front, front]')
    assert seg.process.wait(60) == 1
    assert seg.log == "seg_node: node.cameras has 'front' twice: name each camera once\n"


@pytest.fixture
def node(context: Any) -> Iterator[Any]:
    node = LifecycleNode('of_cameras', context=context)
    yield node
    node.destroy_node()


@pytest.mark.parametrize(
    ('rate_hz', 'arrivals', 'worked_on'),
    [
        (0.0, [0.0, 0.0, 0.1], [0.0, 0.0, 0.1]),
        (2.0, [0.0, 0.1, 0.4, 0.51, 0.9, 1.02], [0.0, 0.51, 1.02]),
        (2.0, [0.0, 0.34, 0.67, 1.01, 1.34, 1.67, 2.01], [0.0, 0.67, 1.01, 1.67, 2.01]),
        (2.0, [0.0, 7.0, 7.1, 7.4, 7.6], [0.0, 7.0, 7.6]),  # none is owed for a silence
        (10.0, [0.0, 0.099, 0.199, 0.299, 0.399], [0.0, 0.199, 0.299, 0.399]),
    ],
)
def test_the_rate_of_a_camera(
    node: Any, rate_hz: float, arrivals: list[float], worked_on: list[float]
) -> None:
    camera = CameraStream(node, NodeConfig(), FrameStatistics())
    assert [t for t in arrivals if camera.due(rate_hz, 100.0 + t)] == worked_on
    camera.destroy()


def test_a_higher_rate_counts_at_once(node: Any) -> None:
    camera = CameraStream(node, NodeConfig(), FrameStatistics())
    assert camera.due(0.01, 0.0)
    assert not camera.due(10.0, 0.05)
    assert camera.due(10.0, 0.16)
    camera.destroy()


def test_a_frame_above_the_rate_takes_the_place_of_one_that_waits(node: Any) -> None:
    config = NodeConfig(lazy=False, max_rate=0.001)
    total = FrameStatistics()
    cameras = [CameraStream(node, config, FrameStatistics(total), name) for name in 'ab']
    pipeline = FramePipeline(node, None, config, cameras)  # type: ignore[arg-type]
    taken: list[TakenFrame] = []
    pipeline._finder._process = taken.append
    pipeline._finder._running = True  # its thread comes late
    for second in (1, 2, 3):
        pipeline.take(cameras[0], frame(CAT, second))
    pipeline._finder._running = False
    pipeline.start()
    while not taken:
        time.sleep(0.01)
    pipeline.take(cameras[0], frame(CAT, 4))
    assert pipeline.stop(10)
    assert [t.message.header.stamp.sec for t in taken] == [3]
    counts = cameras[0].statistics
    assert (counts.received, counts.dropped, counts.above_rate) == (4, 2, 1)
    assert (total.received, total.dropped, total.above_rate) == (4, 2, 1)
    for camera in cameras:
        camera.destroy()


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_the_frame_before_is_of_the_same_camera(
    node: Any, fast_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter.from_config(fast_config, classes=['cat', 'cup', 'sofa'])
    find, calls = segmenter.find, []

    def noted(rgb: NDArray[np.uint8], previous: Any) -> Any:
        calls.append((previous, find(rgb, previous)))
        return calls[-1][1]

    monkeypatch.setattr(segmenter, 'find', noted)
    config = NodeConfig(lazy=False, overlap='off')
    cameras = [CameraStream(node, config, FrameStatistics(), name) for name in 'ab']
    pipeline = FramePipeline(node, segmenter, config, cameras)
    for second, pictures in enumerate([(CAT, CUP[:60, :80].copy()), (CUP, CAT), (CAT, CAT)], 1):
        for camera, rgb in zip(cameras, pictures, strict=True):
            pipeline._find(TakenFrame(camera, frame(rgb, second), None))
    before = [previous for previous, _ in calls]
    assert before == [None, None, *(found for _, found in calls[:4])]
    assert [camera.statistics.published for camera in cameras] == [3, 3]
    for camera in cameras:
        camera.destroy()
    segmenter.close()


@pytest.fixture(scope='module')
def many(
    context: Any, seg_process: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Start a node with three cameras, set up as the session's node with one."""
    process = seg_process(
        tmp_path_factory.mktemp('many'),
        '--params-file',
        str(shipped_path('config/offline.yaml')),
        *('-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[160]'),
        *('-p', 'node.cameras:=[front, rear, side]', '-p', 'node.compressed_cameras:=[side]'),
        *('-p', 'node.depth:=/{camera}/depth/image', '-p', 'classes:=[cat, cup]'),
        *('-r', '__node:=many', '-r', '~/rear/image:=/back/image_raw'),
    )
    process.wait_for_log('listening to /many/front/image, depth from /front/depth/image; /back/')
    yield process
    process.stop()


def frame(rgb: NDArray[np.uint8], second: int) -> Image:
    message = array_to_image(rgb, 'rgb8', Header(frame_id='camera'))
    message.header.stamp.sec = second
    return message


def answers(peer: Any, publisher: Any, received: list[Image], message: Any) -> Image:
    """Send a frame until its labels are here."""

    def answered() -> bool:
        if not any(labels.header == message.header for labels in received):
            publisher.publish(message)
            peer.spin_for(0.3)
        return any(labels.header == message.header for labels in received)

    peer.spin_until(answered)
    return next(labels for labels in received if labels.header == message.header)


def names_of_pixels(peer: Any, node: str, labels: Image) -> NDArray[np.str_]:
    answer = peer.call(GetClasses, f'/{node}/get_classes', GetClasses.Request())
    names = np.full(256, 'background', dtype='U20')
    for item in answer.label_map.classes:
        names[item.id] = item.name
    return names[np.frombuffer(labels.data, np.uint8).reshape(labels.height, labels.width)]


def statuses(peer: Any) -> dict[str, Any]:
    """Return what the node says next of itself and its cameras."""
    arrays = peer.collect(DiagnosticArray, '/diagnostics')

    def said() -> list[DiagnosticArray]:
        return [array for array in arrays if array.status[0].name == '/many']

    peer.spin_until(lambda: len(said()) == 2)  # the second was made after this call
    return {status.name: status for status in said()[-1].status}


def value(status: Any, key: str) -> int:
    return int(next(pair.value for pair in status.values if pair.key == key))


def test_every_camera_has_topics_of_its_own(many: Any, peer: Any) -> None:
    wanted = {f'/many/{c}/{t}' for c in ('front', 'rear', 'side') for t in LABELLED + WITH_DEPTH}
    peer.spin_until(lambda: all(peer.node.count_publishers(topic) for topic in wanted))
    found = {name for name, _ in peer.node.get_publisher_names_and_types_by_node('many', '/')}
    assert wanted <= found
    assert {name for name in found - wanted if name.startswith('/many/')} - {
        '/many/label_info'
    } == {'/many/label_map', '/many/transition_event'}
    heard = {name for name, _ in peer.node.get_subscriber_names_and_types_by_node('many', '/')}
    assert {'/many/front/image', '/back/image_raw', '/many/side/image/compressed'} <= heard


def test_labels_are_those_of_a_node_with_one_camera(many: Any, seg: Any, peer: Any) -> None:
    peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat', 'cup']))
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    alone = [
        names_of_pixels(
            peer, 'seg', answers(peer, camera, peer.collect(Image, '/seg/labels'), message)
        )
        for message in (frame(CAT, 1000), frame(CUP, 2000))
    ]
    assert all(len(np.unique(names)) == 2 for names in alone)

    png = cv2.imencode('.png', CUP[..., ::-1])[1].tobytes()
    packed = CompressedImage(header=frame(CUP, 3).header, format='png', data=png)
    for topic, name, message, expected in (
        ('/many/front/image', 'front', frame(CAT, 1), alone[0]),
        ('/back/image_raw', 'rear', frame(CUP, 2), alone[1]),
        ('/many/side/image/compressed', 'side', packed, alone[1]),
    ):
        publisher = peer.publisher(type(message), topic, qos_profile_sensor_data)
        received = peer.collect(Image, f'/many/{name}/labels')
        labels = answers(peer, publisher, received, message)
        np.testing.assert_array_equal(names_of_pixels(peer, 'many', labels), expected)


def test_a_camera_that_is_rejected_or_silent_harms_no_other(many: Any, peer: Any) -> None:
    front = peer.publisher(Image, '/many/front/image', qos_profile_sensor_data)
    rear = peer.publisher(Image, '/back/image_raw', qos_profile_sensor_data)
    labels = peer.collect(Image, '/many/front/labels')
    peer.collect(Image, '/many/rear/labels')
    bad = frame(CAT, 10)
    bad.encoding = 'theora'
    peer.spin_until(lambda: peer.node.count_subscribers('/many/rear/labels'))
    for second in range(20, 26):
        rear.publish(bad)
        answers(peer, front, labels, frame(CAT, second))
    found = statuses(peer)
    many.wait_for_log('/back/image_raw: frame rejected: ', 5)
    assert value(found['/many/rear'], 'frames rejected') >= 3
    assert value(found['/many/front'], 'frames rejected') == 0
    assert value(found['/many'], 'frames in') == sum(
        value(found[f'/many/{name}'], 'frames in') for name in ('front', 'rear', 'side')
    )
    assert found['/many'].level == WARN
    assert 'rear: frames are rejected, the log says why' in found['/many'].message
    assert found['/many/rear'].level == WARN


def test_a_camera_may_change_its_size(many: Any, peer: Any) -> None:
    front = peer.publisher(Image, '/many/front/image', qos_profile_sensor_data)
    labels = peer.collect(Image, '/many/front/labels')
    sizes = ((300, 451), (60, 80), (300, 451), (480, 360))
    for second, (height, width) in enumerate(sizes, 30):
        message = frame(cv2.resize(CAT, (width, height)), second)
        answer = answers(peer, front, labels, message)
        assert (answer.height, answer.width) == (height, width)
    assert 'frame lost' not in many.log


def test_a_silent_camera_is_told_with_what_to_do(many: Any, peer: Any) -> None:
    peer.unheard_publisher(Image, '/many/side/image')
    many.wait_for_log('only on /many/side/image: set node.image_transport to raw', 20)
    peer.unheard_publisher(CompressedImage, '/back/image_raw/compressed')
    many.wait_for_log(': put rear into node.compressed_cameras and remap ~/rear/image to', 20)


def test_frames_above_the_rate_are_counted_apart(many: Any, peer: Any) -> None:
    publishers = [
        peer.publisher(Image, topic, qos_profile_sensor_data)
        for topic in ('/many/front/image', '/back/image_raw')
    ]
    received = [peer.collect(Image, f'/many/{name}/labels') for name in ('front', 'rear')]
    peer.spin_for(0.5)

    def limit(rate_hz: float) -> None:
        parameter = Parameter('node.max_rate', value=rate_hz).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        assert peer.call(SetParameters, '/many/set_parameters', request).results[0].successful

    limit(2.0)
    before = statuses(peer)
    for labels in received:
        labels.clear()
    begin = time.monotonic()
    while time.monotonic() < begin + 2.0:
        for publisher in publishers:
            publisher.publish(frame(CUP, 60))
        peer.spin_for(0.05)
    peer.spin_for(0.3)
    after = statuses(peer)
    limit(0.0)
    for name, labels in zip(('front', 'rear'), received, strict=True):
        status, first = after[f'/many/{name}'], before[f'/many/{name}']
        assert 2 <= len(labels) <= 6
        key = 'frames above the rate'
        assert value(status, key) > value(first, key) + 10
