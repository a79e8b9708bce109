"""The layouts of published datasets, and opening one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from llmseg_ros.classes import BACKGROUND_ID
from llmseg_ros.evaluation.datasets import (
    NO_CLASS,
    Dataset,
    DatasetError,
    Sample,
    folder_dataset,
    read_lines,
)
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.files import shipped_path


@dataclass(frozen=True)
class Layout:
    """Where a published dataset keeps its validation images, and what its label values mean.

    Attributes:
        title: for reports.
        classes: file of class names in config/classes, in the order of `values`.
        images: path of an image by id, below the root; an id may have folders in it.
        labels: path of its label image.
        values: label value of each class.
        background: label values of the background; without any it is no class of the dataset.
        ignored: label values that don't count.
        split: file with one id a line; without, every image there is.
    """

    title: str
    classes: str
    images: str
    labels: str
    values: Sequence[int]
    background: Sequence[int] = ()
    ignored: Sequence[int] = (255,)
    split: str = ''


CITYSCAPES_VALUES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
COCO_IMAGES = 'images/val2017/{id}.jpg'
COCO_LABELS = 'annotations/val2017/{id}_labelTrainIds.png'
CONTEXT = Layout(
    title='PASCAL Context 60',
    classes='context.txt',
    images='JPEGImages/{id}.jpg',
    labels='SegmentationClassContext/{id}.png',
    values=range(1, 60),
    background=(0,),
    split='ImageSets/SegmentationContext/val.txt',
)
LAYOUTS: Mapping[str, Layout] = {
    'voc': Layout(
        title='PASCAL VOC 2012',
        classes='voc.txt',
        images='JPEGImages/{id}.jpg',
        labels='SegmentationClass/{id}.png',
        values=range(1, 21),
        background=(0,),
        split='ImageSets/Segmentation/val.txt',
    ),
    'voc20': Layout(
        title='PASCAL VOC 2012, 20 classes',
        classes='voc.txt',
        images='JPEGImages/{id}.jpg',
        labels='SegmentationClass/{id}.png',
        values=range(1, 21),
        ignored=(0, 255),
        split='ImageSets/Segmentation/val.txt',
    ),
    'context60': CONTEXT,
    'context59': replace(CONTEXT, title='PASCAL Context 59', background=(), ignored=(0, 255)),
    'coco-stuff': Layout(
        title='COCO-Stuff 164k',
        classes='coco_stuff.txt',
        images=COCO_IMAGES,
        labels=COCO_LABELS,
        values=range(171),
    ),
    'coco-object': Layout(
        title='COCO-Object',
        classes='coco_object.txt',
        images=COCO_IMAGES,
        labels=COCO_LABELS,
        values=range(80),
        background=range(80, 171),
    ),
    'ade20k': Layout(
        title='ADE20K',
        classes='ade20k.txt',
        images='images/validation/{id}.jpg',
        labels='annotations/validation/{id}.png',
        values=range(1, 151),
        ignored=(0,),
    ),
    'cityscapes': Layout(
        title='Cityscapes',
        classes='cityscapes.txt',
        images='leftImg8bit/val/{id}_leftImg8bit.png',
        labels='gtFine/val/{id}_gtFine_labelIds.png',
        values=CITYSCAPES_VALUES,
        ignored=[v for v in (*range(34), 255) if v not in CITYSCAPES_VALUES],
    ),
}


def open_dataset(
    layout: str, root: Path, ignore: int = 255, background: bool | None = None
) -> Dataset:
    """Open a dataset of the layout `folder`, or of one in LAYOUTS.

    Args:
        layout: name.
        root: the folder.
        ignore: of a folder, as folder_dataset has it.
        background: the same.

    Raises:
        DatasetError: the folder isn't of this layout, or something is missing.
    """
    if layout == 'folder':
        return folder_dataset(root, ignore, background)
    return published_dataset(root, LAYOUTS[layout])


def published_dataset(root: Path, layout: Layout) -> Dataset:
    """Open the validation part of a published dataset.

    Raises:
        DatasetError: the root is not of this layout, or a part is missing.
    """
    classes = tuple(read_lines(shipped_path(f'config/classes/{layout.classes}'), 'class names'))
    id_of_value = np.full(65536, NO_CLASS, np.uint16)
    id_of_value[list(layout.background)] = BACKGROUND_ID
    id_of_value[list(layout.values)] = np.arange(1, len(classes) + 1)
    id_of_value[list(layout.ignored)] = IGNORED
    samples = tuple(
        Sample(
            name,
            as_spelt(root / layout.images.format(id=name)),
            as_spelt(root / layout.labels.format(id=name)),
        )
        for name in published_ids(root, layout)
    )
    for part in ('image', 'labels'):
        missing = [path for s in samples if not (path := getattr(s, part)).is_file()]
        if missing:
            raise DatasetError(
                f'{layout.title} below {root} lacks {len(missing)} of {len(samples)} {part} files, '
                f'the first is {missing[0]}'
            )
    background = bool(layout.background)
    return Dataset(layout.title, classes, background, id_of_value, samples, synonyms_of(classes))


def as_spelt(path: Path) -> Path:
    """Return a path, with a suffix in capitals where only that is there."""
    in_capitals = path.with_suffix(path.suffix.upper())
    return in_capitals if not path.exists() and in_capitals.exists() else path


def with_published_names(dataset: Dataset, layout: str, papers: Sequence[str]) -> Dataset:
    """Describe the classes by the names published code has for them, in its spelling.

    Pixels of COCO-Object without a label count as background then: the published conversions of its
    labels, which follow GroupViT, have it so.

    Args:
        dataset: with all its classes.
        layout: its name in LAYOUTS.
        papers: folders of config/classes/published; the first that has the dataset counts.

    Raises:
        DatasetError: none of them has.
    """
    folder = shipped_path('config/classes/published')
    file = Path(LAYOUTS[layout].classes).name if layout in LAYOUTS else f'{layout}.txt'
    for paper in papers:
        if (folder / paper / file).is_file():
            break
    else:
        raise DatasetError(
            f'the names {", ".join(papers)} are published for other datasets than {layout}: '
            f'leave out --names published, or choose a configuration made for {layout}'
        )
    lines = read_lines(folder / paper / file, 'class names')
    names = [tuple(name.strip() for name in line.split(',')) for line in lines]
    synonyms = {first: others for first, *rest in names if (others := tuple(rest))}
    classes = tuple(first for first, *_ in names)
    id_of_value = dataset.id_of_value
    if layout == 'coco-object':
        id_of_value = np.where(id_of_value == IGNORED, np.uint16(BACKGROUND_ID), id_of_value)
    return replace(dataset, classes=classes, synonyms=synonyms, id_of_value=id_of_value)


def synonyms_of(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the other usual names of classes as shipped, without those that are classes too."""
    text = shipped_path('config/classes/synonyms.yaml').read_text(encoding='utf-8')
    known: dict[str, list[str]] = yaml.safe_load(text)
    return {
        name: tuple(other for other in known[name] if other not in classes)
        for name in classes
        if name in known
    }


def published_ids(root: Path, layout: Layout) -> list[str]:
    """Return the ids of the split, or of the images there are.

    Raises:
        DatasetError: there are none.
    """
    if layout.split:
        return read_lines(root / layout.split, f'the image names of {layout.title}, one a line')
    folder, ending = layout.images.split('/{id}')
    names = sorted(
        str(path.relative_to(root / folder))[: -len(ending)]
        for path in (root / folder).rglob('*')
        if path.name.lower().endswith(ending.lower()) and not path.name.startswith('.')
    )
    if not names:
        raise DatasetError(f'expected the images of {layout.title} as {root / layout.images}')
    return names
