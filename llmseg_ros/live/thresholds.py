"""The thresholds of gate and background that pages have sliders for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.settings import ConfigError, build_section

# Those that count, by the choice of the stage.
THRESHOLDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    'gate': {'share': ('share', 'minimum'), 'simseg': ('margin',)},
    'background': {'threshold': ('threshold',), 'probability': ('probability',)},
}


def describe_thresholds(config: SegmenterConfig) -> list[dict[str, Any]]:
    """Return name, value, range and meaning of the thresholds in use as plain values."""
    found = []
    for section, by_choice in THRESHOLDS.items():
        stage = getattr(config, section)
        fields = {field.name: field for field in dataclasses.fields(stage)}
        for key in by_choice.get(stage.name, ()):
            about = fields[key].metadata
            found.append(
                {
                    'name': f'{section}.{key}',
                    'value': getattr(stage, key),
                    'low': about['low'],
                    'high': about['high'],
                    'help': about['help'],
                }
            )
    return found


def with_threshold(config: SegmenterConfig, name: str, value: object) -> SegmenterConfig:
    """Return the configuration with another value of a threshold that is in use.

    Raises:
        ConfigError: there is no such threshold, or the value is of the wrong type or out of range.
    """
    names = [threshold['name'] for threshold in describe_thresholds(config)]
    if name not in names:
        raise ConfigError(f'no threshold {name!a} to set; there are {", ".join(names) or "none"}')
    section, _, key = name.partition('.')
    stage = getattr(config, section)
    changed = build_section(type(stage), {**dataclasses.asdict(stage), key: value}, section)
    return dataclasses.replace(config, **{section: changed})
