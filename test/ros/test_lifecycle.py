"""Transitions, what they cost and give back, and the end of the process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from llmseg_ros.srv import GetClasses, SetClasses
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.files import shipped_path
from llmseg_ros.ros.diagnostics import ERROR

LOAD_S = 240.0
SMALL = ('-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[160]')


def change(peer: Any, name: str, transition: str) -> bool:
    request = ChangeState.Request()
    request.transition.id = getattr(Transition, f'TRANSITION_{transition.upper()}')
    return peer.call(ChangeState, f'/{name}/change_state', request, LOAD_S).success


def state(peer: Any, name: str) -> str:
    answer = peer.call(GetState, f'/{name}/get_state', GetState.Request(), LOAD_S)
    return answer.current_state.label


def memory_mib(process: Any) -> float:
    for line in Path(f'/proc/{process.process.pid}/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) / 1024
    raise AssertionError('no memory known')


def waiting_lines(seg: Any) -> int:
    """Count the lines of a log where all say what an unconfigured node waits for, else 0."""
    lines = seg.log.splitlines()
    return len(lines) if all('waiting to be configured' in line for line in lines) else 0


def photograph() -> CompressedImage:
    message = CompressedImage(header=Header(frame_id='camera'), format='jpeg')
    message.header.stamp.sec = 5
    message.data = cv2.imencode('.jpg', data.chelsea()[..., ::-1])[1].tobytes()
    return message


def test_a_life_from_a_failed_start_to_the_end(
    start_seg: Callable[..., Any], peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process for all transitions, since loading a model takes a while."""
    # with all names known from another test, much of the sentence encoder would never be read in
    monkeypatch.setenv('LLMSEG_CACHE', str(tmp_path / 'cache'))
    pack = tmp_path / 'own.yaml'
    seg = start_seg(
        *SMALL,
        '-r', '__node:=live',
        '-p', f'subclasses.file:={pack}',
        '-p', 'node.image_transport:=compressed',
        '-p', "classes:=['cat', 'cup']",
    )  # fmt: skip
    diagnostics = peer.collect(DiagnosticArray, '/diagnostics')

    # Configuring fails while a file is missing, and can be tried again.
    assert not change(peer, 'live', 'configure')
    assert state(peer, 'live') == 'unconfigured'
    assert 'cannot configure: ' in seg.log
    peer.spin_until(lambda: any(s.level == ERROR for a in diagnostics for s in a.status))
    refusal = peer.call(SetClasses, '/live/set_classes', SetClasses.Request(names=['dog']))
    assert (refusal.success, 'not configured' in refusal.message) == (False, True)
    pack.write_text('classes: {cat: {subclasses: [tabby, kitten]}}\n')
    assert change(peer, 'live', 'configure'), seg.log

    # Active, it answers a compressed frame.
    assert change(peer, 'live', 'activate')
    labels = peer.collect(Image, '/live/labels')
    camera = peer.publisher(CompressedImage, '/image/compressed', qos_profile_sensor_data)
    begin = time.monotonic()
    while not labels and time.monotonic() < begin + 20:
        camera.publish(photograph())
        peer.spin_for(0.3)
    assert labels[0].header == photograph().header
    ids = {
        item.name: item.id
        for item in peer.call(
            GetClasses, '/live/get_classes', GetClasses.Request()
        ).label_map.classes
    }
    label_hw = np.frombuffer(labels[0].data, np.uint8).reshape(300, 451)
    assert label_hw[150, 225] == ids['cat']

    # Inactive, it hears no frames; unconfigured, it has given the model's memory back.
    assert change(peer, 'live', 'deactivate')
    peer.spin_until(lambda: not camera.get_subscription_count())
    loaded = memory_mib(seg)
    assert change(peer, 'live', 'cleanup')
    assert memory_mib(seg) < loaded - 60
    assert change(peer, 'live', 'configure')
    after = peer.call(GetClasses, '/live/get_classes', GetClasses.Request()).label_map
    assert {item.name: item.id for item in after.classes} == ids
    assert change(peer, 'live', 'activate')

    # In the middle of frames, it ends at once.
    peer.spin_until(camera.get_subscription_count)
    camera.publish(photograph())
    peer.spin_for(0.05)
    shared = seg.shared_memory()
    code, seconds = seg.signal(signal.SIGTERM)
    assert (code, 'Traceback' in seg.log) == (0, False), seg.log
    assert seconds < 2
    assert shared
    assert not [path for path in shared if path.exists()]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_idle_node_ends_at_once(
    start_seg: Callable[..., Any], peer: Any, number: signal.Signals
) -> None:
    name = f'idle_until_{number.name.lower()}'
    seg = start_seg('-r', f'__node:={name}')
    assert state(peer, name) == 'unconfigured'
    shared = seg.shared_memory()
    code, seconds = seg.signal(number)
    assert (code, waiting_lines(seg)) == (0, 1), seg.log
    assert seconds < 2
    assert shared
    assert not [path for path in shared if path.exists()]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_is_loading_its_model_ends_at_once(
    start_seg: Callable[..., Any], number: signal.Signals
) -> None:
    seg = start_seg(autostart=True)
    seg.wait_for_log('loading the encoder')
    time.sleep(1)
    shared = seg.shared_memory()
    code, seconds = seg.signal(number)
    assert (code, 'Traceback' in seg.log) == (0, False), seg.log
    assert seconds < 2
    assert shared
    assert not [path for path in shared if path.exists()]


def test_parameters_that_cannot_be_used_end_it_with_a_sentence(
    start_seg: Callable[..., Any],
) -> None:
    seg = start_seg('-p', 'refine.name:=magic')
    assert seg.process.wait(60) == 1
    (line,) = seg.log.splitlines()
    assert line.startswith("seg_node: refine.name is 'magic', expected one of crf")


def test_the_shipped_parameter_file_can_be_used(start_seg: Callable[..., Any], peer: Any) -> None:
    seg = start_seg(
        '--params-file', str(shipped_path('config/seg.yaml')),
        '-r', '__node:=shipped',
    )  # fmt: skip
    assert state(peer, 'shipped') == 'unconfigured'
    assert waiting_lines(seg) == 1, seg.log
