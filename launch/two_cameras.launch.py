"""Two cameras: a node for each, one store of subclasses and one cache of weights for both."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import (
    PythonLaunchDescriptionSource,
    get_launch_description_from_python_launch_file,
)
from launch.substitutions import LaunchConfiguration

SEG_LAUNCH = os.path.join(get_package_share_directory('llmseg_ros'), 'launch', 'seg.launch.py')
SIDES = ('left', 'right')
OWN = ('image', 'namespace')  # of each camera


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments: an image topic for each camera, all others for both."""
    images = [
        DeclareLaunchArgument(
            f'{side}_image',
            default_value=f'/{side}/image_raw',
            description=f'image topic of the {side} camera, without /compressed',
        )
        for side in SIDES
    ]
    one_camera = get_launch_description_from_python_launch_file(SEG_LAUNCH)
    both = [given for given in one_camera.get_launch_arguments() if given.name not in OWN]
    return LaunchDescription([*images, *both, OpaqueFunction(function=include_both)])


def include_both(context: LaunchContext) -> list[IncludeLaunchDescription]:
    """Include the launch file of one camera twice; --show-args does not look in here."""
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(SEG_LAUNCH),
            launch_arguments={
                'namespace': side,
                'image': LaunchConfiguration(f'{side}_image'),
            }.items(),
        )
        for side in SIDES
    ]
