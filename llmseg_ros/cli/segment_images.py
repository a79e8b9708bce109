"""Images of `llmseg segment`: which ones, and what is written of each."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.cli.common import CommandError, printable
from llmseg_ros.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmseg_ros.segmentation import Segmentation
    from llmseg_ros.segmenter import Segmenter

BAG_SUFFIXES = ('.bag', '.db3', '.mcap')
OUTPUT_KINDS = ('labels', 'overlay')


def find_images(arguments: Iterable[str], out: Path | None) -> list[Path]:
    """Return the image files that files, folders and globs stand for, each once.

    What lies under the output folder counts only where it is named itself. A file that does
    not exist stays in the list: it fails when its turn comes, and the others are done.

    Raises:
        CommandError: a folder or glob has no images, or it is none of these.
    """
    from llmseg_ros.formats.image_files import images_below, is_image_name

    found: dict[str, Path] = {}
    for argument in arguments:
        refuse_what_is_no_image(argument)
        if os.path.isdir(argument):
            paths = images_below(Path(argument), out)
        elif os.path.exists(argument) or not glob.has_magic(argument):
            paths = [Path(argument)]
        else:
            paths = [Path(p) for p in sorted(glob.glob(argument, recursive=True))]
            paths = [path for path in paths if is_image_name(path)]
        if not paths:
            raise CommandError(f'no images in {printable(argument)}: {known_images()} are taken')
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def known_images() -> str:
    """Return how the names of images end."""
    from llmseg_ros.formats.image_files import IMAGE_SUFFIXES

    return ', '.join(sorted(IMAGE_SUFFIXES))


def refuse_what_is_no_image(argument: str) -> None:
    """Raise CommandError for what people give that is no image file, and say what to do instead."""
    name, suffix = printable(argument), Path(argument).suffix.lower()
    if argument == '-':
        raise CommandError('images are not read from standard input: give files or folders')
    if '://' in argument and not os.path.exists(argument):
        raise CommandError(f'{name} is an address: save the image as a file and give its path')
    if suffix in BAG_SUFFIXES:
        raise CommandError(f'{name} is a bag: `llmseg replay {name} --classes NAMES` segments it')


def output_stems(paths: Sequence[Path]) -> list[Path]:
    """Return an output path without suffix for every image, all different.

    Subfolders below the images' common folder are kept. x.jpg is x; where x.png is there too,
    the later one keeps its suffix in the name.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in absolute]) if absolute else ''
    stems: dict[Path, None] = {}  # an ordered set
    for path in absolute:
        relative = path.relative_to(common)
        numbered = (relative.with_name(f'{relative.name}_{n}') for n in itertools.count(2))
        candidates = itertools.chain([relative.with_suffix(''), relative], numbered)
        stems[next(stem for stem in candidates if stem not in stems)] = None
    return list(stems)


def output_path(stem: Path, kind: str) -> Path:
    return stem.with_name(f'{stem.name}_{kind}.png')


def refuse_overwriting(paths: Sequence[Path], stems: Sequence[Path]) -> None:
    """Raise CommandError where an output would take the place of an input."""
    inputs = {os.path.realpath(path) for path in paths}
    for path in (output_path(stem, kind) for stem in stems for kind in OUTPUT_KINDS):
        if os.path.realpath(path) in inputs:
            raise CommandError(f'{printable(path)} would be overwritten, choose another --out')


def read_image(path: Path, sixteen_bit: str = 'high_byte') -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB, turned upright as its EXIF says.

    Raises:
        ValueError: it does not open; the message does not repeat the path.
    """
    from llmseg_ros.formats.image_files import read_image_file

    return read_image_file(path, sixteen_bit)


def found_in_words(result: Segmentation) -> str:
    """Say which classes were found and how much of the image they cover."""
    shares = [f'{c.name} {100 * c.area / result.labels.size:.1f} %' for c in result.found]
    return printable(', '.join(shares)) or 'background only'


def write_images(stem: Path, rgb: NDArray[np.uint8], result: Segmentation) -> dict[str, str]:
    """Write the label image and the overlay; return their paths.

    Raises:
        OSError: they can't be written.
    """
    from PIL import Image

    from llmseg_ros.visualize import add_legend, label_image, overlay

    legend = [(c.id, f'{c.name} {100 * c.area / result.labels.size:.1f} %') for c in result.found]
    pictures = (
        label_image(result.labels),
        Image.fromarray(add_legend(overlay(rgb, result.labels), legend)),
    )
    written = {}
    for kind, picture in zip(OUTPUT_KINDS, pictures, strict=True):
        path = output_path(stem, kind)
        with replacing(path) as partial:
            picture.save(partial, format='PNG')
        written[kind] = str(path)
    return written


def about_results(segmenter: Segmenter) -> dict[str, Any]:
    """Return what holds for all images as plain values: all classes, and what the keys mean."""
    return {
        'encoder': segmenter.encoder.name,
        'classes': [asdict(item) for item in segmenter.vocabulary.classes],
        'keys': {
            'id': 'value of the class in NAME_labels.png; 0 is background',
            'score': 'how strongly the image as a whole shows the class, 0 to 1, before it is '
            'searched for by pixel; to be compared within an image, no probability',
            'area': 'pixels',
            'box': 'left, top, width and height in pixels',
        },
    }


def result_as_json(result: Segmentation) -> dict[str, Any]:
    """Return sizes, the classes found, largest first, and timings as plain values."""
    height, width = result.labels.shape
    return {
        'width': width,
        'height': height,
        'classes': [
            {
                'id': c.id,
                'name': c.name,
                'score': round(float(c.score), 4),
                'area': int(c.area),
                'box': [int(value) for value in c.box],
            }
            for c in result.found
        ],
        'timings_ms': {stage: round(ms, 2) for stage, ms in result.timings_ms.items()},
    }
