"""ROS parameters, declared from the fields of the configuration."""

from __future__ import annotations

import array
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from llmseg_ros.config import (
    ConfigError,
    SegmenterConfig,
    build_config,
    setting,
)
from llmseg_ros.method.components import LEAST_SHARE
from llmseg_ros.settings import build_section, check_setting


@dataclass(frozen=True)
class NodeConfig:
    autostart: bool = setting(True, 'configure and activate at once', restart=True)
    cameras: tuple[str, ...] = setting(
        (),
        'names of cameras, each heard on ~/NAME/image, with results of its own on ~/NAME/labels '
        'and so on; empty: one camera, heard on image, with results on ~/labels and so on',
        restart=True,
    )
    lazy: bool = setting(True, 'compute only while someone subscribes to a result')
    max_rate: float = setting(
        0.0,
        'frames a second of each camera worked on at most, to spare a battery; 0: no limit',
        low=0.0,
        high=1000.0,
    )
    overlap: str = setting(
        'auto',
        'encode a frame while the one before is refined: more results, each of them older; auto: '
        'where onnxruntime encodes, on more than two CPUs',
        ('auto', 'on', 'off'),
    )
    label_encoding: str = setting(
        'auto',
        'encoding of the label image; auto: mono8, mono16 once an id is above 254',
        ('auto', 'mono16', '16SC1'),
    )
    image_transport: str = setting(
        'raw', 'compressed listens to image/compressed', ('raw', 'compressed'), restart=True
    )
    compressed_cameras: tuple[str, ...] = setting(
        (),
        'those of node.cameras that are heard on ~/NAME/image/compressed, where image_transport is '
        'raw',
        restart=True,
    )
    image_reliability: str = setting(
        'auto',
        'of the image subscription; auto: reliable where every publisher is, which reliable alone '
        'needs',
        ('auto', 'best_effort', 'reliable'),
        restart=True,
    )
    image_depth: int = setting(
        1, 'frames the image subscription holds', low=1, high=100, restart=True
    )
    depth: str = setting(
        '',
        'topic of depth registered to the images, raw or .../compressedDepth, for ~/points, ~/mask '
        'and ~/depth; {camera} in it stands for the name of each camera; empty: none',
        restart=True,
    )
    depth_info: str = setting(
        '',
        'topic of its CameraInfo, with {camera} in it likewise; empty: camera_info beside it',
        restart=True,
    )
    depth_slop: float = setting(
        0.02,
        'seconds between a frame and its depth, where none has its very stamp',
        low=0.0,
        high=1.0,
    )
    mask_classes: str = setting(
        '',
        'classes of ~/mask, separated by commas; empty: every class',
    )
    mask_depth: bool = setting(True, 'leave out of ~/depth what is in ~/mask')
    instances: bool = setting(
        False, 'in ~/masks a mask for each connected component of a class, not one for all of it'
    )
    instance_area: float = setting(
        LEAST_SHARE,
        'least part of the image that a component has in ~/masks and ~/detections; 0: any',
        low=0.0,
        high=1.0,
    )


SECTIONS: dict[str, type[Any]] = {
    'node': NodeConfig,
    **{field.name: type(field.default) for field in dataclasses.fields(SegmenterConfig)},
}
FIELDS = {
    f'{section}.{field.name}': field
    for section, config in SECTIONS.items()
    for field in dataclasses.fields(config)
}
CLASSES = 'classes'
CAMERA = '{camera}'  # in a topic: the name of each camera
CAMERA_NAME = re.compile('[A-Za-z_][A-Za-z0-9_]{0,63}')  # what ROS takes between two slashes


def declare_parameters(node: Node) -> list[str]:
    """Declare every setting, and the class list, with what the parameter files give.

    Returns:
        What was given under names that no parameter has.

    Raises:
        ConfigError: a value given is of the wrong type or out of range.
    """
    declare_settings(node, FIELDS)
    node.declare_parameter(
        CLASSES,
        check_classes(given(node, CLASSES, [])),
        # An empty list has no type of its own, so that names could never follow it.
        ParameterDescriptor(description='class list to begin with', dynamic_typing=True),
        ignore_override=True,
    )
    return unknown_parameters(node)


def declare_settings(node: Node, fields: Mapping[str, dataclasses.Field[Any]]) -> None:
    """Declare a parameter for each field, with what the parameter files give.

    Raises:
        ConfigError: a value given is of the wrong type or out of range.
    """
    for name, field in fields.items():
        value = check_setting(field, given(node, name, as_parameter(field.default)), name)
        node.declare_parameter(name, as_parameter(value), descriptor(field), ignore_override=True)


def unknown_parameters(node: Node) -> list[str]:
    """Return what was given under names that no parameter has."""
    # rclpy passes over names never declared without a word, and has no public list of them.
    names = {name for name in node._parameter_overrides if not name.startswith('qos_overrides.')}
    return sorted(name for name in names if not node.has_parameter(name))


def given(node: Node, name: str, default: Any) -> Any:
    """Return a parameter as given at the start, of whatever type; the default where it isn't."""
    anything = ParameterDescriptor(dynamic_typing=True)
    value = as_setting(node.declare_parameter(name, default, anything).value)
    node.undeclare_parameter(name)
    # An empty list has no type of its own: of a file it comes as nothing at all.
    return () if value is None and isinstance(default, list) else value


def as_parameter(setting: Any) -> Any:
    """Return a setting as the type that parameters have for it."""
    return list(setting) if isinstance(setting, tuple) else setting


def as_setting(parameter: Any) -> Any:
    """Return a parameter's value as the type that settings have for it."""
    return tuple(parameter) if isinstance(parameter, (list, array.array)) else parameter


def descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    """Describe a setting to ROS: help, allowed values, range, whether it needs a restart."""
    about = ParameterDescriptor(
        description=field.metadata['help'], read_only=field.metadata['restart']
    )
    if field.metadata['choices']:
        about.additional_constraints = 'one of ' + ', '.join(field.metadata['choices'])
    low, high = field.metadata['low'], field.metadata['high']
    if low is not None and high is not None:
        if isinstance(field.default, int):
            about.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        elif isinstance(field.default, float):
            about.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return about


def check_classes(value: Any) -> list[str]:
    """Return the class list parameter's value; none at all is an empty list.

    Raises:
        ConfigError: it is no list of strings.
    """
    value = [] if value is None else value
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f'{CLASSES} is {value!r}, expected a list of names')
    return list(value)


def read_configs(
    node: Node, changed: Iterable[Parameter] = ()
) -> tuple[NodeConfig, SegmenterConfig]:
    """Build the configurations from the parameters in force and those about to change.

    Raises:
        ConfigError: a changed value is not allowed.
    """
    sections = read_sections(node, FIELDS, changed)
    own = build_section(NodeConfig, sections.pop('node'), 'node')
    check_cameras(own)
    return own, build_config(sections)


def check_cameras(config: NodeConfig) -> None:
    """Refuse names of cameras that no topics can be made of, and depth that is none's.

    Raises:
        ConfigError: with what is wrong, and what to write instead.
    """
    names = config.cameras
    for name in names:
        if not name:
            raise ConfigError('node.cameras has an empty name: name each camera, such as front')
        if not CAMERA_NAME.fullmatch(name):
            raise ConfigError(
                f'node.cameras: no topic can have {name!a} in its name: take 1 to 64 letters, '
                'digits and _, and no digit first'
            )
        if names.count(name) > 1:
            raise ConfigError(f'node.cameras has {name!a} twice: name each camera once')
    for name in config.compressed_cameras:
        if name not in names:
            raise ConfigError(f'node.compressed_cameras has {name!a}, which node.cameras has not')
    for setting_name, topic in (('depth', config.depth), ('depth_info', config.depth_info)):
        if CAMERA in topic and not names:
            raise ConfigError(
                f'node.{setting_name} is {topic!a}, and node.cameras has no name to put into it'
            )
        if topic and CAMERA not in topic and len(names) > 1:
            raise ConfigError(
                f'node.{setting_name} is {topic!a} for {len(names)} cameras: write {CAMERA} where '
                f'their topics have the name, such as /{CAMERA}/{topic.rpartition("/")[2]}'
            )


def of_camera(config: NodeConfig, name: str) -> NodeConfig:
    """Return the configuration with the topics of one camera."""
    return dataclasses.replace(
        config,
        image_transport='compressed'
        if name in config.compressed_cameras
        else config.image_transport,
        depth=config.depth.replace(CAMERA, name),
        depth_info=config.depth_info.replace(CAMERA, name),
    )


def read_sections(
    node: Node, names: Iterable[str], changed: Iterable[Parameter] = ()
) -> dict[str, dict[str, Any]]:
    """Return the settings in force and those about to change, by section."""
    values: dict[str, Any] = {name: node.get_parameter(name).value for name in names}
    values.update({p.name: p.value for p in changed if p.name in values})
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, key = name.split('.', 1)
        sections.setdefault(section, {})[key] = as_setting(value)
    return sections
