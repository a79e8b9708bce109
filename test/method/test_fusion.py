"""Fusion against values worked out by hand and a written-out loop."""

import math

import pytest
import torch

from llmseg_ros.config import BackgroundConfig, FusionConfig
from llmseg_ros.method.fusion import class_maps, subclass_weights
from llmseg_ros.method.name_logits import ClassGroup, compare_names, patch_labels
from llmseg_ros.method.patches import whole_axis

# Two classes in three dimensions; the second has one subclass, its second row is padding.
DESCRIPTORS = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
MEMBERS = torch.tensor([[True, True], [True, False]])
POOLED = torch.tensor([0.6, 0.8, 0.0])
PATCHES = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]])  # (1, 2, 3)
FUSIONS = ('paper', 'reference', 'mean', 'max', 'chils')
LOG2 = math.log(2)


def class_probabilities(patches, pooled, descriptors, members, config):
    """Return the (h, w, c) probabilities of classes whose names compete, on the patches."""
    names = compare_names(
        patches,
        pooled,
        [ClassGroup(descriptors, members)],
        members.any(dim=1),
        descriptors[0, :0],
        tuple(map(whole_axis, patches.shape[:2])),
        config,
    )
    return patch_labels(names, BackgroundConfig('none'))[1:].exp().permute(1, 2, 0)


def softmax(*logits):
    exponents = [math.exp(logit) for logit in logits]
    return [exponent / sum(exponents) for exponent in exponents]


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
    ('config', 'expected'),
    [
        (FusionConfig('mean'), [[0.5, 0.0], [0.3, 0.8]]),
        (FusionConfig('max'), [[1.0, 0.0], [0.6, 0.8]]),
        # the first class without its own name, the second has no other
        (FusionConfig('mean', superclass=False), [[0.0, 0.0], [0.6, 0.8]]),
        (FusionConfig('max', superclass=False), [[0.0, 0.0], [0.6, 0.8]]),
        # First patch: exp of the logits of names 2, 1, of subclasses 2, 1, 1.
        # Second: of names 1, 2^0.8, of subclasses 1, 2^0.6, 2^0.8.
        (
            FusionConfig('chils', logit_scale=LOG2),
            [
                [2 / 3 * 2 / 4, 1 / 3 * 1 / 4],
                [
                    1 / (1 + 2**0.8) * 2**0.6 / (1 + 2**0.6 + 2**0.8),
                    2**0.8 / (1 + 2**0.8) * 2**0.8 / (1 + 2**0.6 + 2**0.8),
                ],
            ],
        ),
        (
            FusionConfig('chils', superclass=False, logit_scale=LOG2),
            [
                [2 / 3 * 1 / 2, 1 / 3 * 1 / 2],
                [
                    1 / (1 + 2**0.8) * 2**0.6 / (2**0.6 + 2**0.8),
                    2**0.8 / (1 + 2**0.8) * 2**0.8 / (2**0.6 + 2**0.8),
                ],
            ],
        ),
    ],
)
def test_maps(config, expected):
    maps = class_maps(PATCHES, POOLED, DESCRIPTORS, MEMBERS, config)
    torch.testing.assert_close(maps, torch.tensor([expected]))


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        # of all three names: exp of the logits 2, 1, 1 and 1, 2^0.6, 2^0.8
        (
            'max',
            [[2 / 4, 1 / 4], [2**0.6 / (1 + 2**0.6 + 2**0.8), 2**0.8 / (1 + 2**0.6 + 2**0.8)]],
        ),
        # of one fused name a class: 2^0.5, 1 and 2^0.3, 2^0.8
        ('mean', [softmax(0.5 * LOG2, 0.0), softmax(0.3 * LOG2, 0.8 * LOG2)]),
    ],
)
def test_probabilities(name, expected):
    config = FusionConfig(name, logit_scale=LOG2)
    probabilities = class_probabilities(PATCHES, POOLED, DESCRIPTORS, MEMBERS, config)
    torch.testing.assert_close(probabilities, torch.tensor([expected]))


@pytest.mark.parametrize('name', FUSIONS)
def test_a_class_without_members_changes_nothing_for_the_others(name):
    config = FusionConfig(name, logit_scale=2.0)
    more = torch.cat([DESCRIPTORS, DESCRIPTORS[:1]])
    members = torch.cat([MEMBERS, torch.zeros_like(MEMBERS[:1])])
    for function in (class_maps, class_probabilities):
        expected = function(PATCHES, POOLED, DESCRIPTORS, MEMBERS, config)
        maps = function(PATCHES, POOLED, more, members, config)
        torch.testing.assert_close(maps[..., :2], expected)
        assert (maps[..., 2] <= 0).all()


def dot(u, v):
    return sum(float(a) * float(b) for a, b in zip(u, v, strict=True))


def best_share(names, own, scale):
    """Return the largest softmax over all names that one of a class's own names gets."""
    total = sum(math.exp(scale * value) for value in names)
    return max(math.exp(scale * value) for value in own) / total


def written_out(name, patch, pooled, sets, superclass, scale, temperature):
    """Return map values and probabilities of all classes at one patch, from the formulas."""
    used = [rows if superclass or len(rows) == 1 else rows[1:] for rows in sets]
    cosines = []  # by class, of the names that stand for it
    for rows in used:
        products = [dot(patch, row) for row in rows]
        if name in ('max', 'chils'):
            cosines.append(products)
            continue
        relevance = {
            'paper': [max((pooled * row).tolist()) for row in rows],
            'reference': [dot(pooled, row) for row in rows],
        }.get(name, [0.0] * len(rows))
        weights = softmax(*(value / temperature for value in relevance))
        cosines.append([dot(weights, products)])
    every = [value for own in cosines for value in own]
    probabilities = [best_share(every, own, scale) for own in cosines]
    if name != 'chils':
        return [max(own) for own in cosines], probabilities
    supers = [dot(patch, rows[0]) for rows in sets]
    products = [
        best_share(supers, [supers[c]], scale) * probability
        for c, probability in enumerate(probabilities)
    ]
    return products, products


@pytest.mark.parametrize('superclass', [True, False])
@pytest.mark.parametrize('name', FUSIONS)
def test_maps_equal_the_formulas_in_loops(name, superclass):
    generator = torch.Generator().manual_seed(0)
    counts, width = (4, 1, 3), 7
    sets = [torch.randn(n, width, generator=generator, dtype=torch.float64) for n in counts]
    sets = [rows / rows.norm(dim=1, keepdim=True) for rows in sets]
    patches = torch.randn(2, 3, width, generator=generator, dtype=torch.float64)
    pooled = torch.randn(width, generator=generator, dtype=torch.float64)
    config = FusionConfig(name, superclass, temperature=0.5, logit_scale=3.0)
    names = (
        torch.nn.utils.rnn.pad_sequence(sets, batch_first=True),
        torch.arange(4) < torch.tensor(counts)[:, None],
    )
    maps = class_maps(patches, pooled, *names, config)
    probabilities = class_probabilities(patches, pooled, *names, config)
    for y in range(2):
        for x in range(3):
            expected = written_out(name, patches[y, x], pooled, sets, superclass, 3.0, 0.5)
            assert maps[y, x].tolist() == pytest.approx(expected[0], abs=1e-12)
            assert probabilities[y, x].tolist() == pytest.approx(expected[1], abs=1e-12)
