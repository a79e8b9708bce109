"""Names that compete for pixels, against the order of the published code written out in float64."""

import dataclasses
import resource

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize

from llmseg_ros.config import BackgroundConfig, FusionConfig, RefineConfig
from llmseg_ros.method import name_labels, name_logits
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.name_labels import label_names, label_refined_names
from llmseg_ros.method.name_logits import ClassGroup, compare_names, labels_at, patch_labels
from llmseg_ros.method.pamr import refine_pamr
from llmseg_ros.method.patches import whole_axis
from llmseg_ros.method.refine import refine_names

SCALE = 12.0
COUNTS = (1, 3, 3, 1, 2)  # names of each class
KINDS = ('probability', 'names', 'none')
FUSIONS = ('max', 'mean', 'chils')


def draw(words=2, grid=(4, 5), width=6, seed=0):
    """Return patches, the names of classes, words, and where all classes take part."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(n, width, generator=generator) for n in (*COUNTS, words)]
    *sets, words_bd = [normalize(rows, dim=-1) for rows in drawn]
    patches = normalize(torch.randn(*grid, width, generator=generator), dim=-1)
    return patches, sets, words_bd


def compete(patches, sets, words_bd, valid=(True,) * 5, fusion='max'):
    members = torch.arange(max(COUNTS)) < torch.tensor(COUNTS)[:, None]
    valid_k = torch.tensor(valid)
    descriptors = torch.nn.utils.rnn.pad_sequence(sets, batch_first=True)
    axes = tuple(whole_axis(side) for side in patches.shape[:2])
    pooled = normalize(patches.mean(dim=(0, 1)), dim=-1)
    return compare_names(
        patches,
        pooled,
        [ClassGroup(descriptors, members & valid_k[:, None])],
        valid_k,
        words_bd,
        axes,
        FusionConfig(fusion, logit_scale=SCALE),
    )


def published_order(patches, sets, words_bd, shape, config, valid, fusion):
    """Write out: logits of every name resized, softmax, best of a class, area, threshold."""
    patches, words = patches.double(), words_bd.double()
    sets = [rows.double() for rows, ok in zip(sets, valid, strict=True) if ok]
    kept = [index for index, ok in enumerate(valid) if ok]

    def resized(rows):
        maps = torch.einsum('nd,hwd->nhw', rows, patches) * SCALE
        return interpolate(maps[None], shape, mode='bilinear')[0]

    used = [rows.mean(dim=0, keepdim=True) for rows in sets] if fusion == 'mean' else sets
    owner = [-1] * len(words) + [i for i, rows in enumerate(used) for _ in rows]
    probability = resized(torch.cat([words, *used])).softmax(dim=0)
    if fusion == 'chils':
        own = resized(torch.cat([words, *(rows[:1] for rows in sets)])).softmax(dim=0)
        places = [n if i < 0 else len(words) + i for n, i in enumerate(owner)]
        probability = probability * own[places]
    labels = torch.zeros(len(COUNTS) + 1, *shape, dtype=torch.float64)
    for name, index in enumerate(owner):
        label = 0 if index < 0 else kept[index] + 1
        labels[label] = torch.maximum(labels[label], probability[name])
    areas = np.bincount(labels.argmax(dim=0).flatten(), minlength=len(labels))
    for label in range(1, len(labels)):
        if config.area_threshold and areas[label] <= config.area_threshold * areas[1:].sum():
            labels[label] = 0
    best = labels.argmax(dim=0)
    if config.name == 'probability':
        best[labels.amax(dim=0) < config.probability] = 0
    return best.numpy()


@pytest.mark.parametrize('fusion', FUSIONS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', [(37, 41), (16, 60)])
@pytest.mark.parametrize('area', [0.0, 0.2])
def test_labels_are_those_of_the_published_order(monkeypatch, fusion, kind, shape, area):
    monkeypatch.setattr(name_logits, 'VALUES_OF_A_ROW', 50)  # so that there are many tiles
    least = 0.05 if fusion == 'chils' else 0.3
    config = BackgroundConfig(kind, probability=least, area_threshold=area)
    valid = (True, True, False, True, True)
    drawn = draw(words=0 if kind == 'none' else 2)
    expected = published_order(*drawn, shape, config, valid, fusion)
    names = compete(*drawn, valid, fusion)
    found, confidence = label_names(names, shape, config)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) >= 2 + (not area)
    assert 0 < confidence.min() <= confidence.max() <= 1 + 1e-5
    if not area:
        tiles = labels_at(names, shape, config)
        torch.testing.assert_close(tiles.softmax(dim=0).amax(dim=0), confidence)
        assert (tiles[3] == ABSENT).all()


def test_on_the_grid_more_would_be_background():
    """Which is why the logits are resized first."""
    drawn = draw(words=0, grid=(6, 8), seed=3)
    config = BackgroundConfig('probability', probability=0.35)
    names = compete(*drawn)
    ours = label_names(names, (96, 128), config)[0]
    on_grid = interpolate(patch_labels(names, config)[None], (96, 128), mode='bilinear')[0]
    assert (on_grid.argmax(dim=0) != ours).float().mean() > 0.02


def test_a_word_with_the_text_of_a_class_wins_over_it():
    _, sets, _ = draw()
    patches = sets[1][None, :2]  # what the second class's first two names mean
    names = compete(patches, sets, sets[1][:1])
    labels_hw, _ = label_names(names, (1, 2), BackgroundConfig('names'))
    assert labels_hw.tolist() == [[0, 2]]


@pytest.mark.parametrize('fusion', FUSIONS)
def test_nothing_valid_is_background(fusion):
    names = compete(*draw(words=0), valid=(False,) * 5, fusion=fusion)
    for kind in KINDS:
        labels, confidence = label_names(names, (20, 20), BackgroundConfig(kind))
        assert not labels.any()
        assert confidence.isfinite().all()


@pytest.mark.parametrize('fusion', FUSIONS)
@pytest.mark.parametrize('area', [0.0, 0.2])
def test_pamr_on_similarities_is_pamr_before_the_softmax(monkeypatch, fusion, area):
    """The labels of refined logits, all held at once, are those of a few classes at a time."""
    monkeypatch.setattr(name_labels, 'MAP_VALUES_AT_ONCE', 40 * 44)
    shape = (40, 44)
    names = compete(*draw(), (True, True, False, True, True), fusion)
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1)) * 0.1
    image[:, 20:] += 0.8
    config = BackgroundConfig('probability', probability=0.02, area_threshold=area)

    def refined(maps_hmw):
        maps = interpolate(maps_hmw.transpose(0, 1)[None], shape, mode='bilinear')[0]
        return refine_pamr(maps, image).unsqueeze(2).transpose(1, 2).flatten(2)

    rows = [None if m is None else refined(m) for m in (names.names_hmw, names.own_hlw)]
    flat = [None if m is None else m.reshape(len(m), *shape).transpose(0, 1) for m in rows]
    whole = (whole_axis(shape[0]), whole_axis(shape[1]))
    exact = dataclasses.replace(names, names_hmw=flat[0], own_hlw=flat[1], axes=whole)
    expected, certain = label_names(exact, shape, config)
    found, confidence = label_refined_names(names, image, config)
    np.testing.assert_array_equal(found, expected)
    assert len(found.unique()) >= 3
    if not area:
        torch.testing.assert_close(confidence, certain, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('refiner', ['none', 'crf', 'pamr'])
def test_1881_names_at_1280_x_720_take_little_memory(refiner):
    """All at once they would be 6.9 GB."""
    generator = torch.Generator().manual_seed(4)
    names = name_logits.NameLogits(
        torch.randn(3, 171 * 11, 5, generator=generator),
        0,
        ((171, 11),),
        torch.ones(171, dtype=torch.bool),
        (whole_axis(3), whole_axis(5)),
    )
    size = (72, 128) if refiner == 'none' else (720, 1280)
    rgb = np.zeros((*size, 3), np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = RefineConfig(refiner, short_side=40)
    labels, _ = refine_names(names, torch.ones(171), rgb, BackgroundConfig('none'), config)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert labels.shape == size
    assert grown < 400_000  # KiB
