"""`llmseg replay` by the real node over DDS, each mode, and how it ends early."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from llmseg_ros.bags.reading import find_image_connections, opened_bag
from llmseg_ros.bags.topics import LABEL_MAP_TOPIC
from llmseg_ros.demo.received import read_received
from llmseg_ros.ros.played import NodeCounts, Played, SentFrame, live_numbers

from ..helpers.bags import (
    COMPRESSED,
    IMAGE,
    SECOND,
    compressed,
    image,
    png,
    read_topic,
    write_bag,
    write_ros1_bag,
)
from ..helpers.commands import replay

needs_ros = pytest.mark.skipif(
    not importlib.util.find_spec('rclpy') or not importlib.util.find_spec('llmseg_ros.msg'),
    reason='needs rclpy and the built messages',
)

pytestmark = pytest.mark.usefixtures('encoders_are_loaded_once')

CONFIG = """
imagenet: {model: lite0, short_sides: [160], dilated: false}
refine: {name: none}
gate: {hysteresis: 0.6}
"""
CLASSES = ('cat', 'cup', 'rocket')
SAME_IN_ALL_MODES = (
    *('frames', 'labelled_frames', 'image_topic', 'classes', 'encoder', 'config', 'complete'),
    *('miou', 'pixel_accuracy', 'class_iou', 'class_share', 'changed_pixels', 'presence_changes'),
)
MILLISECOND = 1_000_000


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('live') / 'config.yaml'
    path.write_text(CONFIG)
    return path


def photographs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a cat, a cup, and between them neither, unless a cat, or a cup, is expected."""
    cat, cup = (
        cv2.resize(photograph, (240, 160), interpolation=cv2.INTER_AREA)
        for photograph in (skimage.data.chelsea(), skimage.data.coffee())
    )
    between = (cv2.addWeighted(cat, share, cup, 1 - share, 0) for share in (0.505, 0.41))
    return cat, cup, *between


@needs_ros
def test_lockstep_equals_offline(config: Path, tmp_path: Path) -> None:
    cat, cup, nearly_cat, nearly_cup = photographs()
    truth = np.zeros((160, 240), np.uint8)
    truth[:80] = 1
    # The first has no stamp, the third comes so late that nothing is expected any more.
    stamps = [0, 2 * SECOND, 5 * SECOND, 6 * SECOND, 7 * SECOND + 5]
    pictures = zip(stamps, (cat, nearly_cat, nearly_cat, cup, nearly_cup), strict=True)
    messages = [('/eye', COMPRESSED, compressed(png(rgb), stamp)) for stamp, rgb in pictures]
    messages.append(('/truth', IMAGE, image(truth, 'mono8', stamp=2 * SECOND)))
    bag = write_bag(tmp_path / 'bag', messages)
    reports, received, rules = [], [], []
    listed = tmp_path / 'classes.yaml'
    listed.write_text('[cat, {name: cup, also: [mug], minimum_score: 0}, rocket]')
    for mode in ('offline', 'lockstep'):
        arguments = [bag, '--classes', listed, '--labels', '/truth']
        arguments += ['--config', config, '--mode', mode, '--out', tmp_path / f'{mode}_bag']
        assert replay(*arguments, '--report', tmp_path / mode) == 0
        reports.append(json.loads((tmp_path / mode / 'report.json').read_text()))
        received.append(read_received(tmp_path / f'{mode}_bag'))
        rules.append([m.rules for m in read_topic(tmp_path / f'{mode}_bag', LABEL_MAP_TOPIC)])
    assert [report['mode'] for report in reports] == ['offline', 'lockstep']
    offline, lockstep = ({key: report[key] for key in SAME_IN_ALL_MODES} for report in reports)
    assert lockstep == offline
    assert [report['rules']['cup']['also'] for report in reports] == [['mug'], ['mug']]
    assert [[(one.name, one.also) for one in of] for (of,) in rules] == [[('cup', ['mug'])]] * 2
    assert (offline['frames'], offline['labelled_frames']) == (5, 1)
    here, there = received
    assert sorted(here.labels) == [SECOND, *stamps[1:]]
    assert here.labels.keys() == there.labels.keys()
    for stamp, labels in here.labels.items():
        assert np.array_equal(there.labels[stamp], labels)
    assert there.masks == here.masks
    assert there.names == here.names == dict(enumerate(CLASSES, start=1))
    found = [set(np.unique(labels).tolist()) - {0} for _, labels in sorted(here.labels.items())]
    assert found == [{1}, {1}, set(), {2}, {2}]  # what was expected is found in the same picture
    live = reports[1]['live']
    assert (live['frames_in'], live['frames_out'], live['frames_dropped']) == (5, 5, 0)
    assert live['node']['frames'] == {
        **dict.fromkeys(('dropped', 'rejected', 'failed', 'unwanted'), 0),
        **dict.fromkeys(('received', 'published'), 5),
    }
    stage = live['node']['stages_ms']['total']['p50']
    assert 0 < stage < live['wall_clock']['latency_ms']['max'] < 60_000
    assert 'bag_clock' not in live


@needs_ros
@pytest.mark.parametrize('labelled', [False, True])
def test_bad_frames_cost_themselves(config: Path, tmp_path: Path, labelled: bool) -> None:
    cat, cup, *_ = photographs()
    data = [b'', png(cat), png(cup), png(cup)[:-40], png(cat), png(cup), png(cat)]
    stamps = [SECOND, 2 * SECOND, 2 * SECOND, 4 * SECOND, SECOND, 6 * SECOND, 2 * SECOND]
    messages: list[tuple[str, str, Any]] = [
        ('/eye', COMPRESSED, compressed(*frame)) for frame in zip(data, stamps, strict=True)
    ]
    truth = np.zeros((160, 240), np.uint8)
    messages.append(('/truth', IMAGE, image(truth, 'mono8', stamp=6 * SECOND)))
    bag = write_bag(tmp_path / 'bag', messages)
    reports = {}
    for mode in ('offline', 'lockstep', 'realtime'):
        arguments = [bag, '--classes', ','.join(CLASSES), '--config', config, '--mode', mode]
        arguments += ['--labels', '/truth'] if labelled else ['--image', '/eye']
        arguments += ['--rate', 1] if mode == 'realtime' else []
        assert replay(*arguments, '--out', tmp_path / mode, '--report', tmp_path / f'{mode}_r') == 0
        reports[mode] = json.loads((tmp_path / f'{mode}_r' / 'report.json').read_text())
        assert 'can not be used' in (tmp_path / f'{mode}_r' / 'report.html').read_text()
    offline, lockstep, realtime = reports.values()
    assert {key: offline[key] for key in SAME_IN_ALL_MODES} == {
        key: lockstep[key] for key in SAME_IN_ALL_MODES
    }
    assert offline['rejections'] == lockstep['rejections'] == realtime['rejections']
    numbers = [rejected['recorded'] // SECOND for rejected in offline['rejections']]
    repeated = [3, 5, 7] if labelled else []  # the fifth has the stamp of one that is bad
    assert numbers == sorted([1, 4, *repeated])
    assert offline['rejected_frames'] == len(numbers)
    assert offline['frames'] == 7 - len(numbers)
    labels = [labels_in(tmp_path / mode) for mode in ('offline', 'lockstep')]
    assert labels[0] == labels[1]
    assert [stamp for stamp, _ in labels[0]] == [
        stamp for index, stamp in enumerate(stamps, start=1) if index not in numbers
    ]
    live = realtime['live']
    # At the pace of the bag the node itself meets what does not decode, unless it is busy.
    assert live['node']['frames']['rejected'] <= 2
    assert live['frames_in'] == 7 - len(repeated)
    assert live['frames_out'] + live['frames_dropped'] + 2 == live['frames_in']
    assert lockstep['live']['frames_dropped'] == 0


def labels_in(path: Path) -> list[tuple[int, bytes]]:
    """Return stamp and pixels of the label images of a bag, each with the stamp of its masks."""
    found = []
    with opened_bag(path) as bag:
        for message in bag.messages([c for c in bag.connections if c.topic == '/seg/labels']):
            labels = bag.deserialize(message)
            stamp = labels.header.stamp.sec * SECOND + labels.header.stamp.nanosec
            found.append((stamp, bytes(labels.data)))
        masks = bag.messages([c for c in bag.connections if c.topic == '/seg/masks'])
        for (stamp, _), message in zip(found, masks, strict=True):
            masks_of = bag.deserialize(message)
            headers = [masks_of.header, *(mask.mask.header for mask in masks_of.masks)]
            assert {divmod(stamp, SECOND)} == {(h.stamp.sec, h.stamp.nanosec) for h in headers}
    return found


@needs_ros
@pytest.mark.parametrize('mode', ['lockstep', 'realtime'])
def test_no_frame_can_be_used(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    cat, *_ = photographs()
    odd = image(cat.astype(np.float32)[..., 0], '32FC1')
    bag = write_bag(tmp_path / 'bag', [('/eye', IMAGE, odd)] * 3)
    arguments = [bag, '--classes', 'cat', '--config', config, '--mode', mode]
    assert replay(*arguments, '--out', tmp_path / 'out', '--json', tmp_path / 'r.json') == 1
    said = capsys.readouterr().err
    assert "none of the 3 frames can be used: an image can not be used: encoding '32FC1'" in said
    assert list(tmp_path.iterdir()) == [bag]


@pytest.fixture
def endless(config: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a replay in real time, of frames enough for minutes, one of which is rejected."""
    cat, cup, *_ = photographs()
    frames = [('/eye', IMAGE, image(cat, 'rgb8', (1 + i) * SECOND)) for i in range(200)]
    frames[2] = ('/eye', IMAGE, image(cup.astype(np.float32)[..., 0], '32FC1', 3 * SECOND))
    bag = write_bag(tmp_path / 'bag', frames)
    (tmp_path / 'tmp').mkdir()
    command = [sys.executable, '-m', 'llmseg_ros.cli.main', 'replay', str(bag)]
    command += ['--classes', 'cat,cup', '--config', str(config), '--mode', 'realtime']
    command += ['--rate', '5', '--report', str(tmp_path / 'report'), '--out', str(tmp_path / 'out')]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'TMPDIR': str(tmp_path / 'tmp')},
    )
    yield started
    started.kill()
    started.wait()


def children_of(pid: int) -> list[int]:
    tasks = Path(f'/proc/{pid}/task').glob('*/children')
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'not within {seconds} s'
        time.sleep(0.05)


def frames_sent(replaying: subprocess.Popen[str], folder: Path) -> int:
    """Return how many frames a replay has sent that keeps its temporary files in a folder."""
    assert replaying.poll() is None, replaying.communicate()
    logs = folder.glob('llmseg_replay_*/logs/replay_player.log')
    lines = [line for log in logs for line in log.read_text().split()]
    return int(lines[-1]) if lines and lines[-1].isdecimal() else 0


@needs_ros
def test_a_killed_node_ends_the_replay(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_until(lambda: frames_sent(endless, tmp_path / 'tmp') >= 1, 240)
    children = children_of(endless.pid)
    commands = {pid: Path(f'/proc/{pid}/cmdline').read_text() for pid in children}
    (pid,) = [pid for pid, command in commands.items() if 'llmseg_ros.ros.node\0' in command]
    os.kill(pid, signal.SIGKILL)
    _, said = endless.communicate(timeout=60)
    assert endless.returncode == 1
    assert said.splitlines()[-1].startswith('llmseg: node ended with code -9')
    assert [pid for pid in children if Path(f'/proc/{pid}').exists()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'report', 'tmp']
    assert list((tmp_path / 'report').iterdir()) == list((tmp_path / 'tmp').glob('llmseg_*')) == []


@needs_ros
def test_realtime_until_ctrl_c(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_until(lambda: frames_sent(endless, tmp_path / 'tmp') >= 10, 240)
    children = children_of(endless.pid)
    assert len(children) == 2
    endless.send_signal(signal.SIGINT)
    _, said = endless.communicate(timeout=60)
    assert endless.returncode == 130, said
    assert [pid for pid in children if Path(f'/proc/{pid}').exists()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'report', 'tmp']
    assert list((tmp_path / 'tmp').glob('llmseg_*')) == []
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert (report['mode'], report['complete']) == ('realtime', False)
    live = report['live']
    assert 10 <= live['frames_in'] < 200
    used = live['frames_in'] - live['frames_dropped'] - report['rejected_frames']
    assert report['frames'] == live['frames_out'] == used
    assert report['class_share']['cat'] > 0.5
    assert report['rejected_frames'] == 1  # by the node, unless it was busy and dropped it
    assert live['node']['frames']['rejected'] <= 1
    assert "encoding '32FC1' is not supported" in report['rejections'][0]['reason']
    wall, bag = live['wall_clock'], live['bag_clock']
    assert wall['in_hz'] == pytest.approx(5, rel=0.2)
    assert wall['interval_ms']['p50'] == pytest.approx(200, rel=0.5)
    assert 0 < wall['latency_ms']['p50'] <= wall['latency_ms']['p95'] <= wall['latency_ms']['max']
    assert bag['age_ms']['p50'] >= 5 * wall['latency_ms']['p50']  # the bag's clock is faster


@needs_ros
def test_ctrl_c_while_the_model_loads(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_until(lambda: len(children_of(endless.pid)) == 2, 60)
    children = children_of(endless.pid)
    endless.send_signal(signal.SIGINT)
    assert endless.wait(timeout=60) == 130
    assert [pid for pid in children if Path(f'/proc/{pid}').exists()] == []
    assert list((tmp_path / 'tmp').glob('llmseg_*')) == []
    assert list((tmp_path / 'report').iterdir()) == []
    assert not (tmp_path / 'out').exists()


@needs_ros
@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ('node: {image_depth: many}', "node ended with code 1: .*node.image_depth is 'many'"),
        ('node: 7', 'node: expected settings by name'),
        (
            'encoder: {name: simseg}\nsimseg: {checkpoint: nowhere.pth}',
            'the node can not be configured: .*nowhere.pth',
        ),
    ],
)
def test_a_node_that_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, message: str
) -> None:
    cat, *_ = photographs()
    bag = write_bag(tmp_path / 'bag', [('/eye', IMAGE, image(cat, 'rgb8'))])
    (tmp_path / 'config.yaml').write_text(settings)
    arguments = [bag, '--classes', 'cat', '--config', tmp_path / 'config.yaml']
    assert replay(*arguments, '--mode', 'lockstep') == 1
    assert re.search(message, capsys.readouterr().err)


def frames_to_send(bag: Path, distinct: bool = False) -> list[tuple[int, int, Any]]:
    """Return stamp, time of recording and message, as the node gets it, of each frame."""
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    from llmseg_ros.ros.frames_to_send import camera_frames

    with opened_bag(bag) as reader:
        camera, refused = find_image_connections(reader), {}
        frames = camera_frames(reader, camera, refused, distinct, check=False)
        return [(f.stamp, f.time, deserialize_message(raw, Image)) for f, raw in frames]


@needs_ros
def test_every_frame_that_is_sent_has_a_stamp(tmp_path: Path) -> None:
    rgb = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    bags = (
        write_bag(tmp_path / 'bag', [('/eye', IMAGE, image(rgb, 'rgb8', s)) for s in (5, 0)]),
        write_ros1_bag(tmp_path / 'old.bag', rgb),
    )
    sent = [frame for bag in bags for frame in frames_to_send(bag)]
    assert [(stamp, time) for stamp, time, _ in sent] == [
        (5, SECOND),
        (2 * SECOND, 2 * SECOND),  # it had none
        (SECOND, SECOND),
    ]
    for stamp, _, message in sent:
        assert divmod(stamp, SECOND) == (message.header.stamp.sec, message.header.stamp.nanosec)
        assert (message.header.frame_id, message.encoding) == ('camera', 'rgb8')
        assert bytes(message.data) == rgb.tobytes()


@needs_ros
def test_every_frame_that_is_sent_has_a_stamp_of_its_own(tmp_path: Path) -> None:
    rgb = np.zeros((2, 3, 3), np.uint8)
    given = (7, 3 * SECOND, 0, 7, 8, 7)  # without a stamp it is the time of recording, 3 s
    bag = write_bag(tmp_path / 'bag', [('/eye', IMAGE, image(rgb, 'rgb8', s)) for s in given])
    sent = [stamp for stamp, _, _ in frames_to_send(bag)]
    assert sent == [7, 3 * SECOND, 3 * SECOND + 1, 8, 9, 10]
    assert [stamp for stamp, _, _ in frames_to_send(bag, distinct=True)] == [7, 3 * SECOND, 8]


def test_numbers_by_hand() -> None:
    # Begun when the monotonic clock was at 1 s, the bag's at 100 s, twice as fast.
    frames = [
        SentFrame(stamp=100 * SECOND - 1, time=100 * SECOND, sent=SECOND),
        SentFrame(stamp=101 * SECOND, time=101 * SECOND, sent=1500 * MILLISECOND),
        SentFrame(stamp=102 * SECOND, time=102 * SECOND, sent=2040 * MILLISECOND),
        SentFrame(stamp=103 * SECOND, time=103 * SECOND, sent=2500 * MILLISECOND),
    ]
    arrivals = {  # the second is dropped
        100 * SECOND - 1: 1100 * MILLISECOND,
        102 * SECOND: 2140 * MILLISECOND,
        103 * SECOND: 2700 * MILLISECOND,
    }
    node = NodeCounts(received=4, published=3, dropped=1)
    played = Played(frames, begin=SECOND, start=100 * SECOND, rate=2.0, node=node)
    numbers = live_numbers(Played.from_json(json.loads(json.dumps(played.as_json()))), arrivals)
    assert (numbers['frames_in'], numbers['frames_out'], numbers['frames_dropped']) == (4, 3, 1)
    assert numbers['node']['frames']['dropped'] == 1
    wall = numbers['wall_clock']
    assert wall['latency_ms'] == {'p50': 100, 'p95': 190, 'max': 200}
    assert wall['in_hz'] == 2.0
    assert wall['out_hz'] == 1.25  # three within 1.6 s
    assert wall['interval_ms'] == {'p50': 800, 'p95': 1016, 'max': 1040}
    assert wall['jitter_ms'] == 240
    assert wall['sent_late_ms'] == {'p50': 0, 'p95': 34, 'max': 40}
    assert numbers['bag_clock']['age_ms'] == {'p50': 280, 'p95': 388, 'max': 400}


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = ['nowhere.mcap', '--classes', 'cat']
    assert replay(*bag, '--mode', 'sideways') == 2
    assert '--mode takes offline, lockstep, realtime, not sideways' in capsys.readouterr().err
    for mode in ('offline', 'lockstep'):
        assert replay(*bag, '--mode', mode, '--rate', 2) == 2
        assert '--rate is for --mode realtime' in capsys.readouterr().err


def test_without_ros_only_offline_works(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bag = write_bag(tmp_path / 'bag', [('/eye', IMAGE, image(photographs()[0], 'rgb8'))])
    monkeypatch.setitem(sys.modules, 'rclpy', None)  # as where it isn't installed
    arguments = [bag, '--classes', 'cat', '--config', config]
    assert replay(*arguments, '--mode', 'realtime') == 1
    assert '--mode realtime needs ROS 2 and the built messages' in capsys.readouterr().err
    assert replay(*arguments) == 0
