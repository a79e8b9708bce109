"""Play a bag into the segmentation node; ends with the bag."""

from __future__ import annotations

import os

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.launch_description_sources import (
    PythonLaunchDescriptionSource,
    get_launch_description_from_python_launch_file,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

SEG_LAUNCH = os.path.join(get_package_share_directory('llmseg_ros'), 'launch', 'seg.launch.py')
COMPRESSED = '/compressed'
IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; those of seg.launch.py can be given too."""
    seg = get_launch_description_from_python_launch_file(SEG_LAUNCH)
    others = [given for given in seg.get_launch_arguments() if given.name != 'use_sim_time']
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='folder or file of the bag to play'),
            DeclareLaunchArgument('rate', default_value='1.0', description='speed of the replay'),
            DeclareLaunchArgument(
                'clock', default_value='true', description="publish the bag's time on /clock"
            ),
            *others,
            OpaqueFunction(function=include_seg),
            # The first frames would be lost while the model is loaded.
            RegisterEventHandler(
                OnStateTransition(
                    goal_state='active', entities=[OpaqueFunction(function=make_player)]
                )
            ),
        ]
    )


def include_seg(context: LaunchContext) -> list[IncludeLaunchDescription]:
    """Include the node's launch file, once the bag is known to have the images.

    Raises:
        ValueError: it has not.
    """
    names = ('bag', 'cameras', 'image', 'namespace', 'image_transport')
    bag, cameras, image, namespace, transport = (
        LaunchConfiguration(name).perform(context) for name in names
    )
    of_each = [image.replace('{camera}', name.strip()) for name in cameras.split(',')]
    for topic in image.split(',') if ',' in image else of_each:
        topic = topic.strip()
        compressed = bool(cameras) and topic.endswith(COMPRESSED)
        if not topic.startswith('/'):
            topic = '/'.join(['', *namespace.split('/'), topic])
        topic = '/' + '/'.join(part for part in topic.split('/') if part)
        if compressed:
            check_bag(bag, topic.removesuffix(COMPRESSED), 'compressed')
        else:
            check_bag(bag, topic, transport)
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(SEG_LAUNCH),
            launch_arguments={'use_sim_time': LaunchConfiguration('clock')}.items(),
        )
    ]


def check_bag(bag: str, topic: str, transport: str) -> None:
    """Raise ValueError where there is no bag, or its metadata.yaml knows of no such images.

    Args:
        bag: folder or file.
        topic: full name of the images, without /compressed.
        transport: raw, compressed, or empty for what the parameter file says.
    """
    if not os.path.exists(bag):
        raise ValueError(f'bag: there is no {bag!r}')
    metadata = os.path.join(bag if os.path.isdir(bag) else os.path.dirname(bag), 'metadata.yaml')
    if not os.path.isfile(metadata):
        return
    with open(metadata, encoding='utf-8') as file:
        information = yaml.safe_load(file)['rosbag2_bagfile_information']
    topics = [entry['topic_metadata'] for entry in information['topics_with_message_count']]
    images = sorted(entry['name'] for entry in topics if entry['type'] in IMAGES)
    wanted = {'raw': [topic], 'compressed': [topic + COMPRESSED]}
    if not set(wanted.get(transport, [topic, topic + COMPRESSED])) & set(images):
        there = ', '.join(images) or 'none'
        raise ValueError(
            f'the bag {bag} has no images on {topic}, give image:=TOPIC (without /compressed, '
            f'which image_transport:=compressed adds); its image topics: {there}'
        )


def make_player(context: LaunchContext) -> list[ExecuteProcess]:
    """Make the player once the arguments have their values."""
    bag, rate, clock = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'rate', 'clock')
    )
    command = ['ros2', 'bag', 'play', bag, '--rate', rate]
    if clock.lower() == 'true':
        command.append('--clock')
    return [ExecuteProcess(cmd=command, output='screen', on_exit=Shutdown())]
