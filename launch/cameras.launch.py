"""Several cameras: one node and one model for all of them."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import (
    PythonLaunchDescriptionSource,
    get_launch_description_from_python_launch_file,
)

SEG_LAUNCH = os.path.join(get_package_share_directory('llmseg_ros'), 'launch', 'seg.launch.py')
DEFAULTS = {'cameras': 'front,rear', 'image': '/{camera}/image_raw'}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments of one camera with defaults for several, and start the node."""
    one_camera = get_launch_description_from_python_launch_file(SEG_LAUNCH)
    described = {a.name: a.description for a in one_camera.get_launch_arguments()}
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=described[name])
        for name, default in DEFAULTS.items()
    ]
    seg = IncludeLaunchDescription(PythonLaunchDescriptionSource(SEG_LAUNCH))
    return LaunchDescription([*arguments, seg])
