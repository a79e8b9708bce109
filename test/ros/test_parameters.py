"""Parameters are made of the settings' fields; the shipped file has them all."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.config import ConfigError
from llmseg_ros.files import shipped_path
from llmseg_ros.ros.map_settings import MAP_FIELDS, MAP_SECTIONS
from llmseg_ros.ros.parameter_file import MAP_HEAD, parameter_file
from llmseg_ros.ros.parameters import (
    FIELDS,
    as_parameter,
    check_classes,
    declare_parameters,
    declare_settings,
    descriptor,
    read_configs,
)
from llmseg_ros.ros.semantic_map import read_map_config


@pytest.fixture
def make_node(context: Any) -> Any:
    from rclpy.node import Node

    nodes = []

    def make(*overrides: str) -> Node:
        arguments = ['--ros-args']
        for override in overrides:
            arguments += ['-p', override]
        nodes.append(Node('declares', context=context, cli_args=arguments))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_seg_yaml_is_up_to_date() -> None:
    """Made by python -m llmseg_ros.ros.parameter_file > config/seg.yaml."""
    assert shipped_path('config/seg.yaml').read_text() == parameter_file()


def test_semantic_map_yaml_is_up_to_date() -> None:
    """Made by python -m llmseg_ros.ros.parameter_file semantic_map > config/semantic_map.yaml."""
    made = parameter_file(MAP_HEAD, MAP_SECTIONS)
    assert shipped_path('config/semantic_map.yaml').read_text() == made
    written = yaml.safe_load(made)['/**']['ros__parameters']['map']
    assert written == {
        name.partition('.')[2]: as_parameter(field.default) for name, field in MAP_FIELDS.items()
    }


@pytest.mark.parametrize(
    ('override', 'reason'),
    [
        ('map.voxel:=0.0', r'map\.voxel is 0\.0, expected 0\.001 to 10\.0'),
        ('map.camera_in_base:=[0.0, 1.0]', r'expected x, y, z, roll, pitch and yaw'),
    ],
)
def test_settings_of_the_map_are_checked(make_node: Any, override: str, reason: str) -> None:
    def configure() -> None:
        node = make_node(override)
        declare_settings(node, MAP_FIELDS)
        read_map_config(node)

    with pytest.raises(ConfigError, match=reason):
        configure()


def test_seg_yaml_has_every_parameter_with_its_default() -> None:
    data = yaml.safe_load(parameter_file())['/**']['ros__parameters']
    assert data.pop('classes') == []
    written = {f'{section}.{name}': v for section in data for name, v in data[section].items()}
    assert written == {name: as_parameter(field.default) for name, field in FIELDS.items()}


def test_what_names_a_file_or_server_cannot_be_changed_from_outside() -> None:
    """Only the launch file decides what the node reads, writes and connects to."""
    texts = {
        name: field
        for name, field in FIELDS.items()
        if isinstance(field.default, str) and not field.metadata['choices']
    }
    assert 'subclasses.store' in texts
    del texts['node.mask_classes']  # names of classes, as the class list itself
    assert [name for name, field in texts.items() if not descriptor(field).read_only] == []


def test_every_parameter_has_a_description() -> None:
    assert [name for name, field in FIELDS.items() if not descriptor(field).description] == []


def test_defaults(make_node: Any) -> None:
    node = make_node()
    assert declare_parameters(node) == []
    own, config = read_configs(node)
    assert (own.lazy, own.label_encoding) == (True, 'auto')
    assert config.encoder.name == 'imagenet'
    assert list(node.get_parameter('classes').value) == []


def test_given_values_are_taken_an_integer_as_a_number_too(make_node: Any) -> None:
    node = make_node(
        'background.threshold:=1',
        'node.lazy:=false',
        'node.overlap:=on',  # which YAML takes for true
        "classes:=['cat', 'dog']",
    )
    assert declare_parameters(node) == []
    own, config = read_configs(node)
    assert config.background.threshold == 1.0
    assert not own.lazy
    assert own.overlap == 'on'
    assert node.get_parameter('classes').value == ['cat', 'dog']


def test_names_that_no_parameter_has_are_told(make_node: Any) -> None:
    node = make_node('gate.topk:=3', 'use_sim_time:=false')
    assert declare_parameters(node) == ['gate.topk']


@pytest.mark.parametrize(
    ('override', 'reason'),
    [
        ('background.threshold:=1.5', 'background.threshold is 1.5, expected 0.0 to 1.0'),
        ('refine.name:=magic', 'expected one of crf, '),
        ('node.lazy:=3', 'node.lazy is 3, expected bool'),
        ('classes:=cat', "classes is 'cat', expected a list of names"),
        ('classes:=[1, 2]', 'expected a list of names'),
    ],
)
def test_values_that_are_not_allowed_are_refused(
    make_node: Any, override: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        declare_parameters(make_node(override))
    assert reason in str(refusal.value)


def test_an_empty_list_of_classes_has_no_type(make_node: Any) -> None:
    node = make_node('classes:=[]')
    declare_parameters(node)
    assert check_classes(node.get_parameter('classes').value) == []


def test_a_change_is_checked_with_what_is_in_force(make_node: Any) -> None:
    from rclpy.parameter import Parameter

    node = make_node('gate.top_k:=7')
    declare_parameters(node)
    _, config = read_configs(node, [Parameter('gate.max_candidates', value=2)])
    assert (config.gate.top_k, config.gate.max_candidates) == (7, 2)
    with pytest.raises(ConfigError, match=r'gate\.max_candidates is 0, expected 1 to 1000'):
        read_configs(node, [Parameter('gate.max_candidates', value=0)])
