"""Start the node that makes a map of the segmentation node's points."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = get_package_share_directory('llmseg_ros')
FASTDDS_PROFILE = os.path.join(SHARE, 'config', 'fastdds.xml')
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

# name, default, description; '' leaves what the configuration file says.
ARGUMENTS = (
    ('config', os.path.join(SHARE, 'config', 'semantic_map.yaml'), 'parameter file of the node'),
    ('seg', '/seg', 'name of the segmentation node, which has to have node.depth'),
    ('odometry', '', 'topic of the odometry to take poses from, else they are from tf'),
    ('frame', '', 'frame of the map with tf'),
    ('file', '', 'PLY file that the map is written to at the end'),
    ('namespace', '', 'namespace of the node; its topics are NAMESPACE/semantic_map/map and so on'),
    ('use_sim_time', 'false', 'take the time from /clock, as with a bag played with --clock'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)
PARAMETERS = {'frame': 'map.frame', 'file': 'map.file'}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node with them."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    profile = [
        SetEnvironmentVariable(name, FASTDDS_PROFILE)
        for name in PROFILE_VARIABLES
        if name not in os.environ
    ]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=make_node)])


def make_node(context: LaunchContext) -> list[Node]:
    """Make the node once the arguments have their values.

    Raises:
        ValueError: an argument can't be used.
    """
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    if not os.path.isfile(given['config']):
        raise ValueError(f'config: there is no file {given["config"]!r}')
    if given['use_sim_time'].lower() not in ('true', 'false'):
        raise ValueError(f'use_sim_time is {given["use_sim_time"]!r}, expected true or false')
    parameters: dict[str, object] = {'use_sim_time': given['use_sim_time'].lower() == 'true'}
    parameters.update(
        {parameter: given[name] for name, parameter in PARAMETERS.items() if given[name]}
    )
    if given['odometry']:
        parameters['map.poses'] = 'odometry'
    seg = given['seg'].rstrip('/')
    return [
        Node(
            package='llmseg_ros',
            executable='semantic_map',
            name='semantic_map',
            namespace=given['namespace'],
            output='screen',
            parameters=[given['config'], parameters],
            remappings=[
                ('points', f'{seg}/points'),
                ('label_map', f'{seg}/label_map'),
                ('odometry', given['odometry'] or '/odom'),
            ],
            ros_arguments=['--log-level', given['log_level']],
            # A process started while the launch fails is not ended by it: it ends itself.
            additional_env={'LLMSEG_LAUNCH_PID': str(os.getpid())},
        )
    ]
