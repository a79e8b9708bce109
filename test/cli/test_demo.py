"""`llmseg demo`: its frames, bags, report and processes; the whole of it where ROS 2 is there."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.highlevel import AnyReader

from llmseg_ros.bags.topics import NANOSECONDS
from llmseg_ros.bags.writing import write_camera_bag
from llmseg_ros.demo.received import Received, label_array, read_camera_frames, stamp_of
from llmseg_ros.demo.report import (
    answered_by_scene,
    describe,
    latency,
    shares_of,
    spread,
    write_pictures,
)
from llmseg_ros.demo.run import prepare_folder
from llmseg_ros.demo.scenes import SCENES, camera_frames, window_start
from llmseg_ros.ros.isolation import isolated_graph
from llmseg_ros.ros.processes import ProcessError, check, process, stop

needs_ros = pytest.mark.skipif(
    not importlib.util.find_spec('rclpy') or not importlib.util.find_spec('llmseg_ros.msg'),
    reason='needs rclpy and the built messages',
)


def test_camera_frames_pan_over_every_scene() -> None:
    frames = list(camera_frames(3))
    assert [scene.name for scene, _ in frames] == [s.name for s in SCENES for _ in range(3)]
    assert {(f.shape, f.dtype.name) for _, f in frames} == {((480, 640, 3), 'uint8')}
    assert len({frame.tobytes() for _, frame in frames}) == len(frames)


@pytest.mark.parametrize(
    ('length', 'window', 'middle', 'swing', 'start'),
    [
        (1000, 600, 0.5, 0.0, 200),
        (1000, 600, 0.5, 1.0, 245),  # 0.15 * 600 / 2 further
        (1000, 600, 0.5, -1.0, 155),
        (1000, 600, 0.0, 0.0, 0),
        (1000, 600, 1.0, 1.0, 400),
        (600, 600, 0.5, 1.0, 0),
    ],
)
def test_window_start(length: int, window: int, middle: float, swing: float, start: int) -> None:
    assert window_start(length, window, middle, swing) == start


def test_camera_bag(tmp_path: Path) -> None:
    frames = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)]
    frames[1][2, 3] = (1, 2, 3)
    write_camera_bag(tmp_path / 'bag', frames, rate=4.0)
    assert [path.suffix for path in sorted((tmp_path / 'bag').iterdir())] == ['.mcap', '.yaml']
    with AnyReader([tmp_path / 'bag']) as reader:
        messages: list[Any] = [
            (stamp, reader.deserialize(raw, connection.msgtype))
            for connection, stamp, raw in reader.messages()
        ]
    stamps = [stamp for stamp, _ in messages]
    assert np.diff(stamps).tolist() == [NANOSECONDS // 4] * 2
    assert [stamp_of(message) for _, message in messages] == stamps
    assert {(m.encoding, m.height, m.width, m.step) for _, m in messages} == {('rgb8', 4, 6, 18)}
    read = read_camera_frames(tmp_path / 'bag', {stamps[1]})
    assert list(read) == [stamps[1]]
    assert np.array_equal(read[stamps[1]], frames[1])


@pytest.mark.parametrize(
    ('encoding', 'big', 'step', 'data', 'expected'),
    [
        ('mono8', 0, 2, [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ('mono8', 0, 3, [1, 2, 9, 3, 4, 9], [[1, 2], [3, 4]]),
        ('mono16', 0, 4, [1, 0, 2, 0, 3, 1, 4, 0], [[1, 2], [259, 4]]),
        ('mono16', 1, 5, [0, 1, 0, 2, 9, 1, 3, 0, 4, 9], [[1, 2], [259, 4]]),
    ],
)
def test_label_array(
    encoding: str, big: int, step: int, data: list[int], expected: list[list[int]]
) -> None:
    message = SimpleNamespace(
        encoding=encoding,
        is_bigendian=big,
        height=2,
        width=2,
        step=step,
        data=np.array(data, np.uint8),
    )
    assert label_array(message).tolist() == expected


def test_numbers_of_the_report() -> None:
    labels = {stamp: np.array([[1, 1], [0, stamp]]) for stamp in (1, 2, 5)}
    arrivals = {1: 10_000_000, 2: 22_000_000, 5: 35_000_000}
    received = Received(labels=labels, arrivals=arrivals, names={1: 'cat', 2: 'cup'})
    sent = {1: 5_000_000, 2: 7_000_000, 5: 10_000_000, 6: 11_000_000}
    assert latency(sent, received) == {'p50': 15.0, 'p95': 24.0}  # of 5, 15 and 25 ms
    assert shares_of(labels[2], received.names) == {'cat': 0.5, 'cup': 0.25}
    assert describe([1, 2], received) == {
        'frames': 2,
        'found_in': {'cat': 2, 'cup': 1},
        'shares': {'cat': 0.625, 'cup': 0.125},
    }
    assert answered_by_scene(range(1, 9), received) == {
        'cat': [1, 2],
        'cup': [],
        'person': [5],
        'rocket': [],
    }


@pytest.mark.parametrize(
    ('stamps', 'chosen'),
    [([1], [1, 1, 1, 1]), ([1, 2], [1, 1, 2, 2]), (range(8), [0, 2, 4, 6])],
)
def test_spread(stamps: list[int], chosen: list[int]) -> None:
    assert spread(stamps, 4) == chosen


def test_pictures_show_the_middle_frame_of_every_scene(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), value, np.uint8) for value in (10, 20, 30, 200, 210, 220)]
    write_camera_bag(tmp_path / 'bag', frames, rate=2.0)
    with AnyReader([tmp_path / 'bag']) as reader:
        stamps = [stamp for _, stamp, _ in reader.messages()]
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 32:] = 1
    received = Received(labels=dict.fromkeys(stamps, labels), names={1: 'cat', 2: 'cup'})
    scenes = {'cat': stamps[:3], 'cup': stamps[3:], 'person': []}
    write_pictures(tmp_path / 'bag', received, scenes, tmp_path)
    pictures = sorted(path.name for path in tmp_path.glob('*.*'))
    assert pictures == ['contact_sheet.png', 'overlay_cat.png', 'overlay_cup.png', 'strip.jpg']
    with Image.open(tmp_path / 'contact_sheet.png') as image:
        plain = image.size
    embedded = replace(received, encoder='imagenet lite2')
    write_pictures(tmp_path / 'bag', embedded, scenes, tmp_path)
    with Image.open(tmp_path / 'contact_sheet.png') as image:  # a line says what is not found
        assert image.width == plain[0]
        assert image.height > plain[1]
        assert np.asarray(image)[plain[1] :, :, 0].min() < 64
    with Image.open(tmp_path / 'strip.jpg') as image:
        assert image.format == 'JPEG'
        strip = np.asarray(image).astype(int)
    height, width = 311, 415  # of one of the 64x48 frames in it
    assert strip.shape[1] == 2 * width
    assert strip.shape[0] > 2 * height
    upper, lower = strip[height // 2], strip[height + height // 2]
    for left, value in ((0, 20), (width, 210)):
        assert np.abs(upper[left + 40 : left + 380] - value).max() < 8
        assert np.abs(lower[left + 40 : left + 160] - value).max() < 8
        red = (np.array([128, 0, 0]) + value) // 2
        assert np.abs(lower[left + 260 : left + 380] - red).max() < 8


def test_prepare_folder_clears_what_a_demo_wrote_alone(tmp_path: Path) -> None:
    (tmp_path / 'frames').mkdir()
    (tmp_path / 'frames' / 'frames.mcap').touch()
    for name in ('overlay_cat.png', 'strip.jpg', 'summary.json', 'thesis.tex'):
        (tmp_path / name).touch()
    prepare_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['logs', 'thesis.tex']


def test_a_failed_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / 'logs').mkdir()
    (tmp_path / 'logs' / 'node.log').write_text('loading\nno such encoder\n')
    check(0, 'node', tmp_path)
    with pytest.raises(
        ProcessError, match=r'node ended with code 3, see .*node\.log: no such encod'
    ):
        check(3, 'node', tmp_path)


def test_a_process_ends_with_its_block(tmp_path: Path) -> None:
    (tmp_path / 'logs').mkdir()
    with process('no_such_module', [], tmp_path, os.environ) as started:
        pass
    assert started.returncode is not None


def test_a_deaf_process_is_killed() -> None:
    code = (
        'import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)'
    )
    deaf = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    stop(deaf, patience=0.2)
    assert deaf.returncode == -signal.SIGKILL


def test_graphs_are_isolated_from_each_other() -> None:
    with isolated_graph() as one, isolated_graph() as other:
        assert one['ROS_DOMAIN_ID'] != other['ROS_DOMAIN_ID']
        assert one['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
        assert Path(one['FASTRTPS_DEFAULT_PROFILES_FILE']).is_file()


@pytest.mark.parametrize('offset', [10, 14], ids=['first participant', 'third, the first is gone'])
def test_a_domain_in_use_is_not_taken(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    with isolated_graph() as free:
        domain = int(free['ROS_DOMAIN_ID'])
    monkeypatch.setattr('llmseg_ros.ros.isolation.DOMAINS', range(domain, domain + 1))
    with socket.socket(type=socket.SOCK_DGRAM) as participant:
        participant.bind(('', 7400 + 250 * domain + offset))
        with pytest.raises(OSError, match='in use'), isolated_graph():
            pass
    with isolated_graph() as free:
        assert free['ROS_DOMAIN_ID'] == str(domain)


@needs_ros
def test_the_whole_demo(llmseg: Callable[..., Any], tmp_path: Path) -> None:
    outcome = llmseg('demo', '--out', tmp_path / 'demo', '--frames', 8)
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / 'demo' / 'summary.json').read_text())
    assert summary['frames_sent'] == 8
    assert summary['frames_received'] + summary['frames_dropped'] == 8
    assert summary['frames_received'] >= 4
    assert len(summary['label_versions_seen']) == 2
    assert 0 < summary['latency_ms']['p50'] <= summary['latency_ms']['p95']
    assert summary['masks_per_class']['cat'] >= 1
    assert summary['encoder'].startswith('imagenet')
    assert next(iter(summary['scenes']['cat']['shares'])) == 'cat'
    with Image.open(tmp_path / 'demo' / 'overlay_cat.png') as overlay:
        assert overlay.width == 640
        assert overlay.height > 480
    with Image.open(tmp_path / 'demo' / 'strip.jpg') as strip:
        assert strip.width == 1660
    assert (tmp_path / 'demo' / 'strip.jpg').stat().st_size < 400_000
    with AnyReader([tmp_path / 'demo' / 'received']) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts['/seg/labels'] == counts['/seg/masks'] == summary['frames_received']
    assert counts['/seg/label_map'] >= 2


@pytest.fixture
def running_demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a demo and wait until all its processes run."""
    command = [sys.executable, '-m', 'llmseg_ros.cli.main', 'demo', '--out', str(tmp_path / 'demo')]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert demo.stdout is not None
    while not demo.stdout.readline().startswith('starting'):
        assert demo.poll() is None
    yield demo
    demo.kill()
    demo.wait()


@needs_ros
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process(
    running_demo: subprocess.Popen[str], number: signal.Signals
) -> None:
    children = children_of(running_demo.pid)
    assert len(children) == 3
    running_demo.send_signal(number)
    assert running_demo.wait(timeout=30) == 130
    assert [pid for pid in children if Path(f'/proc/{pid}').exists()] == []


@needs_ros
def test_an_interrupt_in_the_middle_of_a_start_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class InterruptedPopen(subprocess.Popen[bytes]):
        """Start for real, and have Ctrl-C come before the caller holds the process."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    (tmp_path / 'logs').mkdir()
    monkeypatch.setattr(subprocess, 'Popen', InterruptedPopen)
    with pytest.raises(KeyboardInterrupt), process('demo_recorder', ['x'], tmp_path, os.environ):
        pytest.fail('the block must not be entered')
    assert started[0].returncode is not None
    assert not Path(f'/proc/{started[0].pid}').exists()


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent a process is."""
    deadline = time.monotonic() + 10
    while True:
        tasks = Path(f'/proc/{pid}/task').glob('*/children')
        children = [int(child) for task in tasks for child in task.read_text().split()]
        if len(children) == 3 or time.monotonic() > deadline:
            return children
        time.sleep(0.05)
