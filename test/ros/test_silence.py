"""What keeps a person waiting is in the log; what ROS can't use is told in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.msg import ClassList
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, LaserScan
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.qos import LATCHED

SMALL = ('-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[160]')
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
TOPIC = '/quiet/image'


@pytest.fixture(scope='module')
def quiet(
    context: Any, seg_process: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Start a node that no other test sends frames to."""
    folder = tmp_path_factory.mktemp('quiet')
    process = seg_process(folder, *SMALL, '-r', '__ns:=/quiet', '-p', 'use_sim_time:=true')
    process.wait_for_log(f'listening to {TOPIC}')
    yield process
    process.stop()


def test_a_camera_that_is_not_there(quiet: Any, peer: Any) -> None:
    quiet.wait_for_log(f'no frame for 5 s on {TOPIC}: nobody publishes it', 20)
    assert 'no classes, everything is background: name some on /quiet/seg/classes' in quiet.log
    assert 'use_sim_time is set, but nobody publishes /clock' in quiet.log


def test_images_elsewhere_are_named(quiet: Any, peer: Any) -> None:
    peer.unheard_publisher(Image, '/elsewhere/image_raw')
    quiet.wait_for_log('remap it (image:=TOPIC): images are on /elsewhere/image_raw', 20)


def test_a_camera_heard_of_that_sends_nothing(quiet: Any, peer: Any) -> None:
    peer.publisher(Image, TOPIC, RELIABLE)
    quiet.wait_for_log(f'no frame for 5 s on {TOPIC}, though /peer publishes it', 20)
    assert 'config/fastdds.xml' in quiet.log


def test_a_camera_that_publishes_compressed_alone(quiet: Any, peer: Any) -> None:
    peer.unheard_publisher(CompressedImage, f'{TOPIC}/compressed')
    quiet.wait_for_log(
        f'only on {TOPIC}/compressed: set node.image_transport to compressed '
        f'and remap image to {TOPIC}',
        20,
    )


@pytest.mark.parametrize(
    ('kind', 'told'),
    [
        (CompressedImage, f'rename it to {TOPIC}/compressed'),
        (LaserScan, 'it has sensor_msgs/msg/LaserScan, which are no images'),
    ],
)
def test_a_topic_of_another_type(quiet: Any, peer: Any, kind: type, told: str) -> None:
    peer.unheard_publisher(kind, TOPIC)
    quiet.wait_for_log(told, 20)


def test_ages_are_not_known_without_a_clock(quiet: Any, peer: Any) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    camera = peer.publisher(Image, TOPIC, RELIABLE)
    labels = peer.collect(Image, '/quiet/seg/labels')
    message = array_to_image(data.chelsea(), 'rgb8', Header())
    message.header.stamp.sec = 1_700_000_000

    def answered() -> bool:
        camera.publish(message)
        peer.spin_for(0.3)
        return bool(labels)

    peer.spin_until(answered, 60)
    arrays = peer.collect(DiagnosticArray, '/diagnostics')
    peer.spin_until(lambda: any(status(arrays, '/quiet/seg')))
    values = {pair.key for pair in status(arrays, '/quiet/seg')[-1].values}
    assert 'total p50 ms' in values
    assert 'age p50 ms' not in values


def status(arrays: list[Any], name: str) -> list[Any]:
    return [status for array in arrays for status in array.status if status.name == name]


def reliability(peer: Any) -> ReliabilityPolicy | None:
    ends = peer.node.get_subscriptions_info_by_topic(TOPIC)
    return ends[0].qos_profile.reliability if len(ends) == 1 else None


def test_a_camera_is_heard_as_reliably_as_it_publishes(quiet: Any, peer: Any) -> None:
    peer.spin_until(lambda: reliability(peer) == ReliabilityPolicy.RELIABLE)
    best_effort = peer.unheard_publisher(Image, TOPIC, qos_profile_sensor_data)
    peer.spin_until(lambda: reliability(peer) == ReliabilityPolicy.BEST_EFFORT)
    peer.spin_until(best_effort.get_subscription_count)
    peer.unheard_publisher(Image, TOPIC, RELIABLE)  # a best-effort reader hears both
    peer.spin_for(2.0)
    assert reliability(peer) == ReliabilityPolicy.BEST_EFFORT
    peer.tidy()
    peer.unheard_publisher(Image, TOPIC, RELIABLE)
    peer.spin_until(lambda: reliability(peer) == ReliabilityPolicy.RELIABLE)


def classes_parameter(peer: Any, name: str) -> list[str]:
    request = GetParameters.Request(names=['classes'])
    answer = peer.call(GetParameters, f'/{name}/get_parameters', request)
    return list(answer.values[0].string_array_value)


def test_the_parameter_follows_the_class_list(seg: Any, peer: Any) -> None:
    publisher = peer.publisher(ClassList, '/seg/classes', LATCHED)
    publisher.publish(ClassList(names=['followed  lamp', 'Followed lamp', 'cat']))
    peer.spin_until(lambda: classes_parameter(peer, 'seg') == ['followed lamp', 'cat'])
    seg.wait_for_log(': followed lamp (no subclasses), cat (', 20)


def test_a_class_list_is_kept_for_configuring(start_seg: Callable[..., Any], peer: Any) -> None:
    seg = start_seg('-r', '__node:=early')
    seg.wait_for_log('waiting to be configured: ros2 lifecycle set /early configure')
    publisher = peer.publisher(ClassList, '/early/classes', LATCHED)
    publisher.publish(ClassList(names=['kept lamp']))
    seg.wait_for_log('class list kept for configuring: kept lamp', 20)
    peer.spin_until(lambda: classes_parameter(peer, 'early') == ['kept lamp'])


def test_a_second_node_of_the_name_is_told(start_seg: Callable[..., Any]) -> None:
    one, other = start_seg('-r', '__node:=twin'), start_seg('-r', '__node:=twin')
    for seg in (one, other):
        seg.wait_for_log('there are 2 nodes /twin', 60)


def test_the_node_ends_with_the_launch(
    start_seg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    monkeypatch.setenv('LLMSEG_LAUNCH_PID', str(launch.pid))
    seg = start_seg('-r', '__node:=launched')
    seg.wait_for_log('waiting to be configured')
    launch.communicate(b'\n')
    seg.wait_for_log('the launch that started this node is gone', 20)
    assert seg.process.wait(20) == 0


FILES = {
    'plain.yaml': 'encoder: {name: imagenet}\n',
    'broken.yaml': '/**:\n  ros__parameters: {encoder: [\n',
    'mixed.yaml': '/**:\n  ros__parameters:\n    classes: [cat, 3]\n',
}


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ('--params-file missing.yaml', 'missing.yaml: No such file or directory'),
        ('--params-file plain.yaml', 'put its settings under "/**:" and "ros__parameters:"'),
        ('--params-file broken.yaml', 'parameter file broken.yaml is not YAML: while parsing'),
        ('--params-file mixed.yaml', 'the items of classes are of different types'),
        ('--log-level loud', '--log-level loud: expected debug, info, warn, error or fatal'),
        ('-r image', '-r image: expected FROM:=TO, names of letters'),
        ('-r image:=/my|topic', '-r image:=/my topic: expected FROM:=TO, names of letters'),
        ('-p novalue', '-p novalue: expected NAME:=VALUE, the value in YAML'),
        ('--bogus', "ROS arguments that cannot be used: ['--bogus']"),
        ('-p use_sim_time:=maybe', "'use_sim_time' to 'maybe' of type 'STRING'"),
    ],
)
def test_what_ros_cannot_use_is_told_in_one_sentence(
    graph: None, tmp_path: Path, arguments: str, sentence: str
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    given = [argument.replace('|', ' ') for argument in arguments.split()]
    command = [sys.executable, '-m', 'llmseg_ros.ros.node', '--ros-args', *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('seg_node: ')]
    assert sentence in line
    assert 'Traceback' not in done.stderr
