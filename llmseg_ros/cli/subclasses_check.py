"""`llmseg subclasses --check`: which subclasses ever win on pictures of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmseg_ros.cli.common import CommandError, note, print_table, track, waiting
from llmseg_ros.cli.segment_images import find_images, read_image
from llmseg_ros.files import prepare_folder

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.evaluation.subclass_check import ClassCheck
    from llmseg_ros.subclasses.resolver import Subclasses


def refuse_wrong_use(
    names: Sequence[str], check: Sequence[str], out: Path | None, without_subclasses: bool
) -> None:
    """Raise BadParameter where --check and --out are given as they can't be used.

    Args:
        names: the arguments of the command.
        check: images.
        out: folder of the sheets.
        without_subclasses: there are no classes, or it is their contrasts that are asked for.
    """
    from llmseg_ros.formats.image_files import is_image_name

    if out is not None and not check:
        raise typer.BadParameter('--out is for the pictures of --check')
    if without_subclasses:
        raise typer.BadParameter('--check is of the subclasses of classes: name some')
    if files := [name for name in names if is_image_name(Path(name))]:
        raise typer.BadParameter(
            f'{files[0]} would be a class name: quote the pattern, as in --check "photos/*.jpg"'
        )


def check_on_images(
    kept: Mapping[str, Subclasses], config: SegmenterConfig, images: Sequence[str], out: Path | None
) -> list[dict[str, Any]]:
    """Look for every subclass on images, print who wins, and write a sheet for each class.

    Args:
        kept: of each class, the subclasses that are used.
        config: of the segmenter.
        images: files, folders and globs.
        out: folder of the sheets, None for none.

    Returns:
        What was found, as plain values.

    Raises:
        CommandError: there are no images or none can be read, no class has subclasses, or none was
            found in an image.
    """
    from llmseg_ros.evaluation.subclass_check import SubclassCheck
    from llmseg_ros.evaluation.variants import load_with_known

    without = [name for name, found in kept.items() if not found.names]
    if len(without) == len(kept):
        raise CommandError(
            f'there is nothing to check: {", ".join(without)} '
            f'{"has" if len(without) == 1 else "have"} no subclasses'
        )
    for name in without:
        note(f'{name} has no subclasses to check')
    paths = find_images(images, out)
    if out is not None:
        prepare_folder(out)
    # what is kept was filtered before
    config = replace(config, subclasses=replace(config.subclasses, filter=False))
    with waiting('loading the model'):
        segmenter = load_with_known(config, list(kept), {config.subclasses: kept})
    check = SubclassCheck(segmenter)
    failed = 0
    for path in track(paths, 'looking'):
        try:
            check.add(read_image(path, config.images.sixteen_bit), str(path))
        except (ValueError, MemoryError) as error:
            note(f'{path}: {error}')
            failed += 1
    if failed == len(paths):
        raise CommandError(f'none of the {failed} images could be read')
    checked = [item for item in check.classes if item.contests]
    return report(checked, len(paths) - failed, out)


def report(checked: Sequence[ClassCheck], images: int, out: Path | None) -> list[dict[str, Any]]:
    """Print who wins and who never does, write the sheets, and return it all as plain values.

    Raises:
        CommandError: no class was found in an image.
    """
    seen = [item for item in checked if item.patches]
    for item in checked:
        if not item.patches:
            note(f'{item.name} was found in none of {images} images, so nothing is said of it')
    if not seen:
        raise CommandError('none of the classes was found: give images that show them')
    columns = ('class', 'subclass', 'wins over the name', 'first of all names', 'image')
    print_table(columns, [row for item in seen for row in rows_of(item)])
    for item in seen:
        if never := [contest.name for contest in item.never]:
            note(
                f'{", ".join(never)}: never above {item.name!r} where that was found, in '
                f'{item.images} of {images} images'
            )
    sheets = {} if out is None else write_sheets(seen, out)
    return [as_json(item, sheets.get(item.name)) for item in checked]


def rows_of(item: ClassCheck) -> list[tuple[str, ...]]:
    """Return the lines of a class, those that win on most patches first."""
    rows: list[tuple[str, ...]] = []
    for contest in sorted(item.contests, key=lambda contest: (-contest.won, -contest.lead)):
        won, first = (100 * count / item.patches for count in (contest.won, contest.first))
        shares = (f'{won:.1f} %', f'{first:.1f} %') if contest.won else ('never', '-')
        rows.append(
            (item.name, contest.name, *shares, contest.sight.image if contest.sight else '')
        )
    return rows


def write_sheets(checked: Sequence[ClassCheck], out: Path) -> dict[str, str]:
    """Write a sheet for each class; return their paths by class."""
    from llmseg_ros.reports.subclass_sheet import write_sheet

    written = {}
    for item in checked:
        path = out / f'{item.name.replace("/", "_")}_subclasses.png'
        write_sheet(item, path)
        note(f'wrote {path}')
        written[item.name] = str(path)
    return written


def as_json(item: ClassCheck, sheet: str | None) -> dict[str, Any]:
    """Return what was found of a class as plain values."""
    return {
        'name': item.name,
        'images': item.images,
        'patches': item.patches,
        'sheet': sheet,
        'subclasses': [
            {
                'name': contest.name,
                'patches_won': contest.won,
                'patches_first': contest.first,
                'image': contest.sight.image if contest.sight else None,
            }
            for contest in item.contests
        ],
    }
