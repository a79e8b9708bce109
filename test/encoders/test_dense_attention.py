"""The five attentions against loops over heads and tokens."""

from __future__ import annotations

import numpy as np
import pytest
import slow_reference as slow
import torch

from llmseg_ros.encoders.dense_attention import MODES, attend, neighbour_bias

GRID = (2, 3)


@pytest.mark.parametrize('mode', MODES)
def test_values_are_mixed_by_the_formula(mode):
    q, k, v = torch.randn(3, 2, 2, 7, 4, generator=torch.Generator().manual_seed(0))
    found = attend(mode, q, k, v, neighbour_bias(GRID))
    for image in range(2):
        flat = (t[image].transpose(0, 1).flatten(1).double().numpy() for t in (q, k, v))
        expected = slow.mix(mode, *flat, heads=2, grid=GRID)
        np.testing.assert_allclose(
            found[image].transpose(0, 1).flatten(1), expected, rtol=1e-5, atol=1e-6
        )


def test_sclip_is_not_halved():
    # with equal keys and queries both softmaxes are uniform: their sum gives twice the mean
    q = torch.zeros(1, 1, 3, 2)
    v = torch.tensor([[[[3.0, 0], [0, 3], [0, 0]]]])
    torch.testing.assert_close(attend('sclip', q, q, v), torch.full((1, 1, 3, 2), 2.0))


def test_bias_of_a_row_of_three():
    near, far = np.exp(-1 / 50), np.exp(-4 / 50)
    expected = [[0, 0, 0, 0], [0, 1, near, far], [0, near, 1, near], [0, far, near, 1]]
    np.testing.assert_allclose(neighbour_bias((1, 3)), expected, rtol=1e-6)


@pytest.mark.parametrize('grid', [(3, 2), (1, 1), (4, 5)])
def test_bias_is_that_of_the_formula(grid):
    n = 1 + grid[0] * grid[1]
    expected = [[slow.omega(i, j, grid) for j in range(n)] for i in range(n)]
    np.testing.assert_allclose(neighbour_bias(grid), expected, rtol=1e-6)


@pytest.mark.parametrize('mode', ['naclip', 'gem'])
def test_a_mode_that_cannot_run_is_refused(mode):
    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=mode):
        attend(mode, q, q, q)
