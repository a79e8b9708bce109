"""Configuration: one frozen dataclass per stage, built here from YAML or ROS parameters.

A default, its range and its description live on the field and nowhere else; ROS parameter
descriptors and docs are made from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar('T')

NODE_SECTIONS = ('node', 'classes', 'use_sim_time')  # of the same file, read by the node alone


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


@dataclass(frozen=True)
class EncoderConfig:
    name: str = setting('imagenet', 'text-image encoder', ('imagenet',), restart=True)
    device: str = setting('auto', 'auto, cpu, cuda, cuda:N or mps', restart=True)


@dataclass(frozen=True)
class ImageNetConfig:
    model: str = setting(
        'lite2', 'EfficientNet-Lite: lite0 is fastest', ('lite0', 'lite1', 'lite2'), restart=True
    )
    short_side: int = setting(320, 'image short side in pixels', low=32, high=2048)
    temperature: float = setting(
        0.03, 'softness of the match of a name to the 1000 ImageNet names', low=0.001, high=1.0
    )


@dataclass(frozen=True)
class SubclassesConfig:
    packs: bool = setting(True, 'use the curated subclass packs')


@dataclass(frozen=True)
class FusionConfig:
    name: str = setting(
        'max', 'how subclass descriptors are fused', ('paper', 'reference', 'mean', 'max')
    )
    temperature: float = setting(1.0, 'softness of the subclass weights', low=1e-3, high=1e3)


@dataclass(frozen=True)
class GateConfig:
    name: str = setting('simseg', 'which classes may appear in an image', ('simseg', 'none'))
    top_k: int = setting(10, 'scores the threshold is made of', low=1, high=1000)
    max_candidates: int = setting(5, 'classes that may appear in one image', low=1, high=1000)


@dataclass(frozen=True)
class BackgroundConfig:
    threshold: float = setting(
        0.25, 'map value, as a share of the strongest, below which is background', low=0.0, high=1.0
    )


@dataclass(frozen=True)
class RefineConfig:
    name: str = setting('crf', 'mask refinement', ('crf', 'none'))


@dataclass(frozen=True)
class SegmenterConfig:
    encoder: EncoderConfig = EncoderConfig()
    imagenet: ImageNetConfig = ImageNetConfig()
    subclasses: SubclassesConfig = SubclassesConfig()
    fusion: FusionConfig = FusionConfig()
    gate: GateConfig = GateConfig()
    background: BackgroundConfig = BackgroundConfig()
    refine: RefineConfig = RefineConfig()


def load_config(path: str | Path) -> SegmenterConfig:
    """Read a configuration file, in the layout of a ROS parameter file or without its wrapping.

    Raises:
        ConfigError: the file can't be read, or a setting is unknown or out of range.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'configuration {path}: {error}') from error
    except yaml.YAMLError as error:
        raise ConfigError(f'configuration {path} is not YAML: {error}') from error
    data = {} if data is None else data
    for wrapping in ('/**', 'ros__parameters'):
        if isinstance(data, Mapping) and set(data) == {wrapping}:
            data = data[wrapping]
    if not isinstance(data, Mapping):
        raise ConfigError(f'configuration {path}: expected settings by name')
    try:
        return build_config({key: data[key] for key in data if key not in NODE_SECTIONS})
    except ConfigError as error:
        raise ConfigError(f'configuration {path}: {error}') from error


def build_config(data: Mapping[str, Any]) -> SegmenterConfig:
    """Build the configuration from nested settings; what is not given keeps its default.

    Raises:
        ConfigError: a setting is unknown, of the wrong type, or out of range.
    """
    sections = {field.name: type(field.default) for field in dataclasses.fields(SegmenterConfig)}
    unknown = set(data) - set(sections)
    if unknown:
        raise ConfigError(f'no section {sorted(unknown)[0]!r}; there are {", ".join(sections)}')
    return SegmenterConfig(
        **{name: build_section(sections[name], data[name], name) for name in data}
    )


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
    kind = type(field.default)
    if kind is tuple and isinstance(value, (list, tuple)):
        value = tuple(value)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f'{name} is {value!r}, expected {kind.__name__}')
    choices, low, high = (field.metadata[key] for key in ('choices', 'low', 'high'))
    if choices and value not in choices:
        raise ConfigError(f'{name} is {value!r}, expected one of {", ".join(choices)}')
    for number in value if kind is tuple else (value,):
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            raise ConfigError(f'{name} is {value!r}, expected {low} to {high}')
    return value
