"""Frames of several cameras that wait are encoded together where that gains."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

import torch
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.config_files import load_config
from llmseg_ros.files import shipped_path
from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.pipeline import FramePipeline
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.frame_statistics import FrameStatistics

from ..helpers.faulty import FaultySegmenter

TOGETHER = str(Path(__file__).with_name('together.py'))
CAMERAS = ('a', 'b', 'c')


def frame(value: int, second: int = 1) -> Image:
    message = array_to_image(np.full((4, 6, 3), value, np.uint8), 'rgb8', Header())
    message.header.stamp.sec = second
    return message


class SeveralAtOnce(FaultySegmenter):
    """Finds in several images, each known by its first byte; fails where it is told to."""

    images_at_once = 8

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.before: dict[int, Any] = {}
        self.finished: list[int] = []
        self.bad: dict[int, Exception] = {}
        self.room = 8  # images, of which more are too many for the memory

    def find(self, rgb: Any, previous: Any) -> Any:
        return self.find_all([rgb], [previous])[0]

    def find_all(self, rgbs: Sequence[Any], previous: Sequence[Any]) -> list[Any]:
        numbers = [int(rgb[0, 0, 0]) for rgb in rgbs]
        self.batches.append(numbers)
        if len(rgbs) > self.room:
            raise torch.cuda.OutOfMemoryError('no memory')
        for number in numbers:
            if number in self.bad:
                raise self.bad[number]
        self.before.update(zip(numbers, previous, strict=True))
        return [super(SeveralAtOnce, self).find(*one) for one in zip(rgbs, previous, strict=True)]

    def finish(self, found: Any) -> Segmentation:
        self.finished.append(number := int(found.rgb[0, 0, 0]))
        if number + 100 in self.bad:
            raise self.bad[number + 100]
        return super().finish(found)


class Bench:
    """A pipeline of three cameras, into which frames are brought together."""

    def __init__(self, node: Any, overlap: str = 'off') -> None:
        config = NodeConfig(lazy=False, overlap=overlap, cameras=CAMERAS)
        self.cameras = [CameraStream(node, config, FrameStatistics(), name) for name in CAMERAS]
        self.segmenter = SeveralAtOnce()
        self.pipeline = FramePipeline(node, self.segmenter, config, self.cameras)  # type: ignore[arg-type]
        self.pipeline.start()

    def bring(self, *messages: Image | None) -> None:
        """Give a frame to each camera while it is no frame's turn; wait until all are done."""

        def give() -> None:
            for camera, message in zip(self.cameras, messages, strict=True):
                if message is not None:
                    self.pipeline.take(camera, message)

        self.pipeline.between_frames(give, 10.0)
        assert self.pipeline._finder.wait_idle(10)
        assert self.pipeline._finisher.wait_idle(10)

    def counts(self, name: str) -> list[int]:
        return [getattr(camera.statistics, name) for camera in self.cameras]


@pytest.fixture(params=['off', 'on'])
def bench(context: Any, request: pytest.FixtureRequest) -> Iterator[Bench]:
    node = LifecycleNode('together', context=context)
    bench = Bench(node, request.param)
    yield bench
    assert bench.pipeline.stop(10)
    for camera in bench.cameras:
        camera.destroy()
    node.destroy_node()


def test_what_waits_is_one_batch_and_each_has_the_frame_before_of_its_camera(bench: Bench) -> None:
    bench.bring(frame(1), frame(2), frame(3))
    bench.bring(frame(4), None, frame(6))
    bench.bring(None, frame(8), None)
    segmenter = bench.segmenter
    assert segmenter.batches == [[1, 2, 3], [4, 6], [8]]
    assert segmenter.finished == [1, 2, 3, 4, 6, 8]
    before = {n: p and int(p.rgb[0, 0, 0]) for n, p in segmenter.before.items()}
    assert before == {1: None, 2: None, 3: None, 4: 1, 6: 3, 8: 2}
    assert bench.counts('published') == [2, 2, 2]


def test_no_more_than_the_segmenter_gains_by(bench: Bench) -> None:
    bench.segmenter.images_at_once = 2
    bench.bring(frame(1), frame(2), frame(3))
    assert bench.segmenter.batches == [[1, 2], [3]]
    bench.segmenter.images_at_once = 1
    bench.bring(frame(4), frame(5), frame(6))
    assert bench.segmenter.batches[2:] == [[4], [5], [6]]


def test_a_frame_that_is_rejected_or_fails_costs_itself_alone(bench: Bench) -> None:
    rejected = frame(1)
    rejected.step = 1
    bench.bring(rejected, frame(2), frame(3))
    assert bench.segmenter.batches == [[2, 3]]
    bench.segmenter.bad = {5: ValueError('found'), 109: ValueError('refined')}
    bench.bring(frame(4), frame(5), frame(6))
    assert bench.segmenter.batches[1:] == [[4, 5, 6], [4], [5], [6]]
    bench.bring(frame(7), frame(8), frame(9))
    assert bench.segmenter.finished == [2, 3, 4, 6, 7, 8, 9]
    assert bench.counts('rejected') == [1, 0, 0]
    assert bench.counts('failed') == [0, 1, 1]
    assert bench.counts('published') == [2, 2, 2]
    assert [c.last_error for c in bench.cameras] == ['', 'ValueError: found', 'ValueError: refined']


def test_out_of_gpu_memory_there_are_fewer_at_once(bench: Bench) -> None:
    segmenter, batch = bench.segmenter, bench.segmenter.config.open_clip.batch
    segmenter.room = 1
    bench.bring(frame(1), frame(2), frame(3))
    bench.bring(frame(4), frame(5), frame(6))
    assert segmenter.batches == [[1, 2, 3], [1], [2], [3], [4], [5], [6]]
    assert bench.counts('published') == [2, 2, 2]
    assert segmenter.config.open_clip.batch == batch  # one by one there was room
    segmenter.room = 0
    bench.bring(frame(7), None, None)
    assert segmenter.config.open_clip.batch == batch // 2


def test_a_batch_is_one_turn(bench: Bench) -> None:
    """What is asked meanwhile waits for all of it, and is done before the next."""
    asked: list[int] = []
    segmenter = bench.segmenter
    find_all = segmenter.find_all

    def find_and_ask(rgbs: Sequence[Any], previous: Sequence[Any]) -> list[Any]:
        if len(segmenter.batches) == 0:
            pool.append(threading.Thread(target=bench.pipeline.between_frames, args=(ask, 10.0)))
            pool[0].start()
            while len(bench.pipeline._turns._queue) < 2:
                time.sleep(0.001)
            for camera in bench.cameras:
                bench.pipeline.take(camera, frame(9))
        return find_all(rgbs, previous)

    def ask() -> None:
        asked.extend(segmenter.batches[-1])

    pool: list[threading.Thread] = []
    segmenter.find_all = find_and_ask  # type: ignore[method-assign]
    bench.bring(frame(1), frame(2), frame(3))
    pool[0].join()
    assert asked == [1, 2, 3]
    assert segmenter.batches == [[1, 2, 3], [9, 9, 9]]


def test_labels_are_those_of_each_alone(
    context: Any, seg_process: Any, peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a node that takes the CPU for a device that gains, with a camera that is rejected."""
    monkeypatch.setattr(seg_process, 'begin', (TOGETHER,))
    config = shipped_path('config/offline.yaml')
    process = seg_process(
        tmp_path,
        *('--params-file', str(config), '-p', 'encoder.runtime:=torch'),
        *('-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[160]'),
        *('-p', 'node.cameras:=[a, b, c, d]', '-p', 'classes:=[cat, cup]'),
        *('-r', '__node:=together'),
    )
    cup = np.ascontiguousarray(data.coffee()[::2, ::2])
    cat = cv2.resize(data.chelsea(), cup.shape[1::-1])
    square = np.ascontiguousarray(data.chelsea()[:, 60:360])
    pictures = dict(zip('abd', (cat, cup, square), strict=True))
    try:
        process.wait_for_log('listening to /together/a/image')
        received = {name: peer.collect(Image, f'/together/{name}/labels') for name in 'abcd'}
        publishers = {
            name: peer.publisher(Image, f'/together/{name}/image', qos_profile_sensor_data)
            for name in 'abcd'
        }

        def answered() -> bool:
            for name, publisher in publishers.items():
                message = array_to_image(pictures.get(name, cat), 'rgb8', Header())
                message.header.stamp.sec = 1
                if name == 'c':
                    message.encoding = 'theora'
                publisher.publish(message)
            peer.spin_for(0.1)
            return 'found together: 3\n' in process.log and all(received[n] for n in pictures)

        peer.spin_until(answered)
        peer.spin_for(0.5)  # for those of the batch that was told
        assert '/together/c/image: frame rejected' in process.log
    finally:
        process.stop()
    assert not received['c']
    used = load_config(config)
    used = dataclasses.replace(
        used,
        encoder=dataclasses.replace(used.encoder, runtime='torch'),
        imagenet=dataclasses.replace(used.imagenet, model='lite0', short_sides=(160,)),
    )
    alone = Segmenter(used, ['cat', 'cup'])
    for name, rgb in pictures.items():
        expected = alone.segment(rgb).labels
        assert len(np.unique(expected)) == 2
        for labels in received[name]:
            found = np.frombuffer(labels.data, np.uint8).reshape(labels.height, labels.width)
            np.testing.assert_array_equal(found, expected)
