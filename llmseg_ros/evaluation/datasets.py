"""Images with their true labels, in the layouts people have on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.class_rules import Given
from llmseg_ros.classes import BACKGROUND_ID, BACKGROUND_NAMES, clean_names, name_key
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.formats.class_files import (
    ClassFile,
    ClassFileError,
    read_classes_and_rules,
)
from llmseg_ros.formats.image_files import (
    ImageFileError,
    is_image_name,
    opened_image,
    read_image_file,
)

VALUE_MODES = ('1', 'L', 'P', 'I;16', 'I')  # of Pillow: one whole number per pixel
NO_CLASS = 65534  # id of the label values that the dataset does not define


class DatasetError(ValueError):
    """A dataset can't be used; the message says what was expected and what was found."""


@dataclass(frozen=True)
class Sample:
    """An image and its label image."""

    id: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Dataset:
    """Images, their labels, and what the label values mean.

    Attributes:
        name: for reports.
        classes: what is evaluated, without the background; ids are 1.. in this order.
        background: whether id 0 is a class of the truth and counts in the means.
        id_of_value: (65536,) uint16, the id of every label value; IGNORED where the pixel does
            not count, NO_CLASS where the dataset has no such value.
        samples: in the order they are evaluated.
        synonyms: other usual names by class, none of them a class as well.
        rules: of single classes, for the segmenter.
    """

    name: str
    classes: tuple[str, ...]
    background: bool
    id_of_value: NDArray[np.uint16]
    samples: tuple[Sample, ...]
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: Given = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Name by id, that of the background first."""
        return ('background', *self.classes)

    @property
    def first_id(self) -> int:
        """The lowest id that counts in the means."""
        return 0 if self.background else 1


def folder_dataset(root: Path, ignore: int = 255, background: bool | None = None) -> Dataset:
    """Open a folder with images/, labels/ and classes.txt.

    labels/NAME.png has a class value per pixel of images/NAME.*; value 0 is the first line of
    classes.txt, or the class whose id there is 0.

    Args:
        root: the folder.
        ignore: value of the pixels that don't count.
        background: whether value 0 is the background; None: where its name is `background`.

    Raises:
        DatasetError: the folder is not of this layout.
    """
    names, values = read_classes(root / 'classes.txt')
    if background is None:
        background = name_key(names[0]) in BACKGROUND_NAMES
    classes = tuple(names[1:] if background else names)
    check_names(classes, root / 'classes.txt')
    if ignore in values:
        raise DatasetError(
            f'{root / "classes.txt"} has {names[values.index(ignore)]!a} for the value {ignore}, '
            'which does not count: choose another with --ignore'
        )
    first_id = 0 if background else 1
    id_of_value = np.full(65536, NO_CLASS, np.uint16)
    id_of_value[values] = np.arange(first_id, first_id + len(names))
    id_of_value[ignore] = IGNORED
    return Dataset(root.name, classes, background, id_of_value, pair_folders(root))


def read_classes(path: Path) -> ClassFile:
    """Read the class file of a folder, whose ids are label values.

    Raises:
        DatasetError: it can't be read, or is none.
    """
    try:
        found, rules = read_classes_and_rules(path)
    except OSError as error:
        raise DatasetError(f'expected {path} with class names: {error.strerror}') from error
    except ClassFileError as error:
        raise DatasetError(f'{path} {error}') from error
    if rules:
        raise DatasetError(
            f'{path} has rules of classes, and says what label values mean: give the rules with '
            '--classes in a file of their own'
        )
    if found.ids[-1] > 65535:
        raise DatasetError(f'{path} has the id {found.ids[-1]}, label values go up to 65535')
    return found


def pair_folders(root: Path) -> tuple[Sample, ...]:
    """Pair images/NAME.* with labels/NAME.png, sorted by name.

    Raises:
        DatasetError: a folder is missing or empty, or an image has no label image.
    """
    images = [path for path in files_in(root / 'images') if is_image_name(path)]
    if not images:
        raise DatasetError(f'{root / "images"} has no images')
    labels = {
        path.stem: path for path in files_in(root / 'labels') if path.suffix.lower() == '.png'
    }
    missing = [path for path in images if path.stem not in labels]
    if missing:
        raise DatasetError(
            f'{len(missing)} of {len(images)} images have no label image, the first is '
            f'{missing[0]}: expected {root / "labels" / missing[0].stem}.png'
        )
    return tuple(Sample(path.stem, path, labels[path.stem]) for path in images)


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder that are not hidden, sorted.

    Raises:
        DatasetError: there is no such folder, or it can't be read.
    """
    try:
        files = (path for path in folder.iterdir() if path.is_file())
        return sorted(path for path in files if not path.name.startswith('.'))
    except OSError as error:
        raise DatasetError(f'expected the folder {folder}: {error.strerror}') from error


def read_lines(path: Path, what: str) -> list[str]:
    """Return the lines of a text file that are not blank, stripped.

    Raises:
        DatasetError: it can't be read, or has none.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise DatasetError(f'expected {path} with {what}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path} is not UTF-8 text') from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DatasetError(f'{path} is empty, expected {what}')
    return lines


def check_names(names: Sequence[str], where: object) -> None:
    """Refuse class names that the segmenter would not take as they are.

    Raises:
        DatasetError: one is invalid or repeated.
    """
    accepted, messages = clean_names(names)
    if len(accepted) < len(names):
        raise DatasetError(f'{where}: {messages[0]}')


def only_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Keep some classes, in this order; the pixels of all others become background.

    Raises:
        DatasetError: the dataset has no class of that name.
    """
    known = {name_key(name): index for index, name in enumerate(dataset.classes, start=1)}
    check_names(names, 'the classes to evaluate')
    missing = [name for name in names if name_key(name) not in known]
    if missing:
        raise DatasetError(
            f'{dataset.name} has no class {missing[0]!a}; it has {", ".join(dataset.classes)}'
        )
    new_id = np.arange(65536, dtype=np.uint16)  # by the id before
    new_id[: len(dataset.classes) + 1] = BACKGROUND_ID
    kept = [known[name_key(name)] for name in names]
    new_id[kept] = np.arange(1, len(kept) + 1)
    classes = tuple(dataset.classes[index - 1] for index in kept)
    background = dataset.background or len(kept) < len(dataset.classes)
    return replace(
        dataset, classes=classes, background=background, id_of_value=new_id[dataset.id_of_value]
    )


def only_samples(dataset: Dataset, ids: Iterable[str]) -> Dataset:
    """Keep the samples with these ids, in the dataset's order.

    Raises:
        DatasetError: an id is not in the dataset.
    """
    wanted = set(ids)
    samples = tuple(sample for sample in dataset.samples if sample.id in wanted)
    missing = sorted(wanted - {sample.id for sample in samples})
    if missing:
        raise DatasetError(
            f'{len(missing)} of {len(wanted)} ids are not in {dataset.name}, the first is '
            f'{missing[0]!a}'
        )
    return replace(dataset, samples=samples)


def read_sample(
    dataset: Dataset, sample: Sample, sixteen_bit: str = 'high_byte'
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Read an image as (H, W, 3) uint8 RGB and the (H, W) ids of its true classes.

    Raises:
        DatasetError: a file can't be read, the sizes differ, or a label value is undefined.
    """
    rgb, values = read_rgb(sample.image, sixteen_bit), read_values(sample.labels)
    if values.shape != rgb.shape[:2]:
        raise DatasetError(
            f'{sample.labels} is {values.shape[1]}x{values.shape[0]}, '
            f'its image {rgb.shape[1]}x{rgb.shape[0]}'
        )
    if values.min() < 0 or values.max() > 65535:
        raise DatasetError(f'{sample.labels} has values outside of 0 to 65535')
    truth = dataset.id_of_value[values.astype(np.uint16)]
    unknown = truth == NO_CLASS
    if unknown.any():
        raise DatasetError(
            f'{sample.labels} has the value {values[unknown][0]}, which is no class of '
            f'{dataset.name} and not ignored'
        )
    return rgb, truth


def read_rgb(path: Path, sixteen_bit: str = 'high_byte') -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB, as it is stored: its labels aren't turned either.

    Raises:
        DatasetError: it can't be read.
    """
    try:
        return read_image_file(path, sixteen_bit, upright=False)
    except ImageFileError as error:
        raise DatasetError(f'{path}: {error}') from error


def read_values(path: Path) -> NDArray[np.int64]:
    """Read the (H, W) values of a grey or palette picture.

    Raises:
        DatasetError: it can't be read, or is a colour picture.
    """
    try:
        with opened_image(path) as image:
            mode, values = image.mode, np.array(image)
    except ImageFileError as error:
        raise DatasetError(f'{path}: {error}') from error
    if mode not in VALUE_MODES:
        raise DatasetError(
            f'{path} is a colour picture, expected a grey or palette one of class values'
        )
    return values.astype(np.int64)
