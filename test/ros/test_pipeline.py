"""Faults cost a frame each, and are told once; the pipeline itself goes on."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

import torch
from llmseg_ros.msg import PatchFeatures
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.pipeline import FramePipeline, TakenFrame
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.system.frame_statistics import FrameStatistics

from ..helpers.faulty import FaultySegmenter


class Log:
    """Collects what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, severity: str) -> Callable[[str], None]:
        return lambda message: self.lines.append((severity, message))


@pytest.fixture(params=['find', 'finish'])
def in_either_part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultySegmenter, 'in_finish', request.param == 'finish')


@pytest.fixture
def node(context: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from rclpy.lifecycle import LifecycleNode

    node = LifecycleNode('faulty', context=context)
    log = Log()
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    yield node
    node.destroy_node()


def make(
    node: Any, segmenter: FaultySegmenter, overlap: str = 'auto'
) -> tuple[FramePipeline, CameraStream]:
    """Make a pipeline for one camera, which wants every frame."""
    config = NodeConfig(lazy=False, overlap=overlap)
    camera = CameraStream(node, config, FrameStatistics())
    return FramePipeline(node, segmenter, config, [camera]), camera


def run(node: Any, segmenter: FaultySegmenter, *messages: Image) -> FrameStatistics:
    """Work on messages one by one, in the test's own thread."""
    pipeline, camera = make(node, segmenter)
    for message in messages:
        pipeline.take(camera, message)
        pipeline._find_in_turn(TakenFrame(camera, message, None))
    camera.destroy()
    return camera.statistics


def frame(stamp: float = 1.0) -> Image:
    message = array_to_image(np.zeros((4, 6, 3), np.uint8), 'rgb8', Header())
    message.header.stamp.sec = int(stamp)
    message.header.stamp.nanosec = int(stamp % 1 * 1e9)
    return message


def logged(node: Any, severity: str) -> list[str]:
    return [message for kind, message in node.get_logger().lines if kind == severity]


@pytest.mark.usefixtures('in_either_part')
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


@pytest.mark.usefixtures('in_either_part')
def test_out_of_gpu_memory_halves_the_batch_and_tries_once_more(node: Any) -> None:
    segmenter = FaultySegmenter(torch.cuda.OutOfMemoryError('no memory'))
    before = segmenter.config
    statistics = run(node, segmenter, frame())
    assert (statistics.failed, statistics.published) == (0, 1)
    halved = dataclasses.replace(before.open_clip, batch=before.open_clip.batch // 2)
    assert segmenter.config == dataclasses.replace(before, open_clip=halved)
    (warning,) = logged(node, 'warning')
    assert warning.endswith(f'open_clip.batch {halved.batch}')


@pytest.mark.usefixtures('in_either_part')
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


class HeldSegmenter(FaultySegmenter):
    """Stands in for one whose parts take as long as a test lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, int]] = []
        self.changed = threading.Condition()
        self.held = {'find', 'finish'}  # parts that wait for `let`
        self.finish_s = 0.0

    def find(self, rgb: Any, previous: Any) -> Any:
        self.work('find', int(rgb[0, 0, 0]))
        return super().find(rgb, previous)

    def finish(self, found: Any) -> Segmentation:
        self.work('finish', int(found.rgb[0, 0, 0]))
        time.sleep(self.finish_s)
        return super().finish(found)

    def work(self, part: str, number: int) -> None:
        with self.changed:
            self.events.append((part, number))
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: part not in self.held, 10)

    def wait_for(self, part: str, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: (part, number) in self.events, 10), self.events

    def let(self, part: str) -> None:
        with self.changed:
            self.held.discard(part)
            self.changed.notify_all()


class Held(NamedTuple):
    segmenter: HeldSegmenter
    pipeline: FramePipeline
    camera: CameraStream


@pytest.fixture
def held(node: Any) -> Iterator[Held]:
    segmenter = HeldSegmenter()
    pipeline, camera = make(node, segmenter, overlap='on')
    pipeline.start()
    yield Held(segmenter, pipeline, camera)
    for part in ('find', 'finish'):
        segmenter.let(part)
    assert pipeline.stop(10)
    camera.destroy()


def numbered(number: int) -> Image:
    message = frame(1 + number / 10)
    message.data = bytes([number]) * len(message.data)
    return message


def bring_two_into_work(held: Held) -> None:
    """Leave frame 1 held in its second part, and frame 2 waiting for that after its first."""
    segmenter, pipeline, camera = held
    segmenter.let('find')
    pipeline.take(camera, numbered(1))
    segmenter.wait_for('finish', 1)
    pipeline.take(camera, numbered(2))
    segmenter.wait_for('find', 2)


def test_a_frame_is_begun_while_the_one_before_is_refined(held: Held) -> None:
    segmenter, pipeline, camera = held
    statistics = camera.statistics
    bring_two_into_work(held)
    for number in (3, 4, 5):  # the first part waits with frame 2, so the newest of them is left
        pipeline.take(camera, numbered(number))
    segmenter.let('finish')
    segmenter.wait_for('finish', 5)
    assert pipeline.stop(10)
    assert [number for part, number in segmenter.events if part == 'finish'] == [1, 2, 5]
    assert (statistics.published, statistics.dropped, statistics.failed) == (3, 2, 0)
    assert statistics.percentiles_ms()['wait'][1] > 0


def test_both_frames_in_work_end_at_the_stop_and_one_that_waits_is_dropped(held: Held) -> None:
    segmenter, pipeline, camera = held
    statistics = camera.statistics
    bring_two_into_work(held)
    pipeline.take(camera, numbered(3))
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(pipeline.stop, 10)
        while not statistics.dropped:
            time.sleep(0.01)
        segmenter.let('finish')
        assert stopping.result()
    assert (statistics.published, statistics.dropped, statistics.failed) == (2, 1, 0)
    assert not pipeline.alive


def test_a_stop_that_does_not_wait_leaves_every_frame_counted(held: Held) -> None:
    segmenter, pipeline, camera = held
    statistics = camera.statistics
    bring_two_into_work(held)
    assert not pipeline.stop(0.05)
    segmenter.let('finish')
    assert pipeline.stop(10)
    assert (statistics.published, statistics.dropped) == (1, 1)


def test_a_frame_is_not_taken_long_before_it_can_be_refined(held: Held) -> None:
    segmenter, pipeline, camera = held
    statistics = camera.statistics
    segmenter.finish_s = 0.2
    for part in ('find', 'finish'):
        segmenter.let(part)
    begin = time.monotonic()
    while time.monotonic() < begin + 1.2:
        message = numbered(1)
        message.header.stamp = pipeline._node.get_clock().now().to_msg()
        pipeline.take(camera, message)
        time.sleep(0.01)
    assert statistics.published >= 4  # the second part is never without work for long
    # refined at once, in 0.2 s: taken as soon as possible it would have waited 0.2 s more
    assert statistics.percentiles_ms()['age'][0] < 300


@pytest.mark.parametrize(
    ('overlap', 'gains', 'threads', 'in_turns'),
    [
        ('auto', True, 4, False),
        ('auto', True, 2, True),
        ('auto', False, 4, True),
        ('on', False, 2, False),
        ('off', True, 4, True),
    ],
)
def test_where_frames_are_in_turns_one_thread_does_everything(
    node: Any,
    monkeypatch: pytest.MonkeyPatch,
    overlap: str,
    gains: bool,
    threads: int,
    in_turns: bool,
) -> None:
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    used = set()

    class Noting(FaultySegmenter):
        overlaps = gains

        def finish(self, found: Any) -> Segmentation:
            used.add(threading.current_thread().name)
            return super().finish(found)

    pipeline, camera = make(node, Noting(), overlap)
    pipeline.start()
    pipeline.take(camera, frame())
    while not used:
        time.sleep(0.01)
    assert pipeline.stop(10)
    camera.destroy()
    assert used == {'find' if in_turns else 'finish'}


def test_what_is_asked_once_and_frames_take_turns(node: Any) -> None:
    """Never both at once, and one of each after one of the other while both wait."""
    work: list[tuple[str, float, float]] = []

    def take_a_while(what: str) -> None:
        begun = time.monotonic()
        time.sleep(0.02)
        work.append((what, begun, time.monotonic()))

    class SlowSegmenter(FaultySegmenter):
        def find(self, rgb: Any, previous: Any) -> Any:
            take_a_while('frame')
            return super().find(rgb, previous)

    pipeline, camera = make(node, SlowSegmenter())
    ended = threading.Event()

    def film() -> None:
        while not ended.wait(0.002):
            pipeline.take(camera, frame())

    pipeline.start()
    filming = threading.Thread(target=film)
    filming.start()
    while not work:
        time.sleep(0.001)
    for _ in range(9):
        pipeline.between_frames(lambda: take_a_while('call'), 10.0)
    ended.set()
    filming.join()
    assert pipeline.stop(10.0)
    camera.destroy()
    assert all(before[2] <= after[1] for before, after in itertools.pairwise(work))
    kinds = ''.join(what[0] for what, _, _ in work)
    assert kinds.count('c') == 9
    assert 'cc' not in kinds
    asked = kinds[kinds.index('c') : kinds.rindex('c')]
    assert 'ff' not in asked  # nor does a call wait for a second frame


def test_what_nobody_subscribes_to_is_not_computed(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*arguments: Any) -> Any:
        raise AssertionError('computed for nobody')

    for name in ('segmentation_to_labels', 'segmentation_to_masks', 'overlay', 'found_to_features'):
        monkeypatch.setattr(f'llmseg_ros.ros.results.{name}', compute)
    statistics = run(node, FaultySegmenter(), frame())
    assert (statistics.published, statistics.failed) == (1, 0)


def test_nothing_is_refined_for_patches_alone(
    node: Any, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor lost: what `finish` would raise costs no frame until somebody wants labels."""
    monkeypatch.setattr(
        'llmseg_ros.ros.results.found_to_features', lambda found, header: PatchFeatures()
    )
    monkeypatch.setattr(FaultySegmenter, 'in_finish', True)
    camera = CameraStream(node, NodeConfig(), FrameStatistics())
    segmenter = FaultySegmenter(ValueError('refined'))
    pipeline = FramePipeline(node, segmenter, NodeConfig(), [camera])

    def run_one() -> tuple[int, int]:
        pipeline._find_in_turn(TakenFrame(camera, frame(), None))
        return camera.statistics.published, camera.statistics.failed

    peer.collect(PatchFeatures, '/faulty/features')
    peer.spin_until(camera.wanted)
    assert run_one() == (1, 0)
    peer.collect(Image, '/faulty/labels')
    peer.spin_until(camera.labels_wanted)
    assert run_one() == (1, 1)
    camera.destroy()
