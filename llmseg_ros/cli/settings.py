"""Settings of a configuration and of the command line put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llmseg_ros.cli.common import printable

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig


def parse_axes(texts: Sequence[str], chosen: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the values of what is ablated, each once.

    Args:
        texts: 'fusion,refine' for all values, 'refine=crf,none' for these.
        chosen: what is set to one value.

    Raises:
        typer.BadParameter: something else is named, or it is set to one value as well.
    """
    if not texts:
        return {}
    from llmseg_ros.evaluation.variants import ABLATED, VALUES

    axes: dict[str, tuple[str, ...]] = {}
    for text in texts:
        left, equals, right = text.partition('=')
        for axis in (part.strip() for part in left.split(',')):
            check_choice('ablate', axis, tuple(VALUES))
            if chosen[axis]:
                raise typer.BadParameter(f'--ablate {axis} takes several, leave out --{axis}')
            values = tuple(value.strip() for value in right.split(',')) if equals else ABLATED[axis]
            for value in values:
                check_choice(f'ablate {axis}', value, VALUES[axis])
            axes[axis] = tuple(dict.fromkeys(values))
    return axes


def read_settings(path: Path, encoder: str, chosen: dict[str, str]) -> SegmenterConfig:
    """Read the configuration and put what the command line says in its place.

    Raises:
        ConfigError: the configuration can't be used.
        typer.BadParameter: there is no such encoder, fusion or refiner.
    """
    from llmseg_ros.config import EncoderConfig
    from llmseg_ros.config_files import load_config
    from llmseg_ros.evaluation.variants import VALUES, choices_of, with_setting

    settings = load_config(path)
    if encoder:
        check_choice('encoder', encoder, choices_of(EncoderConfig, 'name'))
        settings = replace(settings, encoder=replace(settings.encoder, name=encoder))
    for axis, value in chosen.items():
        if value:
            check_choice(axis, value, VALUES[axis])
            settings = with_setting(settings, axis, value)
    return settings


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise typer.BadParameter where a value is not among the choices."""
    if value not in choices:
        raise typer.BadParameter(f'--{option} takes {", ".join(choices)}, not {printable(value)}')
