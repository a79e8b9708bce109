#!/bin/bash
# Source ROS 2 and the package, then run what is asked for in place of this shell.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. /ws/install/setup.bash
exec "$@"
