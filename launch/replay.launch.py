"""Play a bag into the segmentation node; ends with the bag."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

SHARE = get_package_share_directory('llmseg_ros')
SEG_LAUNCH = os.path.join(SHARE, 'launch', 'seg.launch.py')


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; all of seg.launch.py can be given too."""
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='folder or file of the bag to play'),
            DeclareLaunchArgument('rate', default_value='1.0', description='speed of the replay'),
            DeclareLaunchArgument(
                'clock', default_value='true', description="publish the bag's time on /clock"
            ),
            DeclareLaunchArgument(
                'delay', default_value='30.0', description='seconds for the model to load'
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(SEG_LAUNCH),
                launch_arguments={'use_sim_time': LaunchConfiguration('clock')}.items(),
            ),
            OpaqueFunction(function=make_player),
        ]
    )


def make_player(context: LaunchContext) -> list[ExecuteProcess]:
    """Make the player once the arguments have their values."""
    bag, rate, clock, delay = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'rate', 'clock', 'delay')
    )
    command = ['ros2', 'bag', 'play', bag, '--rate', rate, '--delay', delay]
    if clock.lower() == 'true':
        command.append('--clock')
    return [ExecuteProcess(cmd=command, output='screen', on_exit=Shutdown())]
