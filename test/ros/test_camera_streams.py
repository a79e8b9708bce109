"""What one of several cameras has of its own: name, topics, rate, slot and frame before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.config import ConfigError
from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.parameters import NodeConfig, check_cameras, of_camera
from llmseg_ros.ros.pipeline import FramePipeline, TakenFrame
from llmseg_ros.system.frame_statistics import FrameStatistics

from ..helpers.faulty import FaultySegmenter


def frame(second: int = 1) -> Image:
    message = array_to_image(np.zeros((4, 6, 3), np.uint8), 'rgb8', Header())
    message.header.stamp.sec = second
    return message


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


def test_a_silent_camera_is_told_with_what_to_do(
    node: Any, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('llmseg_ros.ros.silence.PATIENCE_S', -1.0)
    config = NodeConfig(cameras=('rear', 'side', 'top'), compressed_cameras=('side',))
    rear, side, top = (CameraStream(node, config, FrameStatistics(), n) for n in config.cameras)
    for camera in (rear, side, top):
        assert camera.why_silent() == ''  # it is not heard
        camera.start(lambda *_: None)
    peer.unheard_publisher(CompressedImage, f'{rear.topic}/compressed')
    peer.unheard_publisher(Image, side.topic)
    topics = f'{rear.topic}/compressed', side.topic
    peer.spin_until(lambda: all(node.count_publishers(topic) for topic in topics))
    told = [camera.why_silent() for camera in (rear, side, top)]
    assert told[0].endswith(
        ': put rear into node.compressed_cameras and remap ~/rear/image to /of_cameras/rear/image'
    )
    assert told[1].endswith(
        ': set node.image_transport to raw, leave side out of node.compressed_cameras and remap '
        '~/side/image to /of_cameras/side/image'
    )
    assert 'on /of_cameras/top/image: nobody publishes it; remap it (~/top/image:=' in told[2]
    for camera in (rear, side, top):
        camera.destroy()


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


def test_activated_anew_the_first_frame_counts(node: Any) -> None:
    camera = CameraStream(node, NodeConfig(), FrameStatistics())
    assert camera.due(0.001, 0.0)
    assert not camera.due(0.001, 5.0)
    camera.stop()
    camera.start(lambda *_: None)
    assert camera.due(0.001, 6.0)
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
        pipeline.take(cameras[0], frame(second))
    pipeline._finder._running = False
    pipeline.start()
    while not taken:
        time.sleep(0.01)
    pipeline.take(cameras[0], frame(4))
    assert pipeline.stop(10)
    assert [t.message.header.stamp.sec for t in taken] == [3]
    counts = cameras[0].statistics
    assert (counts.received, counts.dropped, counts.above_rate) == (4, 2, 1)
    assert (total.received, total.dropped, total.above_rate) == (4, 2, 1)
    for camera in cameras:
        camera.destroy()


def test_the_frame_before_is_of_the_same_camera(node: Any) -> None:
    segmenter = FaultySegmenter()
    config = NodeConfig(lazy=False)
    one, other = (CameraStream(node, config, FrameStatistics(), name) for name in 'ab')
    pipeline = FramePipeline(node, segmenter, config, [one, other])
    before: dict[CameraStream, Any] = {one: None, other: None}
    for camera in (one, other, one, other, other):
        pipeline._find_in_turn(TakenFrame(camera, frame(), None))
        assert segmenter.previous[-1] is before[camera]
        assert camera.previous is not None
        before[camera] = camera.previous[1]
    for camera in (one, other):
        camera.destroy()
