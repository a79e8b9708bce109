"""Background by maps, worked out by hand and by written-out loops."""

import math

import pytest
import torch

from llmseg_ros.config import BackgroundConfig
from llmseg_ros.method.background import ABSENT, label_logits

THRESHOLD = BackgroundConfig(threshold=0.25, scale=10.0)
KINDS = ('threshold', 'minmax')


def test_maps_are_shares_of_the_strongest_candidate():
    maps = torch.tensor([[[2.0, 0.4]], [[-1.0, 1.0]], [[8.0, 8.0]]])
    logits = label_logits(maps, torch.tensor([True, True, False]), THRESHOLD)
    expected = [[[2.5, 2.5]], [[10.0, 2.0]], [[0.0, 5.0]], [[ABSENT, ABSENT]]]
    torch.testing.assert_close(logits, torch.tensor(expected))
    assert logits.argmax(dim=0).tolist() == [[1, 2]]


def test_no_valid_candidate_and_no_positive_value_are_background():
    maps = torch.tensor([[[2.0]], [[-1.0]]])
    for valid in ([False, False], [False, True]):
        logits = label_logits(maps, torch.tensor(valid), THRESHOLD)
        assert logits.isfinite().all()
        assert logits.argmax(dim=0).tolist() == [[0]]


@pytest.mark.parametrize('name', KINDS)
def test_candidates_that_did_not_pass_have_no_say(name):
    """Their maps are -inf, or not a number."""
    for value in (-math.inf, math.nan):
        logits = label_logits(
            torch.full((2, 1, 2), value), torch.zeros(2, dtype=torch.bool), BackgroundConfig(name)
        )
        assert logits.isfinite().all()
        assert (logits[1:] == ABSENT).all()
        assert logits.argmax(dim=0).tolist() == [[0, 0]]


def test_minmax():
    maps = torch.tensor([[[-1.0, 1.0, 3.0]], [[0.2, 0.2, 0.2]]])
    logits = label_logits(maps, torch.tensor([True, True]), BackgroundConfig('minmax'))
    assert logits[0].tolist() == [[0.0, 0.0, 0.0]]
    torch.testing.assert_close(logits[1].sigmoid(), torch.tensor([[0.0, 0.5, 1.0]]))
    # the same everywhere, and surely not the class
    torch.testing.assert_close(logits[2].sigmoid(), torch.tensor([[0.0, 0.0, 0.0]]))


def written_out(name, values, config):
    """Return the label of every pixel (c rows of pixels), from the definitions."""
    labels = []
    strongest = max(max(row) for row in values)
    for pixel in zip(*values, strict=True):
        best = max(range(len(pixel)), key=lambda c: pixel[c])
        if name == 'threshold':
            is_class = pixel[best] / strongest > config.threshold
        else:
            scaled = [
                (value - min(row)) / (max(row) - min(row))
                for value, row in zip(pixel, values, strict=True)
            ]
            best = max(range(len(scaled)), key=lambda c: scaled[c])
            is_class = scaled[best] > 0.5
        labels.append(best + 1 if is_class else 0)
    return labels


@pytest.mark.parametrize('name', KINDS)
def test_labels_equal_the_definitions_pixel_by_pixel(name):
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(4, 4, 5, generator=generator, dtype=torch.float64)
    config = BackgroundConfig(name)
    logits = label_logits(maps, torch.ones(4, dtype=torch.bool), config)
    expected = written_out(name, maps.flatten(1).tolist(), config)
    assert logits.argmax(dim=0).flatten().tolist() == expected
    assert len(set(expected)) >= 3
