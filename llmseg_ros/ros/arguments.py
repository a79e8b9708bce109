"""What ROS arguments of the node can't be used, in our words before rcl's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
import yaml

from llmseg_ros.config import ConfigError

# As rcl words it: "Couldn't parse remap rule: '-r image'. Error: Expected ..., at FILE:LINE".
RCL_ERROR = re.compile(r"Couldn't parse ([\w ]+): '(.*?)'\. Error: (.*?), at ", re.DOTALL)
EXPECTED = {
    'log level': 'expected debug, info, warn, error or fatal',
    'remap rule': 'expected FROM:=TO, names of letters, digits, _ and / that begin with no digit',
    'parameter override rule': 'expected NAME:=VALUE, the value in YAML',
}


def initialize(arguments: Sequence[str] | None) -> None:
    """Initialize rclpy.

    Raises:
        ConfigError: a ROS argument can't be used.
    """
    try:
        rclpy.init(args=arguments)
    except RuntimeError as error:
        raise ConfigError(explain(str(error))) from error


def explain(error: str) -> str:
    """Say in one sentence what rcl could not parse."""
    found = RCL_ERROR.search(error)
    if not found:
        return f'ROS arguments that cannot be used: {error}'
    what, argument, reason = found.groups()
    if what == 'params file':
        return check_parameter_file(argument.partition(' ')[2]) or f'{argument}: {reason}'
    return f'{argument}: {EXPECTED.get(what, reason)}'


def check_parameter_file(path: str) -> str:
    """Return why ROS can't read a parameter file; empty where that is not known."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        return f'parameter file {path}: {error.strerror}'
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        return f'parameter file {path} is not YAML: {" ".join(str(error).split())}'
    if not isinstance(data, dict) or not any(wrapped(value) for value in data.values()):
        return f'parameter file {path}: put its settings under "/**:" and "ros__parameters:"'
    if name := mixed_list(data):
        return f'parameter file {path}: the items of {name} are of different types'
    return ''


def wrapped(value: Any) -> bool:
    """Return whether parameters are somewhere below."""
    if not isinstance(value, dict):
        return False
    return 'ros__parameters' in value or any(wrapped(below) for below in value.values())


def mixed_list(data: Any, name: str = '') -> str:
    """Return the name of a list with items of more than one type, which ROS has no type for."""
    if isinstance(data, list) and len({type(item) for item in data}) > 1:
        return name
    below = data.items() if isinstance(data, dict) else ()
    return next((found for key, value in below if (found := mixed_list(value, str(key)))), '')
