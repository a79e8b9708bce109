"""`llmseg classes`: class lists for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llmseg_ros.cli.common import CommandError, parse_classes, printable
from llmseg_ros.cli.segment import accepted_names
from llmseg_ros.files import replacing, writing

classes = typer.Typer(
    help='Hand class lists to other programs.', no_args_is_help=True, add_completion=False
)


@classes.callback()
def group() -> None:
    """Hand class lists to other programs."""


@classes.command()
def export(
    names: Annotated[
        str,
        typer.Argument(
            metavar='CLASSES',
            help='Class names separated by commas, or a class file: the list that '
            'the node begins with, in its order.',
        ),
    ],
    out: Annotated[Path, typer.Option(metavar='FILE.yaml', help='Where the file goes.')],
    hydra: Annotated[
        bool, typer.Option('--hydra', help='As a label space of Hydra (config/label_spaces).')
    ] = False,
    surfaces: Annotated[
        str, typer.Option(metavar='NAMES', help='Classes that are places to be on: the floor.')
    ] = '',
    dynamic: Annotated[
        str, typer.Option(metavar='NAMES', help='Classes that move, kept out of the mesh.')
    ] = '',
    invalid: Annotated[
        str, typer.Option(metavar='NAMES', help='Classes that are kept out altogether.')
    ] = '',
) -> None:
    """Write a class list for another program, with the ids of the node's label image.

    A class that is in none of --surfaces, --dynamic and --invalid is an object.

    \b
    Example:
      llmseg classes export "floor, chair, person" --hydra --surfaces floor --dynamic person
        --out office_label_space.yaml
    """
    if not hydra:
        raise typer.BadParameter('say for whom: --hydra')
    import yaml

    listed = accepted_names(parse_classes(names))
    groups = {'surfaces': surfaces, 'dynamic': dynamic, 'invalid': invalid}
    space = label_space(listed, {name: ids_of(given, listed) for name, given in groups.items()})
    with writing(out), replacing(out) as partial:
        partial.write_text(
            yaml.safe_dump(space, sort_keys=False, allow_unicode=True), encoding='utf-8'
        )
    print(f'{len(listed)} classes and background are in {printable(out)}')


def ids_of(given: str, listed: Sequence[str]) -> list[int]:
    """Return the ids of names separated by commas.

    Raises:
        CommandError: one is not in the list.
    """
    from llmseg_ros.classes import name_key

    ids = {name_key(name): number for number, name in enumerate(listed, start=1)}
    found = []
    for name in filter(str.strip, given.split(',')):
        if name_key(name) not in ids:
            raise CommandError(
                f'{printable(name.strip())} is not among the classes {", ".join(listed)}'
            )
        found.append(ids[name_key(name)])
    return sorted(set(found))


def label_space(listed: Sequence[str], groups: dict[str, list[int]]) -> dict[str, Any]:
    """Return what Hydra reads of a label space; background is label 0.

    Its keys are those of LabelSpaceConfig and PipelineConfig of Hydra (src/common/).

    Args:
        listed: class names; their ids are 1, 2 and so on.
        groups: ids of the classes under surfaces, dynamic and invalid.
    """
    from llmseg_ros.classes import BACKGROUND_ID

    taken = {number for ids in groups.values() for number in ids}
    everything = [(BACKGROUND_ID, 'background'), *enumerate(listed, start=1)]
    return {
        'total_semantic_labels': len(everything),
        'dynamic_labels': groups['dynamic'],
        'invalid_labels': groups['invalid'],
        'object_labels': [n for n, _ in everything[1:] if n not in taken],
        'surface_places_labels': groups['surfaces'],
        'label_names': [{'label': number, 'name': name} for number, name in everything],
    }
