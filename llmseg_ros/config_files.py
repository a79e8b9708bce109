"""Configuration files: YAML in the layout of ROS parameter files, or without its wrapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llmseg_ros.config import ConfigError, SegmenterConfig, build_config
from llmseg_ros.formats.parameter_layout import node_parameters

NODE_NAME = 'seg'
NODE_SECTIONS = (  # of the same file, read by the node or by `llmseg evaluate` alone
    *('node', 'classes', 'use_sim_time', 'qos_overrides', 'start_type_description_service'),
    'evaluation',
)


def load_config(path: str | Path) -> SegmenterConfig:
    """Read a configuration file, in the layout of a ROS parameter file or without its wrapping.

    Of a file with the parameters of several nodes those of a node `seg`, in any namespace, count.

    Raises:
        ConfigError: the file can't be read, or a setting is unknown or out of range.
    """
    data = load_sections(path)
    try:
        return build_config({key: data[key] for key in data if key not in NODE_SECTIONS})
    except ConfigError as error:
        raise ConfigError(f'configuration {path}: {error}') from error


def load_sections(path: str | Path) -> Mapping[str, Any]:
    """Read the settings of a configuration file by section, the node's own among them, unchecked.

    Raises:
        ConfigError: the file can't be read.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'configuration {path}: {error}') from error
    except yaml.YAMLError as error:
        raise ConfigError(f'configuration {path} is not YAML: {error}') from error
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise ConfigError(f'configuration {path}: expected settings by name')
    try:
        return node_parameters(data, NODE_NAME)
    except ValueError as error:
        raise ConfigError(f'configuration {path}: {error}') from error
