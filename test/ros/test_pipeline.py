"""Faults cost a frame each, and are told once; the pipeline itself goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

import torch
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.pipeline import FramePipeline
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.system.frame_statistics import FrameStatistics


class FaultySegmenter:
    """Stands in where a fault can't be had from the real one: raises what it is told to."""

    def __init__(self, *faults: BaseException | None) -> None:
        self.config = SegmenterConfig()
        self.faults = list(faults)
        self.previous: list[Segmentation | None] = []

    def reconfigure(self, config: SegmenterConfig) -> None:
        self.config = config

    def segment(self, rgb: Any, previous: Segmentation | None) -> Segmentation:
        self.previous.append(previous)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        shape = rgb.shape[:2]
        return Segmentation(np.ones(shape, np.uint16), np.ones(shape, np.float32), (), 1, {})


class Log:
    """Collects what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, severity: str) -> Callable[[str], None]:
        return lambda message: self.lines.append((severity, message))


@pytest.fixture
def node(context: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from rclpy.lifecycle import LifecycleNode

    node = LifecycleNode('faulty', context=context)
    log = Log()
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    yield node
    node.destroy_node()


def run(node: Any, segmenter: FaultySegmenter, *messages: Image) -> FrameStatistics:
    """Work on messages one by one, in the test's own thread."""
    statistics = FrameStatistics()
    pipeline = FramePipeline(node, segmenter, NodeConfig(lazy=False), statistics)
    for message in messages:
        pipeline.take(message)
        pipeline._work_on(message)
    pipeline.destroy()
    return statistics


def frame(stamp: float = 1.0) -> Image:
    message = array_to_image(np.zeros((4, 6, 3), np.uint8), 'rgb8', Header())
    message.header.stamp.sec = int(stamp)
    message.header.stamp.nanosec = int(stamp % 1 * 1e9)
    return message


def logged(node: Any, severity: str) -> list[str]:
    return [message for kind, message in node.get_logger().lines if kind == severity]


def test_an_error_costs_one_frame_and_is_told_once_per_kind(node: Any) -> None:
    segmenter = FaultySegmenter(ValueError('first'), ValueError('second'), KeyError('other'), None)
    statistics = run(node, segmenter, *[frame()] * 4)
    assert (statistics.failed, statistics.published) == (3, 1)
    assert logged(node, 'error') == [
        'frame lost: ValueError: first',
        "frame lost: KeyError: 'other'",
    ]


def test_a_rejected_frame_is_told_with_topic_and_reason(node: Any) -> None:
    bad = frame()
    bad.step = 1
    statistics = run(node, FaultySegmenter(), bad, bad, frame())
    assert (statistics.rejected, statistics.published) == (2, 1)
    (warning,) = logged(node, 'warning')
    assert warning.startswith('/image: frame rejected: step 1 is less than the 18 bytes')


def test_out_of_gpu_memory_halves_the_batch_and_tries_once_more(node: Any) -> None:
    segmenter = FaultySegmenter(torch.cuda.OutOfMemoryError('no memory'))
    before = segmenter.config
    statistics = run(node, segmenter, frame())
    assert (statistics.failed, statistics.published) == (0, 1)
    halved = dataclasses.replace(before.open_clip, batch=before.open_clip.batch // 2)
    assert segmenter.config == dataclasses.replace(before, open_clip=halved)
    (warning,) = logged(node, 'warning')
    assert warning.endswith(f'open_clip.batch {halved.batch}')


def test_out_of_gpu_memory_twice_is_reported(node: Any) -> None:
    faults = [torch.cuda.OutOfMemoryError('no memory') for _ in range(2)]
    statistics = run(node, FaultySegmenter(*faults), frame(), frame())
    assert (statistics.failed, statistics.published) == (1, 1)
    assert logged(node, 'error') == ['frame lost: OutOfMemoryError: no memory']


@pytest.mark.parametrize(
    ('stamps', 'remembered'),
    [
        ([1.0, 1.1], True),
        ([1.0, 9.0], False),  # another scene by then
        ([9.0, 1.0], False),  # a bag begun anew
    ],
)
def test_the_frame_before_counts_while_it_is_recent(
    node: Any, stamps: list[float], remembered: bool
) -> None:
    segmenter = FaultySegmenter()
    run(node, segmenter, *map(frame, stamps))
    assert segmenter.previous[0] is None
    assert (segmenter.previous[1] is not None) == remembered


def test_a_jump_back_in_time_is_told(node: Any) -> None:
    run(node, FaultySegmenter(), frame(60.0), frame(59.5), frame(2.0))
    assert logged(node, 'info') == ['time went back by 57.5 s']
