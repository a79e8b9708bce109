"""Write the parameter files of the nodes, as they are shipped.

python -m llmseg_ros.ros.parameter_file > config/seg.yaml
python -m llmseg_ros.ros.parameter_file semantic_map > config/semantic_map.yaml
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from llmseg_ros.ros.map_settings import MAP_SECTIONS
from llmseg_ros.ros.parameters import SECTIONS, as_parameter

HEAD = """\
# Every parameter of the node with its default. The library reads the same file:
# Segmenter.from_config('config/seg.yaml'), llmseg segment --config config/seg.yaml.
# Where it says "restart" a parameter is fixed when the node starts; the others can be changed
# while it runs: ros2 param set /seg background.threshold 0.3
# Made by python -m llmseg_ros.ros.parameter_file of what the settings' fields say.
/**:
  ros__parameters:
    # class list to begin with; ~/classes and ~/set_classes replace it
    classes: []
"""
MAP_HEAD = """\
# Every parameter of the node semantic_map with its default. Where it says "restart" a parameter is
# fixed when the node starts.
# Made by python -m llmseg_ros.ros.parameter_file semantic_map of what the settings' fields say.
/**:
  ros__parameters:
"""


def parameter_file(head: str = HEAD, sections: Mapping[str, type[Any]] = SECTIONS) -> str:
    """Return a parameter file with every setting, its default and what is allowed."""
    lines = [head] if head is HEAD else [head.rstrip('\n')]
    for name, section in sections.items():
        lines.append(f'    {name}:')
        for field in dataclasses.fields(section):
            for line in textwrap.wrap(describe(field), 92):
                lines.append(f'      # {line}')
            value = yaml.safe_dump(as_parameter(field.default), default_flow_style=True)
            lines.append(f'      {field.name}: {value.partition("...")[0].strip()}')
        lines.append('')
    return '\n'.join(lines)


def describe(field: dataclasses.Field[Any]) -> str:
    """Return a setting's help with what is allowed and whether it needs a restart."""
    choices, low, high = (field.metadata[key] for key in ('choices', 'low', 'high'))
    notes = ['one of ' + ', '.join(choices)] if choices else []
    notes += [f'{low} to {high}'] if low is not None else []
    notes += ['restart'] if field.metadata['restart'] else []
    return field.metadata['help'] + (f' ({"; ".join(notes)})' if notes else '')


if __name__ == '__main__':
    of_map = sys.argv[1:] == ['semantic_map']
    print(parameter_file(MAP_HEAD, MAP_SECTIONS) if of_map else parameter_file(), end='')
