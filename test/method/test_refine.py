"""From logits on the patch grid to labels on the image."""

import resource
import sys

import numpy as np
import pytest
import torch
from skimage import data

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.maps import resize_maps
from llmseg_ros.method.refine import (
    available_refiner,
    best_labels,
    best_labels_on_host,
    in_torch,
    refine,
    shrink,
    strongest_labels,
)

REFINERS = ('crf', 'crf_binary', 'pamr', 'none')
SCORES = torch.tensor([0.4, 0.3])
TORCH = RefineConfig('crf', backend='torch')
RGB = np.zeros((48, 64, 3), np.uint8)
RGB[:, 32:] = 200


def name_of(config: RefineConfig) -> str:
    return f'{config.name} {config.backend}' if config.name == 'crf' else config.name


def half_logits(strength: float) -> torch.Tensor:
    """Background left, the second of two candidates right; the first did not pass."""
    logits = torch.zeros(3, 3, 4)
    logits[1] = ABSENT
    logits[2, :, :2], logits[2, :, 2:] = -strength, strength
    return logits


@pytest.mark.parametrize('config', [*map(RefineConfig, REFINERS), TORCH], ids=name_of)
def test_labels_follow_the_logits(config):
    labels, confidence = refine(half_logits(5.0), SCORES, RGB, config)
    assert labels.shape == confidence.shape == (48, 64)
    assert (labels[:, :24] == 0).all()
    assert (labels[:, 40:] == 2).all()
    assert confidence.min() > 0
    assert confidence.max() <= 1 + 1e-5


@pytest.mark.parametrize('config', [RefineConfig('crf'), TORCH, RefineConfig('pamr')], ids=name_of)
def test_refining_finds_the_edge_between_the_patches(config):
    shifted = np.zeros((48, 64, 3), np.uint8)
    shifted[:, 29:] = 200  # the middle of two patches is at column 32
    labels, _ = refine(half_logits(2.0), SCORES, shifted, config)
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


@pytest.mark.parametrize(
    ('wanted', 'instead'),
    [
        (RefineConfig('crf'), TORCH),
        (RefineConfig('crf', backend='pydensecrf'), TORCH),
        (RefineConfig('crf_binary'), RefineConfig('pamr')),
    ],
    ids=name_of,
)
def test_without_pydensecrf_another_refiner_does_its_work(wanted, instead, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'pydensecrf.densecrf', None)  # what a failing import leaves
    available = available_refiner(wanted)
    assert available == instead
    assert f'refine.name is {wanted.name} but' in caplog.text
    assert 'pip install pydensecrf2' in caplog.text
    labels, _ = refine(half_logits(5.0), SCORES, RGB, available)
    assert set(np.unique(labels)) == {0, 2}


@pytest.mark.parametrize('config', [TORCH, RefineConfig('pamr'), RefineConfig('none')], ids=name_of)
def test_what_needs_no_pydensecrf_stays_without_a_word(config, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'pydensecrf.densecrf', None)
    assert available_refiner(config) == config
    assert not caplog.text


@pytest.mark.parametrize(
    ('backend', 'device', 'expected'),
    [
        ('auto', 'cpu', False),
        ('auto', 'cuda', True),
        ('pydensecrf', 'cuda', False),
        ('torch', 'cpu', True),
    ],
)
def test_the_crf_runs_where_the_logits_are(backend, device, expected):
    assert in_torch(RefineConfig(backend=backend), torch.device(device)) == expected


def test_both_crfs_agree_on_a_photograph():
    rgb = np.ascontiguousarray(data.chelsea()[:240, 100:420])
    logits = torch.nn.functional.interpolate(
        4 * torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)), (15, 20)
    )[0]
    by_pydensecrf, confidence = refine(logits, SCORES, rgb, RefineConfig(backend='pydensecrf'))
    by_torch, own_confidence = refine(logits, SCORES, rgb, TORCH)
    assert len(np.unique(by_torch)) == 3
    assert (by_torch == by_pydensecrf).mean() > 0.95
    assert abs(confidence.mean() - own_confidence.mean()) < 0.05


@pytest.mark.parametrize('on_host', [True, False], ids=['on the CPU', 'as on a GPU'])
def test_absent_labels_need_not_be_left_out(on_host, monkeypatch):
    """On a GPU nobody waits to learn which labels these are; the result is the same."""
    expected = refine(half_logits(1.0), SCORES, RGB, TORCH)
    monkeypatch.setattr('llmseg_ros.method.refine.on_host', lambda device: on_host)
    labels, confidence = refine(half_logits(1.0), SCORES, RGB, TORCH)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_allclose(confidence, expected[1], atol=1e-5)


@pytest.mark.parametrize(
    'config', [RefineConfig('none'), RefineConfig('pamr'), RefineConfig('crf'), TORCH], ids=name_of
)
def test_a_thousand_labels_at_1280_x_720_take_bounded_memory(config):
    """All at once they would be 3.7 GB; the largest list there may be, without a gate."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(1001, 20, 36, generator=generator)
    rgb = np.zeros((720, 1280, 3), np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    labels, confidence = refine(logits, torch.ones(1000), rgb, config)
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
    for config in (*map(RefineConfig, ('crf', 'pamr', 'none')), TORCH):
        labels, confidence = refine(logits, SCORES, RGB, config)
        assert (labels == 2).all()
        np.testing.assert_allclose(confidence, 1, atol=1e-5)


@pytest.mark.parametrize('labels', [1, 2, 5])
@pytest.mark.parametrize('shape', [(37, 53), (12, 17), (5, 9)])
def test_labels_are_enlarged_on_the_host_as_in_torch(labels, shape):
    generator = torch.Generator().manual_seed(labels)
    maps_jhw = torch.rand(labels, 12, 17, generator=generator)
    numbers_j = 3 * torch.arange(labels) + 1
    pixel_by_pixel = maps_jhw.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as pydensecrf's lie
    found = best_labels_on_host(numbers_j.numpy(), pixel_by_pixel.numpy(), shape)
    expected = best_labels(numbers_j, resize_maps(maps_jhw, shape))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
    torch.testing.assert_close(pixel_by_pixel, maps_jhw, rtol=0, atol=0)  # untouched
