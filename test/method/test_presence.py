"""The gate on scores worked out by hand."""

import pytest
import torch

from llmseg_ros.config import GateConfig
from llmseg_ros.method.presence import (
    CONTRAST_STRENGTH,
    Candidates,
    clear_of_contrasts,
    evidence_prior,
    evidence_scores,
    presence_scores,
    select_candidates,
)


def passing(scores, config):
    candidates = select_candidates(torch.tensor(scores), config)
    return candidates.index_k[candidates.valid_k].tolist()


@pytest.mark.parametrize(
    ('scores', 'settings', 'expected'),
    [
        # mean 0.2, std 0.1 of the three: from 0.3 on
        ([0.3, 0.1, 0.2], {}, [0]),
        # mean 0.286, std 0.190: from 0.476 on
        ([0.5, 0.1, 0.2, 0.48, 0.15], {}, [0, 3]),
        # of the best two alone: mean 0.475, std 0.035
        ([0.5, 0.1, 0.2, 0.45, 0.15], {'top_k': 2}, []),
        # below three classes: within the margin of the best
        ([0.30, 0.29], {}, [0, 1]),
        ([0.30, 0.27], {}, [0]),
        ([0.30], {}, [0]),
        # at most as many as asked for, the strongest first
        ([9.0, 9.2, 9.1] + [0.0] * 30, {'top_k': 33, 'max_candidates': 2}, [1, 2]),
    ],
)
def test_simseg_gate(scores, settings, expected):
    assert passing(scores, GateConfig('simseg', **settings)) == expected


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        ([0.1, 0.3, 0.16], [1, 2]),
        ([0.0029, 0.001], []),  # an image that shows none of the classes
        ([0.004, 0.0029], [0]),
        ([0.9, 0.89, 0.88, 0.87, 0.86, 0.85], [0, 1, 2, 3, 4]),
    ],
)
def test_share_gate(scores, expected):
    config = GateConfig('share', share=0.5, minimum=0.003)
    assert sorted(passing(scores, config)) == expected


def test_without_a_gate_all_compete():
    assert passing([0.1, 0.3, 0.2], GateConfig('none')) == [1, 2, 0]


@pytest.mark.parametrize(
    ('evidence', 'expected'),
    [('superclass', [0.6, 0.0]), ('max', [0.8, 0.0]), ('mean', [0.7, 0.0])],
)
def test_scores(evidence, expected):
    descriptors = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    members = torch.tensor([[True, True], [True, False]])
    scores = presence_scores(
        torch.tensor([0.6, 0.8]), descriptors, members, GateConfig(evidence=evidence)
    )
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_evidence_is_added_up_by_squares():
    membership = torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    scores = evidence_scores(torch.tensor([0.6, 0.8, 0.9]), membership)
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.3, 0.0]))


def test_what_is_hardly_there_a_hundred_times_is_less_than_one_thing_that_is():
    membership = torch.zeros(2, 101)
    membership[0, :100], membership[1, 100] = 1, 1
    evidence = torch.tensor([0.01] * 100 + [0.5])
    torch.testing.assert_close(evidence_scores(evidence, membership), torch.tensor([0.1, 0.5]))


@pytest.mark.parametrize(
    ('gate', 'scores', 'settings', 'held', 'expected'),
    [
        # from 0.33 on; what is held from 0.24
        ('share', [0.6, 0.25, 0.25], {'share': 0.5}, [], [0]),
        ('share', [0.6, 0.32, 0.34], {'share': 0.5}, [0], [0, 2]),
        ('share', [0.6, 0.25, 0.25], {'share': 0.5}, [2], [0, 2]),
        ('share', [0.6, 0.23, 0.25], {'share': 0.5}, [1], [0]),
        # the least score of all is lower too, 0.08, or higher, 0.11
        ('share', [0.105, 0.115], {'minimum': 0.1}, [], [1]),
        ('share', [0.09, 0.07], {'minimum': 0.1}, [0, 1], [0]),
        # mean 0.28, std 0.182: from 0.462 on; with hysteresis from 0.370
        ('simseg', [0.5, 0.1, 0.2, 0.45, 0.15], {}, [2, 3], [0, 3]),
        # best less margin is -0.1, then -0.12
        ('simseg', [-0.08, -0.11], {'margin': 0.02}, [1], [0, 1]),
        # no place is held beyond the largest number
        ('share', [0.9, 0.8, 0.7], {'max_candidates': 2}, [2], [0, 1]),
    ],
)
def test_hysteresis(gate, scores, settings, held, expected):
    config = GateConfig(gate, hysteresis=0.2, **settings)
    held_c = torch.tensor([index in held for index in range(len(scores))])
    candidates = select_candidates(torch.tensor(scores), config, held_c)
    assert sorted(candidates.index_k[candidates.valid_k].tolist()) == expected
    # switched off, and for an image by itself, it changes nothing
    off = GateConfig(gate, **{**settings, 'hysteresis': 0.0})
    alone = passing(scores, config)
    assert passing(scores, off) == alone
    held_off = select_candidates(torch.tensor(scores), off, held_c)
    assert held_off.index_k[held_off.valid_k].tolist() == alone


def written_out_gate(scores, config, held):
    """Return the classes that pass, one after the other, the strongest first."""
    order = sorted(range(len(scores)), key=lambda c: -scores[c])
    best = scores[order[0]]
    top = [scores[c] for c in order[: config.top_k]]
    mean = sum(top) / len(top)
    entry = None
    if config.name == 'share':
        threshold = max(config.share * best, config.minimum)
        rise = 1 + config.hysteresis / 2
        entry = max(min(config.share * rise, 1) * best, config.minimum * rise)
    elif len(scores) < 3:
        threshold = best - config.margin
    else:
        threshold = mean + (sum((s - mean) ** 2 for s in top) / (len(top) - 1)) ** 0.5
    passed = []
    for c in order[: config.max_candidates]:
        own = threshold if entry is None else entry
        if c in held:
            own = min(own, threshold - config.hysteresis * abs(threshold))
        if scores[c] >= own:
            passed.append(c)
    return passed


@pytest.mark.parametrize('gate', ['simseg', 'share'])
@pytest.mark.parametrize('count', [1, 2, 3, 12])
def test_gates_equal_their_definitions(gate, count):
    generator = torch.Generator().manual_seed(count)
    config = GateConfig(gate, hysteresis=0.3, share=0.8, max_candidates=4)
    for _ in range(20):
        scores = torch.randn(count, generator=generator, dtype=torch.float64)
        held_c = torch.rand(count, generator=generator) < 0.5
        candidates = select_candidates(scores, config, held_c)
        held = set(held_c.nonzero()[:, 0].tolist())
        expected = written_out_gate(scores.tolist(), config, held)
        assert candidates.index_k[candidates.valid_k].tolist() == expected


def test_a_class_of_little_evidence_needs_more_of_a_patch():
    candidates = Candidates(torch.tensor([2, 0, 1]), torch.tensor([True, True, False]))
    prior_k = evidence_prior(torch.tensor([0.125, 0.0, 0.5]), candidates)
    torch.testing.assert_close(prior_k, 0.25 * torch.tensor([1.0, 0.25, 2e-4]).log())


@pytest.mark.parametrize(
    ('held', 'expected'),
    [
        (None, [True, False, True, True]),
        ([True, True, True, True], [True, True, True, True]),
        ([False, False, False, False], [False, False, True, True]),
    ],
)
def test_a_class_is_to_be_clear_of_its_own_contrasts(held, expected):
    """Least scores are 0.5 x 0.6 of the best contrast of the class: 0.3, 0.3, 0.06, 0."""
    assert CONTRAST_STRENGTH == 0.6
    scores = torch.tensor([0.31, 0.29, 0.07, 0.01])
    of_cj = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()
    candidates = Candidates(torch.tensor([2, 0, 3, 1]), torch.tensor([True, True, True, True]))
    config = GateConfig('share', share=0.5, hysteresis=0.2)
    held_c = None if held is None else torch.tensor(held)
    clear = clear_of_contrasts(
        candidates, scores, torch.tensor([1.0, 0.2, 9.0]), of_cj, config, held_c
    )
    assert clear.index_k.tolist() == [2, 0, 3, 1]
    assert clear.valid_k[clear.index_k.argsort()].tolist() == expected


def test_clear_of_contrasts_lets_nothing_in_that_did_not_pass():
    candidates = Candidates(torch.tensor([0, 1]), torch.tensor([True, False]))
    of_cj = torch.ones(2, 1, dtype=torch.bool)
    clear = clear_of_contrasts(
        candidates, torch.tensor([0.9, 0.8]), torch.tensor([0.1]), of_cj, GateConfig()
    )
    assert clear.valid_k.tolist() == [True, False]
