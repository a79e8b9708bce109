"""The guided filter against the formula written out window by window."""

import numpy as np
import torch

from llmseg_ros.method.guided_filter import EPSILON, RADIUS, fit_colours, upsample_guided


def window(values_chw, y, x):
    """Return (n, c) of the pixels around one, as far as there is image."""
    rows = slice(max(0, y - RADIUS), y + RADIUS + 1)
    columns = slice(max(0, x - RADIUS), x + RADIUS + 1)
    return values_chw[:, rows, columns].reshape(len(values_chw), -1).T


def fit_in_loops(maps_khw, colours_3hw):
    """Fit each window by ridge regression, then average over the windows a pixel lies in."""
    height, width = maps_khw.shape[1:]
    fits = np.zeros((4, len(maps_khw), height, width))
    for y in range(height):
        for x in range(width):
            colours, maps = window(colours_3hw, y, x), window(maps_khw, y, x)
            centred = colours - colours.mean(axis=0)
            covariance = centred.T @ centred / len(colours) + EPSILON * np.eye(3)
            slopes = np.linalg.solve(covariance, centred.T @ maps / len(colours))
            fits[:3, :, y, x] = slopes
            fits[3, :, y, x] = maps.mean(axis=0) - colours.mean(axis=0) @ slopes
    flat = fits.reshape(-1, height, width)
    means = [[window(flat, y, x).mean(axis=0) for x in range(width)] for y in range(height)]
    return np.array(means).transpose(2, 0, 1).reshape(fits.shape)


def test_fits_are_those_of_loops():
    random = np.random.default_rng(0)
    maps, colours = random.random((2, 4, 6, 5)), random.random((2, 3, 6, 5))
    slopes, offsets = fit_colours(torch.from_numpy(maps), torch.from_numpy(colours))
    for image in range(2):
        expected = fit_in_loops(maps[image], colours[image])
        np.testing.assert_allclose(slopes[image].transpose(0, 1), expected[:3], atol=1e-9)
        np.testing.assert_allclose(offsets[image], expected[3], atol=1e-9)


def test_an_edge_of_the_image_becomes_one_of_the_map():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 14:] = 1.0  # in the middle of a small pixel
    small = torch.nn.functional.adaptive_avg_pool2d(image, (8, 8))
    right = small[:, :1]
    enlarged = upsample_guided(torch.cat([1 - right, right], dim=1), small, image)
    assert enlarged[:, 1, :, 14:].min() > 0.9
    assert enlarged[:, 1, :, :14].max() < 0.1


def test_what_comes_out_are_probabilities():
    generator = torch.Generator().manual_seed(0)
    maps = (9 * torch.rand(1, 5, 6, 8, generator=generator)).softmax(dim=1)
    image = torch.rand(1, 3, 31, 47, generator=generator)
    enlarged = upsample_guided(maps, torch.rand(1, 3, 6, 8, generator=generator), image)
    assert enlarged.shape == (1, 5, 31, 47)
    assert enlarged.min() >= 0
    torch.testing.assert_close(enlarged.sum(dim=1), torch.ones(1, 31, 47))
    uniform = upsample_guided(torch.ones(1, 1, 6, 8), torch.zeros(1, 3, 6, 8), image)
    torch.testing.assert_close(uniform, torch.ones(1, 1, 31, 47))
