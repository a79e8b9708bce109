"""Fusion against values worked out by hand and a written-out loop."""

import math

import pytest
import torch

from llmseg_ros.config import FusionConfig
from llmseg_ros.fusion import class_maps, subclass_weights

# Two classes in three dimensions; the second has one subclass, its second row is padding.
DESCRIPTORS = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
MEMBERS = torch.tensor([[True, True], [True, False]])
POOLED = torch.tensor([0.6, 0.8, 0.0])
PATCHES = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]])  # (1, 2, 3)


def softmax(*logits):
    exponents = [math.exp(logit) for logit in logits]
    return [exponent / sum(exponents) for exponent in exponents]


def multiplied(left, right):
    return [float(a) * float(b) for a, b in zip(left, right, strict=True)]


def dot(left, right):
    return sum(multiplied(left, right))


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (FusionConfig('paper'), softmax(0.6, 0.8)),
        (FusionConfig('reference'), softmax(0.6, 0.8)),
        (FusionConfig('reference', temperature=0.1), softmax(6.0, 8.0)),
        (FusionConfig('mean'), [0.5, 0.5]),
    ],
)
def test_weights(config, expected):
    weights = subclass_weights(DESCRIPTORS, MEMBERS, POOLED, config)
    torch.testing.assert_close(weights, torch.tensor([expected, [1.0, 0.0]]))


def test_paper_and_reference_differ_where_a_channel_stands_out():
    descriptors = torch.tensor([[[0.6, 0.8], [1.0, 0.0]]])
    members = torch.ones(1, 2, dtype=torch.bool)
    pooled = torch.tensor([0.8, -0.6])
    paper = subclass_weights(descriptors, members, pooled, FusionConfig('paper'))
    reference = subclass_weights(descriptors, members, pooled, FusionConfig('reference'))
    torch.testing.assert_close(paper[0], torch.tensor(softmax(0.48, 0.8)))
    torch.testing.assert_close(reference[0], torch.tensor(softmax(0.0, 0.8)))


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('mean', [[0.5, 0.0], [0.3, 0.8]]), ('max', [[1.0, 0.0], [0.6, 0.8]])],
)
def test_maps(name, expected):
    maps = class_maps(PATCHES, POOLED, DESCRIPTORS, MEMBERS, FusionConfig(name))
    torch.testing.assert_close(maps, torch.tensor([expected]))


@pytest.mark.parametrize('name', ['paper', 'reference', 'mean', 'max'])
def test_maps_equal_the_formula_in_loops(name):
    generator = torch.Generator().manual_seed(0)
    counts, width = (4, 1, 3), 7
    sets = [torch.randn(n, width, generator=generator, dtype=torch.float64) for n in counts]
    sets = [rows / rows.norm(dim=1, keepdim=True) for rows in sets]
    patches = torch.randn(2, 3, width, generator=generator, dtype=torch.float64)
    pooled = torch.randn(width, generator=generator, dtype=torch.float64)
    config = FusionConfig(name, temperature=0.5)
    padded = torch.nn.utils.rnn.pad_sequence(sets, batch_first=True)
    members = torch.arange(4) < torch.tensor(counts)[:, None]
    maps = class_maps(patches, pooled, padded, members, config)
    for c, rows in enumerate(sets):
        relevance = {
            'paper': [max(multiplied(pooled, row)) for row in rows],
            'reference': [dot(pooled, row) for row in rows],
        }.get(name, [0.0] * len(rows))
        weights = softmax(*(value / 0.5 for value in relevance))
        for y in range(2):
            for x in range(3):
                products = [dot(patches[y, x], row) for row in rows]
                weighted = dot(weights, products)
                expected = max(products) if name == 'max' else weighted
                assert float(maps[y, x, c]) == pytest.approx(expected, abs=1e-12)
