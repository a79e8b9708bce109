"""From logits on the patch grid to labels on the image."""

import sys

import numpy as np
import pytest
import torch

from llmseg_ros.background import ABSENT
from llmseg_ros.config import RefineConfig
from llmseg_ros.refine import available_refiner, refine, shrink

REFINERS = ('crf', 'crf_binary', 'pamr', 'none')
SCORES = torch.tensor([0.4, 0.3])
RGB = np.zeros((48, 64, 3), np.uint8)
RGB[:, 32:] = 200


def half_logits(strength: float) -> torch.Tensor:
    """Background left, the second of two candidates right; the first did not pass."""
    logits = torch.zeros(3, 3, 4)
    logits[1] = ABSENT
    logits[2, :, :2], logits[2, :, 2:] = -strength, strength
    return logits


@pytest.mark.parametrize('name', REFINERS)
def test_labels_follow_the_logits(name):
    labels, confidence = refine(half_logits(5.0), SCORES, RGB, RefineConfig(name=name))
    assert labels.shape == confidence.shape == (48, 64)
    assert (labels[:, :24] == 0).all()
    assert (labels[:, 40:] == 2).all()
    assert confidence.min() > 0
    assert confidence.max() <= 1 + 1e-5


@pytest.mark.parametrize('name', ['crf', 'pamr'])
def test_refining_finds_the_edge_between_the_patches(name):
    shifted = np.zeros((48, 64, 3), np.uint8)
    shifted[:, 29:] = 200  # the middle of two patches is at column 32
    labels, _ = refine(half_logits(2.0), SCORES, shifted, RefineConfig(name=name))
    assert (labels[:, 29:] == 2).mean() > 0.99
    assert (labels[:, :29] == 0).mean() > 0.99


@pytest.mark.parametrize('name', REFINERS)
def test_no_candidate_is_background(name):
    logits = torch.zeros(2, 3, 4)
    logits[1] = ABSENT
    labels, confidence = refine(logits, SCORES[:1], RGB, RefineConfig(name=name))
    assert not labels.any()
    np.testing.assert_allclose(confidence, 1, atol=1e-5)


@pytest.mark.parametrize(
    ('shape', 'short_side', 'expected'),
    [
        ((48, 64), 24, (24, 32)),
        ((48, 64), 48, (48, 64)),
        ((4, 6), 240, (4, 6)),
        ((1000, 3), 2, (667, 2)),
    ],
)
def test_shrink_never_enlarges(shape, short_side, expected):
    assert shrink(np.zeros((*shape, 3), np.uint8), short_side).shape == (*expected, 3)


def test_without_pydensecrf_the_masks_are_refined_by_pamr(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'pydensecrf.densecrf', None)  # what a failing import leaves
    assert available_refiner(RefineConfig(name='crf')).name == 'pamr'
    assert 'pip install pydensecrf2' in caplog.text
    caplog.clear()
    assert available_refiner(RefineConfig(name='none')).name == 'none'
    assert not caplog.text
