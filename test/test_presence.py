"""The gate on scores worked out by hand."""

import pytest
import torch

from llmseg_ros.config import GateConfig
from llmseg_ros.presence import presence_scores, select_candidates


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
