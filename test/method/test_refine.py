"""From logits on the patch grid to labels on the image."""

import resource
import sys

import numpy as np
import pytest
import torch

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.refine import available_refiner, refine, shrink, strongest_labels

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
    for name in ('crf', 'crf_binary'):
        assert available_refiner(RefineConfig(name=name)).name == 'pamr'
        assert f'refine.name is {name} but' in caplog.text
        assert 'pip install pydensecrf2' in caplog.text
        caplog.clear()
    assert available_refiner(RefineConfig(name='none')).name == 'none'
    assert not caplog.text


@pytest.mark.parametrize('name', ['none', 'pamr', 'crf'])
def test_a_thousand_labels_at_1280_x_720_take_bounded_memory(name):
    """All at once they would be 3.7 GB; the largest list there may be, without a gate."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(1001, 20, 36, generator=generator)
    rgb = np.zeros((720, 1280, 3), np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    labels, confidence = refine(logits, torch.ones(1000), rgb, RefineConfig(name=name))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert labels.shape == confidence.shape == (720, 1280)
    assert labels.max() <= 1000
    assert grown < 1_000_000  # KiB


def test_of_too_many_labels_those_most_probable_somewhere_are_kept():
    logits = torch.zeros(6, 1, 3)
    logits[1, 0, 0], logits[2, 0, 1], logits[4, 0, 2] = 5.0, 3.0, 4.0
    logits[5] = ABSENT
    assert strongest_labels(logits, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert strongest_labels(logits, 3).tolist() == [1, 2, 4]
    for name in ('crf', 'pamr', 'none'):
        config = RefineConfig(name=name, max_labels=3)
        labels, _ = refine(logits, torch.zeros(5), RGB, config)
        assert set(np.unique(labels)) <= {1, 2, 4}
    assert labels[24, [10, 32, 53]].tolist() == [1, 2, 4]


def test_without_background_and_with_one_class_it_is_everywhere():
    logits = torch.full((3, 3, 4), ABSENT)
    logits[2] = -0.5
    for name in ('crf', 'pamr', 'none'):
        labels, confidence = refine(logits, SCORES, RGB, RefineConfig(name=name))
        assert (labels == 2).all()
        np.testing.assert_allclose(confidence, 1, atol=1e-5)
