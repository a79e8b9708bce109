"""The launch files describe what they take, and start what they say."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytest.importorskip('launch', reason='launch is not on PyPI; it comes with ROS 2')
pytest.importorskip('launch_ros', reason='launch_ros is not on PyPI; it comes with ROS 2')
pytest.importorskip('llmseg_ros.msg')

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.utilities import perform_substitutions
from launch_ros.utilities import evaluate_parameters

from llmseg_ros.files import shipped_path

FILES = ('seg.launch.py', 'replay.launch.py', 'cameras.launch.py', 'semantic_map.launch.py')


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name.partition('.')[0], shipped_path(f'launch/{name}')
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(name: str) -> dict[str, DeclareLaunchArgument]:
    description: LaunchDescription = load(name).generate_launch_description()
    declared = description.get_launch_arguments()
    return {argument.name: argument for argument in declared}


@pytest.mark.parametrize('name', FILES)
def test_every_argument_is_described(name: str) -> None:
    for argument in arguments(name).values():
        assert argument.description
        assert argument.description != 'no description given'


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        (
            'seg.launch.py',
            'config image image_transport depth classes encoder device namespace use_sim_time'
            ' autostart log_level rviz',
        ),
        ('semantic_map.launch.py', 'config seg odometry frame file namespace log_level'),
        ('replay.launch.py', 'bag rate clock classes config'),
        ('cameras.launch.py', 'cameras image config depth namespace rviz'),
    ],
)
def test_the_arguments_are_there(name: str, expected: str) -> None:
    assert set(expected.split()) <= set(arguments(name))


def make(**given: str) -> list[Any]:
    """Make the nodes of seg.launch.py with these arguments."""
    module = load('seg.launch.py')
    context = LaunchContext()
    defaults = {name: default for name, default, _ in module.ARGUMENTS}
    context.launch_configurations.update(defaults | given)
    return module.make_nodes(context)


def given_parameters(node: Any) -> dict[str, Any]:
    """Return the parameters a node gets besides those of its file."""
    evaluated = evaluate_parameters(LaunchContext(), node._Node__parameters)
    (given,) = [entry for entry in evaluated if isinstance(entry, dict)]
    return given


def test_what_is_not_given_is_left_to_the_file() -> None:
    seg, _ = make()
    assert set(given_parameters(seg)) == {'use_sim_time'}


def test_arguments_become_parameters() -> None:
    seg, _ = make(
        classes='cat, traffic light',
        encoder='open_clip',
        device='cuda:1',
        image_transport='compressed',
        autostart='false',
        use_sim_time='true',
    )
    parameters = given_parameters(seg)
    assert parameters['encoder.name'] == 'open_clip'
    assert parameters['encoder.device'] == 'cuda:1'
    assert parameters['node.image_transport'] == 'compressed'
    assert parameters['node.autostart'] is False
    assert parameters['use_sim_time'] is True
    assert list(parameters['classes']) == ['cat', 'traffic light']


def test_an_argument_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ValueError, match=r"autostart is 'maybe', expected true or false"):
        make(autostart='maybe')


def test_a_parameter_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"config: there is no file 'missing\.yaml'"):
        make(config='missing.yaml')


def test_rviz_is_looked_for_before_the_node_is_started() -> None:
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        with pytest.raises(ValueError, match='rviz:=true needs rviz2: apt install'):
            make(rviz='true')
    else:
        assert len(make(rviz='true')) == 2


def test_what_would_have_no_effect_is_not_listed() -> None:
    assert 'use_sim_time' not in arguments('replay.launch.py')


def test_several_cameras_are_one_node_with_a_topic_for_each() -> None:
    seg, rviz = make(
        cameras='front, rear', image='/front/image_raw, /back/image/compressed', namespace='robot'
    )
    parameters = given_parameters(seg)
    assert list(parameters['node.cameras']) == ['front', 'rear']
    assert list(parameters['node.compressed_cameras']) == ['rear']
    assert remappings(seg) == {
        '~/front/image': '/front/image_raw',
        '~/rear/image': '/back/image',
    }
    shown = remappings(rviz)
    assert (shown['/image'], shown['/seg/labels'], shown['/seg/label_map']) == (
        '/front/image_raw',
        '/robot/seg/front/labels',
        '/robot/seg/label_map',
    )


def test_one_topic_with_the_name_in_it_is_of_every_camera() -> None:
    defaults = {a.name: a.default_value[0].text for a in arguments_of_cameras()}
    seg, _ = make(**defaults)
    assert remappings(seg) == {
        '~/front/image': '/front/image_raw',
        '~/rear/image': '/rear/image_raw',
    }
    assert 'node.compressed_cameras' not in given_parameters(seg)


def arguments_of_cameras() -> list[DeclareLaunchArgument]:
    """Return what cameras.launch.py declares itself, before it includes the node's file."""
    description: LaunchDescription = load('cameras.launch.py').generate_launch_description()
    return [entity for entity in description.entities if hasattr(entity, 'default_value')]


def remappings(node: Any) -> dict[str, str]:
    """Return what a node's topics are remapped to."""
    context = LaunchContext()
    return {
        perform_substitutions(context, list(one)): perform_substitutions(context, list(other))
        for one, other in node._Node__remappings
    }


@pytest.mark.parametrize(
    ('cameras', 'image', 'sentence'),
    [
        ('front, rear', '/front/image', "image is '/front/image' for 2 cameras: give a topic for"),
        ('front', '/a, /b', 'for 1 cameras: give a topic for each, separated by commas'),
        ('', '/{camera}/image', 'and cameras has no names for it'),
        ('a, a', '/{camera}/image', "cameras is 'a, a': give each camera a name of its own"),
        ('a,', '/{camera}/image', "cameras is 'a,': give each camera a name of its own"),
    ],
)
def test_topics_that_do_not_fit_the_cameras_are_refused(
    cameras: str, image: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence.replace('{', r'\{')):
        make(cameras=cameras, image=image)


@pytest.mark.parametrize(
    ('topic', 'transport', 'fits'),
    [
        ('/camera/image', '', True),
        ('/camera/image', 'raw', True),
        ('/camera/image', 'compressed', False),
        ('/zipped/image', '', True),
        ('/zipped/image', 'compressed', True),
        ('/zipped/image', 'raw', False),
        ('/image', '', False),
        ('/odometry', '', False),
    ],
)
def test_a_bag_without_the_images_is_not_played(
    topic: str, transport: str, fits: bool, tmp_path: Path
) -> None:
    topics = [
        ('/camera/image', 'sensor_msgs/msg/Image'),
        ('/zipped/image/compressed', 'sensor_msgs/msg/CompressedImage'),
        ('/odometry', 'nav_msgs/msg/Odometry'),
    ]
    entries = [{'topic_metadata': {'name': name, 'type': kind}} for name, kind in topics]
    metadata = {'rosbag2_bagfile_information': {'topics_with_message_count': entries}}
    (tmp_path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    check_bag = load('replay.launch.py').check_bag
    if fits:
        check_bag(str(tmp_path), topic, transport)
    else:
        with pytest.raises(ValueError, match=f'has no images on {topic}, give image:=TOPIC'):
            check_bag(str(tmp_path), topic, transport)


def test_a_bag_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match=r"bag: there is no 'missing_bag'"):
        load('replay.launch.py').check_bag('missing_bag', '/image', '')


AS_ROS2_LAUNCH_DOES = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(noninteractive=True)
source = PythonLaunchDescriptionSource(sys.argv[1])
arguments = {'namespace': 'robot', 'autostart': 'false'}
include = IncludeLaunchDescription(source, launch_arguments=arguments.items())
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


def test_launched_the_node_comes_up_under_its_namespace(peer: Any, tmp_path: Path) -> None:
    """The node loads no model here."""
    command = [sys.executable, '-c', AS_ROS2_LAUNCH_DOES, str(shipped_path('launch/seg.launch.py'))]
    process = subprocess.Popen(command, cwd=tmp_path)
    try:
        peer.spin_until(lambda: ('seg', '/robot') in peer.node.get_node_names_and_namespaces(), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
