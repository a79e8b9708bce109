"""`llmseg evaluate --single` against lists of one class, and its sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmseg_ros.evaluation.single import single_iou

from ..helpers.commands import evaluate


def test_one_class_at_a_time_equals_lists_of_one(
    photographs: Path, fast_config: Path, tmp_path: Path
) -> None:
    arguments = ['--root', photographs, '--config', fast_config, '--refine', 'none']
    assert evaluate(*arguments, '--single', '--json', tmp_path / 'single.json') == 0
    single = json.loads((tmp_path / 'single.json').read_text())
    assert (single['images'], single['classes']) == (3, ['cat', 'cup', 'rocket'])
    ious = []
    for name in single['classes']:
        one = tmp_path / f'{name}.json'
        assert evaluate(*arguments, '--classes', name, '--json', one) == 0
        ious.append(json.loads(one.read_text())['class_iou'][name])
        assert single['class_single_iou'][name] == ious[-1]
    assert single['single_miou'] == pytest.approx(np.mean(ious), abs=1e-6)
    assert max(ious) > 0


def test_iou_by_hand() -> None:
    # 3 right of 4 predicted and 5 true; nothing found; a class that is nowhere
    iou = single_iou(np.array([[3, 4, 5], [0, 2, 0], [0, 0, 0]]))
    assert iou[:2].tolist() == [0.5, 0.0]
    assert np.isnan(iou[2])
