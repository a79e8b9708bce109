"""ROS parameters, declared from the fields of the configuration."""

from __future__ import annotations

import array
import dataclasses
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
from llmseg_ros.settings import build_section, check_setting


@dataclass(frozen=True)
class NodeConfig:
    autostart: bool = setting(True, 'configure and activate at once', restart=True)
    lazy: bool = setting(True, 'compute only while someone subscribes to a result')
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


def declare_parameters(node: Node) -> list[str]:
    """Declare every setting, and the class list, with what the parameter files give.

    Returns:
        What was given under names that no parameter has.

    Raises:
        ConfigError: a value given is of the wrong type or out of range.
    """
    for name, field in FIELDS.items():
        value = check_setting(field, given(node, name, as_parameter(field.default)), name)
        node.declare_parameter(name, as_parameter(value), descriptor(field), ignore_override=True)
    node.declare_parameter(
        CLASSES,
        check_classes(given(node, CLASSES, [])),
        # An empty list has no type of its own, so that names could never follow it.
        ParameterDescriptor(description='class list to begin with', dynamic_typing=True),
        ignore_override=True,
    )
    # rclpy passes over names never declared without a word, and has no public list of them.
    names = {name for name in node._parameter_overrides if not name.startswith('qos_overrides.')}
    return sorted(name for name in names if not node.has_parameter(name))


def given(node: Node, name: str, default: Any) -> Any:
    """Return a parameter as given at the start, of whatever type; the default where it isn't."""
    anything = ParameterDescriptor(dynamic_typing=True)
    value = as_setting(node.declare_parameter(name, default, anything).value)
    node.undeclare_parameter(name)
    return value


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
    values: dict[str, Any] = {name: node.get_parameter(name).value for name in FIELDS}
    values.update({p.name: p.value for p in changed if p.name in FIELDS})
    values = {name: as_setting(value) for name, value in values.items()}
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        section, key = name.split('.', 1)
        sections[section][key] = value
    own: Mapping[str, Any] = sections.pop('node')
    return build_section(NodeConfig, own, 'node'), build_config(sections)
