"""Two cameras: a node for each, one store of subclasses and one cache of weights for both."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

SEG_LAUNCH = os.path.join(get_package_share_directory('llmseg_ros'), 'launch', 'seg.launch.py')


def generate_launch_description() -> LaunchDescription:
    """Include the one-camera launch file twice; what is not named here goes to both."""
    description = LaunchDescription()
    for side in ('left', 'right'):
        description.add_action(
            DeclareLaunchArgument(
                f'{side}_image',
                default_value=f'/{side}/image_raw',
                description=f'image topic of the {side} camera',
            )
        )
    for side in ('left', 'right'):
        description.add_action(
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(SEG_LAUNCH),
                launch_arguments={
                    'namespace': side,
                    'image': LaunchConfiguration(f'{side}_image'),
                }.items(),
            )
        )
    return description
