"""Datasets in the folder layout, good ones and broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmseg_ros.classes import clean_names
from llmseg_ros.config import SubclassesConfig
from llmseg_ros.evaluation.datasets import (
    DatasetError,
    folder_dataset,
    only_classes,
    only_samples,
    read_sample,
)
from llmseg_ros.evaluation.layouts import LAYOUTS, Layout, published_dataset, synonyms_of
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.evaluation.variants import with_source, with_synonyms
from llmseg_ros.files import shipped_path
from llmseg_ros.subclasses.resolver import Resolver, Subclasses
from llmseg_ros.visualize import palette


def write_folder(root: Path, names: str, labels: list[list[int]]) -> Path:
    """Write a dataset of one image, b.jpg, with these label values."""
    values = np.array(labels, np.uint8)
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True)
    Image.new('RGB', values.shape[::-1], 'red').save(root / 'images' / 'b.jpg')
    picture = Image.fromarray(values)
    picture.putpalette(palette(256).ravel().tolist())
    picture.save(root / 'labels' / 'b.png')
    (root / 'classes.txt').write_text(names)
    return root


def truth_of(root: Path, only: str = '', **options: int | bool) -> list[list[int]]:
    dataset = folder_dataset(root, **options)  # type: ignore[arg-type]
    if only:
        dataset = only_classes(dataset, only.split(','))
    return read_sample(dataset, dataset.samples[0])[1].tolist()


def test_values_with_background(tmp_path: Path) -> None:
    root = write_folder(tmp_path / 'd', 'background\ncat\ncup\n', [[0, 1], [2, 255]])
    dataset = folder_dataset(root)
    assert dataset.classes == ('cat', 'cup')
    assert dataset.names == ('background', 'cat', 'cup')
    assert (dataset.name, dataset.background, dataset.first_id) == ('d', True, 0)
    assert truth_of(root) == [[0, 1], [2, IGNORED]]


def test_values_without_background(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 'cat\ncup\nroad\n', [[0, 1], [2, 254]])
    dataset = folder_dataset(root, ignore=254)
    assert dataset.classes == ('cat', 'cup', 'road')
    assert dataset.first_id == 1
    assert truth_of(root, ignore=254) == [[1, 2], [3, IGNORED]]
    assert truth_of(root, ignore=254, background=True) == [[0, 1], [2, IGNORED]]


def test_classes_left_out_become_background(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 'cat\ncup\nroad\n', [[0, 1], [2, 255]])
    dataset = only_classes(folder_dataset(root), ['Road', 'cat'])
    assert dataset.classes == ('road', 'cat')
    assert dataset.background
    assert truth_of(root, 'road,cat') == [[2, 0], [1, IGNORED]]
    assert not only_classes(folder_dataset(root), ['road', 'cup', 'cat']).background


def test_samples_by_id(tmp_path: Path) -> None:
    dataset = folder_dataset(write_folder(tmp_path / 'd', 'cat', [[0]]))
    assert only_samples(dataset, ['b']).samples == dataset.samples
    with pytest.raises(DatasetError, match="1 of 2 ids are not in d, the first is 'c'"):
        only_samples(dataset, ['b', 'c'])


def remove_folder(root: Path) -> None:
    (root / 'labels' / 'b.png').unlink()
    (root / 'labels').rmdir()


def write_large_labels(root: Path) -> None:
    Image.new('L', (9, 9)).save(root / 'labels' / 'b.png')


def write_colour_labels(root: Path) -> None:
    Image.new('RGB', (2, 2)).save(root / 'labels' / 'b.png')


def cut_labels(root: Path) -> None:
    path = root / 'labels' / 'b.png'
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (remove_folder, 'expected the folder .*labels: No such file'),
        (lambda root: (root / 'labels' / 'b.png').unlink(), r'1 of 1 images .*expected .*b\.png$'),
        (lambda root: (root / 'images' / 'b.jpg').unlink(), 'images has no images'),
        (lambda root: (root / 'classes.txt').unlink(), r'expected .*classes\.txt with class names'),
        (lambda root: (root / 'classes.txt').write_text('\n'), 'is empty'),
        (lambda root: (root / 'classes.txt').write_bytes(b'\xff\xfe\xff'), 'not UTF-8'),
        (lambda root: (root / 'classes.txt').write_text('cat\nCat'), "'Cat' repeats 'cat'"),
        (lambda root: (root / 'classes.txt').write_text('cat'), 'has the value 1, which is no'),
        (lambda root: (root / 'images' / 'b.jpg').write_text('text'), 'is not an image'),
        (write_large_labels, 'is 9x9, its image 2x2'),
        (write_colour_labels, 'is a colour picture'),
        (cut_labels, r'b\.png: the image does not open'),
    ],
)
def test_broken_folders(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    root = write_folder(tmp_path, 'cat\ncup\n', [[0, 1], [0, 255]])
    spoil(root)
    with pytest.raises(DatasetError, match=message):
        truth_of(root)


def write_png(path: Path, values: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


VOC_SPLIT = 'ImageSets/Segmentation/val.txt'
CONTEXT_SPLIT = 'ImageSets/SegmentationContext/val.txt'
COCO_LABELS = 'annotations/val2017/1_labelTrainIds.png'
CITY = 'val/ulm/ulm_000000'


@pytest.mark.parametrize(
    ('name', 'files', 'values', 'truth', 'last'),
    [
        (
            'voc',
            ('JPEGImages/1.jpg', 'SegmentationClass/1.png', VOC_SPLIT),
            [0, 1, 20, 255],
            [0, 1, 20, IGNORED],
            'tv monitor',
        ),
        (
            'context60',
            ('JPEGImages/1.jpg', 'SegmentationClassContext/1.png', CONTEXT_SPLIT),
            [0, 1, 59, 255],
            [0, 1, 59, IGNORED],
            'wood',
        ),
        (
            'context59',
            ('JPEGImages/1.jpg', 'SegmentationClassContext/1.png', CONTEXT_SPLIT),
            [0, 1, 59, 255],
            [IGNORED, 1, 59, IGNORED],
            'wood',
        ),
        (
            'coco-stuff',
            ('images/val2017/1.jpg', COCO_LABELS, ''),
            [0, 79, 170, 255],
            [1, 80, 171, IGNORED],
            'wood',
        ),
        (
            'coco-object',
            ('images/val2017/1.jpg', COCO_LABELS, ''),
            [0, 79, 80, 255],
            [1, 80, 0, IGNORED],
            'toothbrush',
        ),
        (
            'ade20k',
            ('images/validation/1.jpg', 'annotations/validation/1.png', ''),
            [0, 1, 2, 150],
            [IGNORED, 1, 2, 150],
            'flag',
        ),
        (
            'cityscapes',
            (f'leftImg8bit/{CITY}_leftImg8bit.png', f'gtFine/{CITY}_gtFine_labelIds.png', ''),
            [7, 0, 26, 33],
            [1, IGNORED, 14, 19],
            'bicycle',
        ),
    ],
)
def test_published_layouts(
    tmp_path: Path,
    name: str,
    files: tuple[str, str, str],
    values: list[int],
    truth: list[int],
    last: str,
) -> None:
    image, labels, split = files
    write_png(tmp_path / image, [[0] * 4])
    write_png(tmp_path / labels, [values])
    if split:
        (tmp_path / split).parent.mkdir(parents=True)
        (tmp_path / split).write_text('1\n')
    dataset = published_dataset(tmp_path, LAYOUTS[name])
    assert read_sample(dataset, dataset.samples[0])[1].tolist() == [truth]
    assert dataset.classes[-1] == last
    assert dataset.background == (0 in truth)
    (tmp_path / labels).unlink()
    with pytest.raises(DatasetError, match='lacks 1 of 1 labels files, the first is'):
        published_dataset(tmp_path, LAYOUTS[name])
    (tmp_path / (split or image)).unlink()
    with pytest.raises(DatasetError, match=r'^expected .*(val\.txt|\{id\})'):
        published_dataset(tmp_path, LAYOUTS[name])


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_a_value_per_class(layout: Layout) -> None:
    names = shipped_path(f'config/classes/{layout.classes}').read_text().splitlines()
    assert len(names) == len(layout.values)
    assert clean_names(names) == (names, [])


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_a_synonym_is_no_other_class(layout: Layout) -> None:
    names = shipped_path(f'config/classes/{layout.classes}').read_text().splitlines()
    synonyms = synonyms_of(names)
    assert set(synonyms) <= set(names)
    for name, others in synonyms.items():
        assert not {name, *names} & set(others)
        assert clean_names(others) == (list(others), [])


def test_a_class_without_subclasses_takes_those_of_a_synonym() -> None:
    resolver = Resolver(with_source(SubclassesConfig(), 'packs'))
    sofas = resolver.resolve('sofa').names
    found = with_synonyms(resolver, 'davenport', ['settle', 'sofa'])
    assert found == Subclasses(('settle', 'sofa', *sofas), 'pack')
    own = with_synonyms(resolver, 'cat', ['sofa'])
    assert own == Subclasses(('sofa', *resolver.resolve('cat').names), 'pack')
    assert with_synonyms(resolver, 'xyz', ['zyx']) == Subclasses(('zyx',), 'name')
    assert with_synonyms(resolver, 'cat', []) == resolver.resolve('cat')


def test_unknown_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / 'd', 'cat\ncup\n', [[0]])
    with pytest.raises(DatasetError, match="d has no class 'dog'; it has cat, cup"):
        only_classes(folder_dataset(root), ['cat', 'dog'])


@pytest.mark.parametrize(
    ('classes', 'values'),
    [('0 cat\n1 cup\n', (0, 1)), ('5: cat\n7: cup\n', (5, 7)), ('{cup: 9, cat: 3}', (3, 9))],
)
def test_ids_in_the_class_file_are_label_values(
    tmp_path: Path, classes: str, values: tuple[int, int]
) -> None:
    dataset = folder_dataset(write_folder(tmp_path, classes, [[*values], [values[0], 255]]))
    assert dataset.classes == ('cat', 'cup')
    _, truth = read_sample(dataset, dataset.samples[0])
    np.testing.assert_array_equal(truth, [[1, 2], [1, IGNORED]])


def test_hidden_files_are_skipped_and_capitals_are_read(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 'cat\ncup\n', [[0, 1], [0, 255]])
    for folder in ('images', 'labels'):
        for path in sorted((root / folder).iterdir()):
            path.with_name(f'._{path.name}').write_bytes(b'\0\5\x16\7 of macOS')
            path.rename(path.with_suffix(path.suffix.upper()))
    dataset = folder_dataset(root)
    assert dataset.samples
    for sample in dataset.samples:
        read_sample(dataset, sample)


@pytest.mark.parametrize(
    ('name', 'image', 'labels'),
    [
        ('ade20k', 'images/validation/1.JPG', 'annotations/validation/1.PNG'),
        ('cityscapes', f'leftImg8bit/{CITY}_leftImg8bit.PNG', f'gtFine/{CITY}_gtFine_labelIds.PNG'),
    ],
)
def test_published_layouts_with_hidden_files_and_capitals(
    tmp_path: Path, name: str, image: str, labels: str
) -> None:
    for path in (tmp_path / image, tmp_path / labels):
        write_png(path, [[1]])
        path.with_name(f'._{path.name.lower()}').write_bytes(b'\0\5\x16\7 of macOS')
    (sample,) = published_dataset(tmp_path, LAYOUTS[name]).samples
    assert (sample.image, sample.labels) == (tmp_path / image, tmp_path / labels)
