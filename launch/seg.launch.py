"""Start the segmentation node, for one camera or for several, and RViz where asked for."""

from __future__ import annotations

import os

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

SHARE = get_package_share_directory('llmseg_ros')
FASTDDS_PROFILE = os.path.join(SHARE, 'config', 'fastdds.xml')
CAMERA = '{camera}'  # in an image topic: the name of each camera
COMPRESSED = '/compressed'
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

# name, default, description; '' leaves what the configuration file says.
ARGUMENTS = (
    ('config', os.path.join(SHARE, 'config', 'seg.yaml'), 'parameter file of the node'),
    (
        'cameras',
        '',
        'names of several cameras, separated by commas, for one node with ~/NAME/labels and so on; '
        'empty: one camera',
    ),
    (
        'image',
        'image',
        'image topic of the camera, without /compressed. With cameras: one for all of them with '
        '{camera} for the name, or one for each in their order, separated by commas; those that '
        'end in /compressed are heard compressed',
    ),
    ('image_transport', '', 'raw or compressed'),
    (
        'depth',
        '',
        'topic of depth registered to the images, for ~/points; with cameras {camera} in it is '
        'the name',
    ),
    ('classes', '', 'class list to begin with, separated by commas'),
    ('encoder', '', 'imagenet, open_clip or simseg'),
    ('device', '', 'auto, cpu, cuda, cuda:N or mps'),
    ('namespace', '', 'namespace of the node; its topics are NAMESPACE/seg/labels and so on'),
    ('use_sim_time', 'false', 'take the time from /clock, as with a bag played with --clock'),
    ('autostart', '', 'true or false: configure and activate at once'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
    ('rviz', 'false', 'show camera, overlay and labels in RViz'),
)
PARAMETERS = {
    'image_transport': 'node.image_transport',
    'depth': 'node.depth',
    'encoder': 'encoder.name',
    'device': 'encoder.device',
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node with them."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    # Frames of a camera do not fit Fast DDS's default shared memory: docs/deployment.md
    profile = [
        SetEnvironmentVariable(name, FASTDDS_PROFILE)
        for name in PROFILE_VARIABLES
        if name not in os.environ
    ]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[Node]:
    """Make the nodes once the arguments have their values.

    Raises:
        ValueError: an argument can't be used.
    """
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    check_arguments(given)
    parameters: dict[str, object] = {'use_sim_time': as_bool('use_sim_time', given)}
    parameters.update(
        {parameter: given[name] for name, parameter in PARAMETERS.items() if given[name]}
    )
    if given['autostart']:
        parameters['node.autostart'] = as_bool('autostart', given)
    if given['classes']:
        parameters['classes'] = [name.strip() for name in given['classes'].split(',')]
    cameras = topics_of_cameras(given['cameras'], given['image'])
    if cameras:
        parameters['node.cameras'] = [name for name, _ in cameras]
        if compressed := [name for name, topic in cameras if topic.endswith(COMPRESSED)]:
            parameters['node.compressed_cameras'] = compressed
    images = [(f'~/{name}/image', topic.removesuffix(COMPRESSED)) for name, topic in cameras]
    images = images or [('image', given['image'])]
    seg = LifecycleNode(
        package='llmseg_ros',
        executable='seg_node',
        name='seg',
        namespace=given['namespace'],
        output='screen',
        parameters=[given['config'], parameters],
        remappings=images,
        ros_arguments=['--log-level', given['log_level']],
        # A process started while the launch fails is not ended by it: it ends itself.
        additional_env={'LLMSEG_LAUNCH_PID': str(os.getpid())},
    )
    namespace = given['namespace'].strip('/')
    prefix = f'/{namespace}' if namespace else ''
    image = images[0][1]  # of several cameras RViz shows the first
    below = f'{prefix}/seg/{cameras[0][0]}' if cameras else f'{prefix}/seg'
    topics = ('labels', 'masks', 'confidence', 'overlay')
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', os.path.join(SHARE, 'config', 'seg.rviz')],
        parameters=[{'use_sim_time': parameters['use_sim_time']}],
        remappings=[
            ('/image', image if image.startswith('/') else f'{prefix}/{image}'),
            ('/seg/label_map', f'{prefix}/seg/label_map'),
            *((f'/seg/{topic}', f'{below}/{topic}') for topic in topics),
        ],
        condition=IfCondition(given['rviz']),
    )
    return [seg, rviz]


def topics_of_cameras(cameras: str, image: str) -> list[tuple[str, str]]:
    """Return name and image topic of each camera; none where there are no names.

    Raises:
        ValueError: there is not a topic for each camera.
    """
    if not cameras:
        if CAMERA in image or ',' in image:
            raise ValueError(f'image is {image!r}, and cameras has no names for it')
        return []
    names = [name.strip() for name in cameras.split(',')]
    topics = [topic.strip() for topic in image.split(',')]
    if len(topics) == 1 and CAMERA in image:
        topics = [image.replace(CAMERA, name) for name in names]
    if len(topics) != len(names):
        raise ValueError(
            f'image is {image!r} for {len(names)} cameras: give a topic for each, separated by '
            f'commas, or one with {CAMERA} in it, such as /{CAMERA}/image_raw'
        )
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f'cameras is {cameras!r}: give each camera a name of its own')
    return list(zip(names, topics, strict=True))


def check_arguments(given: dict[str, str]) -> None:
    """Raise ValueError where the parameter file or RViz is asked for, and is not there."""
    if not os.path.isfile(given['config']):
        raise ValueError(f'config: there is no file {given["config"]!r}')
    try:
        if as_bool('rviz', given):
            get_package_prefix('rviz2')
    except PackageNotFoundError as error:
        raise ValueError('rviz:=true needs rviz2: apt install ros-$ROS_DISTRO-rviz2') from error


def as_bool(name: str, given: dict[str, str]) -> bool:
    """Return an argument that is true or false.

    Raises:
        ValueError: it is neither.
    """
    value = given[name].lower()
    if value not in ('true', 'false'):
        raise ValueError(f'{name} is {given[name]!r}, expected true or false')
    return value == 'true'
