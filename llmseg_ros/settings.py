"""Settings: fields of dataclasses with their range and description, and values checked by them."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar('T')

ON_OFF = {True: 'on', False: 'off'}  # what YAML takes these words for


class ConfigError(ValueError):
    """A configuration can't be used; the message names the setting and what is allowed."""


def setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    restart: bool = False,
) -> Any:
    """Declare a field: default, one line of help, what is allowed, whether it needs a restart."""
    metadata = {'help': help, 'choices': choices, 'low': low, 'high': high, 'restart': restart}
    return dataclasses.field(default=default, metadata=metadata)


def build_section(section: type[T], values: Any, name: str) -> T:
    """Build one stage's dataclass from its settings, checked.

    Raises:
        ConfigError: a setting is unknown, of the wrong type, or out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f'{name}: expected settings by name')
    fields = {field.name: field for field in dataclasses.fields(section)}  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f'no setting {name}.{key}; there are {", ".join(fields)}')
        checked[key] = check_setting(fields[key], value, f'{name}.{key}')
    return section(**checked)


def check_setting(field: dataclasses.Field[Any], value: Any, name: str) -> Any:
    """Return the value as the field's type.

    Raises:
        ConfigError: it is of the wrong type, not among the choices, or out of range.
    """
    default: Any = field.default
    kind = type(default)
    if kind is tuple and isinstance(value, (list, tuple, array)):
        value = tuple(value)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif isinstance(value, bool) and ON_OFF[value] in field.metadata['choices']:
        value = ON_OFF[value]
    item = type(default[0]) if kind is tuple and default else str  # an empty default is of texts
    expected = f'a list of {item.__name__}' if kind is tuple else kind.__name__
    if kind is str and isinstance(value, bool):
        word = ON_OFF[value]
        raise ConfigError(f"{name} is {value!r}, expected {expected}; for the word write '{word}'")
    if type(value) is not kind:
        raise ConfigError(f'{name} is {value!r}, expected {expected}')
    if kind is tuple and ((default and not value) or any(type(part) is not item for part in value)):
        raise ConfigError(f'{name} is {value!r}, expected {expected}')
    choices, low, high = (field.metadata[key] for key in ('choices', 'low', 'high'))
    if choices and value not in choices:
        raise ConfigError(f'{name} is {value!r}, expected one of {", ".join(choices)}')
    for number in value if kind is tuple else (value,):
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            raise ConfigError(f'{name} is {value!r}, expected {low} to {high}')
    return value
