"""`llmseg evaluate --names published`, with the embedded encoder on a photograph."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from ..helpers.commands import evaluate

CONFIG = """
imagenet: {model: lite0, short_sides: [64], dilated: false}
refine: {name: none}
subclasses: {store: 'off', llm: 'off'}
"""


@pytest.fixture
def voc(tmp_path):
    """A photograph of a cat in the layout of PASCAL VOC, a cat in the middle."""
    root = tmp_path / 'voc'
    for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    rgb = data.chelsea()[:200, 100:350]
    Image.fromarray(rgb).save(root / 'JPEGImages/a.jpg')
    labels = np.zeros(rgb.shape[:2], np.uint8)
    labels[30:180, 40:200] = 8
    Image.fromarray(labels).save(root / 'SegmentationClass/a.png')
    (root / 'ImageSets/Segmentation/val.txt').write_text('a\n')
    return root


def write_config(tmp_path, more=''):
    path = tmp_path / 'config.yaml'
    path.write_text(CONFIG + more)
    return path


def test_classes_have_the_names_of_the_paper_and_no_packs(voc, tmp_path, capsys):
    config = write_config(tmp_path, 'evaluation: {names: [clearclip, sclip]}')
    arguments = ['--root', voc, '--dataset', 'voc', '--config', config]
    reports = {}
    for names in ('usual', 'published'):
        out = tmp_path / f'{names}.json'
        assert evaluate(*arguments, '--names', names, '--json', out) == 0
        reports[names] = json.loads(out.read_text())
        hint = 'has published settings: --names published' in capsys.readouterr().err
        assert hint == (names == 'usual')
    assert reports['usual']['classes'][4] == 'boat'
    assert reports['published']['classes'][4] == 'ship'
    assert reports['published']['config']['subclasses']['packs'] is False
    assert reports['usual']['config']['subclasses']['packs'] is True


def test_twenty_classes_without_background(voc, tmp_path):
    out = tmp_path / 'out.json'
    config = write_config(tmp_path)
    assert evaluate('--root', voc, '--dataset', 'voc20', '--config', config, '--json', out) == 0
    report = json.loads(out.read_text())
    assert 'background' not in report['class_iou']


@pytest.mark.parametrize(
    ('section', 'more', 'reason'),
    [
        ('', (), 'choose one of config/published'),
        ('evaluation: 3', (), 'choose one of config/published'),
        ('evaluation: {names: [sclip]}', ('--subclasses', 'packs'), 'leave out --subclasses'),
        ('evaluation: {names: [nobody]}', (), 'published for other datasets than voc'),
    ],
)
def test_what_does_not_go_is_said_in_a_sentence(voc, tmp_path, capsys, section, more, reason):
    config = write_config(tmp_path, section)
    arguments = ['--root', voc, '--dataset', 'voc', '--config', config, '--names', 'published']
    assert evaluate(*arguments, *more) != 0
    message = ' '.join(capsys.readouterr().err.replace('│', ' ').split())
    assert reason in message
