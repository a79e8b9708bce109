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
    RegisterEventHandler,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

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
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(SEG_LAUNCH),
                launch_arguments={'use_sim_time': LaunchConfiguration('clock')}.items(),
            ),
            # The first frames would be lost while the model is loaded.
            RegisterEventHandler(
                OnStateTransition(
                    goal_state='active', entities=[OpaqueFunction(function=make_player)]
                )
            ),
        ]
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
