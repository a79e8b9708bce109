"""Masks against boxes: hand-computed counts, broken folders, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmseg_ros.evaluation.boxes import (
    Box,
    boxed_dataset,
    count_boxes,
    mask_in_box,
    pointing_accuracy,
    surest_pixel,
)
from llmseg_ros.evaluation.datasets import DatasetError
from llmseg_ros.segmentation import Segmentation

from ..helpers.commands import evaluate

LABELS = np.array(
    [
        [0, 1, 1, 1],
        [0, 1, 1, 2],
        [0, 0, 0, 2],
    ],
    np.uint16,
)


def segmentation(confidence: list[list[float]]) -> Segmentation:
    return Segmentation(LABELS, np.array(confidence, np.float32), (), 1, {})


def write_boxes(root: Path, boxes: str, size: tuple[int, int] = (4, 3)) -> Path:
    for folder in ('images', 'boxes'):
        (root / folder).mkdir(parents=True)
    Image.new('RGB', size, 'red').save(root / 'images' / 'a.png')
    (root / 'boxes' / 'a.txt').write_text(boxes)
    return root


def test_counts_by_hand() -> None:
    result = segmentation([[0, 0.9, 0.2, 0.2], [0, 0.2, 0.2, 0.3], [0, 0, 0, 0.8]])
    boxes = [Box('cat', 2, 0, 3, 0), Box('cat', -5, 1, 1, 9), Box('dog', 3, 2, 3, 2)]
    counts = count_boxes(result, boxes, ['cat', 'dog', 'cup'])
    # cat: 3 of its 5 pixels in a box, the surest (0, 1) in none; dog: 1 of 2, the surest one
    assert counts.tolist() == [[1, 0, 5, 3], [1, 1, 2, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(pointing_accuracy(counts), [0, 1, np.nan])
    np.testing.assert_allclose(mask_in_box(counts), [0.6, 0.5, np.nan])


def test_a_mask_without_a_box_is_outside() -> None:
    counts = count_boxes(segmentation(np.ones((3, 4)).tolist()), [], ['cat', 'dog'])
    assert counts.tolist() == [[0, 0, 5, 0], [0, 0, 2, 0]]
    assert mask_in_box(counts).tolist() == [0, 0]


def test_surest_pixel_is_the_deepest_of_equals() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    assert surest_pixel(mask, np.ones((9, 9), np.float32)) == (4, 4)
    confidence = np.full((9, 9), 0.5, np.float32)
    confidence[2, 3] = 0.6
    confidence[0, 0] = 1.0  # not of the mask
    assert surest_pixel(mask, confidence) == (2, 3)
    assert surest_pixel(np.ones((1, 1), bool), np.zeros((1, 1), np.float32)) == (0, 0)


def test_names_are_compared_without_spaces(tmp_path: Path) -> None:
    root = write_boxes(tmp_path, 'pottedplant 0 0 1 1\nTV-monitor 0 0 2 2\nlamp 0 0 1 1\n')
    data = boxed_dataset(root, ['TV monitor', 'potted plant'])
    assert [box.name for box in data.images[0].boxes] == ['potted plant', 'TV monitor']
    assert (data.classes, data.left_out) == (('TV monitor', 'potted plant'), ('lamp',))
    assert boxed_dataset(root).classes == ('TV-monitor', 'lamp', 'pottedplant')


def test_a_name_may_have_spaces(tmp_path: Path) -> None:
    data = boxed_dataset(write_boxes(tmp_path, 'tea cup 0 0 3 2\n'))
    assert data.images[0].boxes == (Box('tea cup', 0, 0, 3, 2),)


@pytest.mark.parametrize(
    'line',
    ['cat', 'cat 1 2 3', 'cat 1 2 3 x', '1 2 3 4', 'cat 3 0 2 1', 'cat 0 3 1 2', 'a 0 0 1.5 1'],
)
def test_a_line_that_is_no_box(tmp_path: Path, line: str) -> None:
    root = write_boxes(tmp_path, f'cat 0 0 1 1\n{line}\n')
    with pytest.raises(DatasetError, match=f"a.txt: '{line}' is no `name left top right bottom`"):
        boxed_dataset(root)


def test_a_class_that_no_box_has(tmp_path: Path) -> None:
    root = write_boxes(tmp_path, 'cat 0 0 1 1\n')
    with pytest.raises(DatasetError, match='has one of the classes; there are cat'):
        boxed_dataset(root, ['dog'])


def test_an_image_without_a_file_of_boxes(tmp_path: Path) -> None:
    root = write_boxes(tmp_path, 'cat 0 0 1 1\n')
    Image.new('RGB', (2, 2)).save(root / 'images' / 'b.png')
    with pytest.raises(DatasetError, match=r'b\.txt with a line `name'):
        boxed_dataset(root)
    (root / 'boxes' / 'b.txt').touch()
    assert boxed_dataset(root).images[1].boxes == ()


def test_the_command_line(
    photographs: Path, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'images').symlink_to(photographs / 'images')
    (tmp_path / 'boxes').mkdir()
    for name in ('cat', 'cup', 'rocket'):
        (tmp_path / 'boxes' / f'{name}.txt').write_text(f'{name} 0 0 9999 9999\n')
    arguments = ['--root', tmp_path, '--boxes', '--config', fast_config, '--classes', 'cat']
    assert evaluate(*arguments, '--report', tmp_path / 'report') == 0
    shown = capsys.readouterr()
    assert 'boxes left out, of no class: cup, rocket' in shown.err
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert (report['images'], report['class_images']) == (3, {'cat': 1})
    # the box is the whole image: a class found where it is shown is pointed at
    assert report['class_pointing_accuracy'] == {'cat': 1.0}
    assert f'{100 * report["mask_in_box"]:.2f}' in shown.out
    page = (tmp_path / 'report' / 'report.html').read_text()
    assert f'{100 * report["mask_in_box"]:.1f} %' in page
    assert page.count('overlay of ') == 3
    assert 'boxes: cat' in page
    assert 'boxes: none' in page


@pytest.mark.parametrize('option', ['--ablate=fusion', '--resume', '--dataset=voc'])
def test_options_that_boxes_do_not_take(tmp_path: Path, option: str) -> None:
    assert evaluate('--root', tmp_path, '--boxes', option, '--report', tmp_path) == 2
