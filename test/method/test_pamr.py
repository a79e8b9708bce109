"""PAMR against its formula, pixel by pixel."""

import numpy as np
import pytest
import torch

from llmseg_ros.method.pamr import DILATIONS, ITERATIONS, refine_pamr


def slow_pamr(probabilities, rgb):
    """Write out softmax(-mean_rgb |x_i - x_j| / (0.1 std)) over neighbours, then average.

    The pixel itself counts once for each dilation in std, as in the published code.
    """
    _, height, width = probabilities.shape
    steps = [
        (dy * d, dx * d) for d in DILATIONS for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx
    ]

    def at(maps, y, x):
        return maps[:, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]

    for _ in range(ITERATIONS):
        averaged = np.empty_like(probabilities)
        for y in range(height):
            for x in range(width):
                own = at(rgb, y, x)
                colours = np.array([at(rgb, y + dy, x + dx) for dy, dx in steps])
                std = np.std(np.vstack([own] * len(DILATIONS) + [colours]), axis=0, ddof=1)
                affinity = np.exp(-np.mean(np.abs(colours - own) / (0.1 * std + 1e-8), axis=1))
                affinity /= affinity.sum()
                around = np.array([at(probabilities, y + dy, x + dx) for dy, dx in steps])
                averaged[:, y, x] = affinity @ around
        probabilities = averaged
    return probabilities


@pytest.mark.parametrize('size', [(20, 18), (5, 3)], ids=['larger', 'smaller than the dilation'])
def test_equals_the_formula(size):
    random = np.random.default_rng(0)
    rgb = random.uniform(0, 255, (3, *size))
    probabilities = random.dirichlet(np.ones(3), size).transpose(2, 0, 1)
    refined = refine_pamr(torch.from_numpy(probabilities), torch.from_numpy(rgb))
    np.testing.assert_allclose(refined.numpy(), slow_pamr(probabilities, rgb), atol=1e-5)


def test_one_colour_does_not_divide_by_zero():
    probabilities = torch.rand(2, 20, 20).softmax(dim=0)
    refined = refine_pamr(probabilities, torch.full((3, 20, 20), 7.0))
    torch.testing.assert_close(refined.sum(dim=0), torch.ones(20, 20))
