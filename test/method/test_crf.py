"""pydensecrf against an exact mean field, and what refining is for."""

import numpy as np
import pytest

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.crf import refine_crf

from .mean_field import dense_mean_field

pytest.importorskip('pydensecrf.densecrf', reason='pydensecrf2 is not installed')


def two_halves(labels: int, seed: int):
    """A 12 x 12 image of two colours, and noisy probabilities that lean the same way."""
    random = np.random.default_rng(seed)
    rgb = np.full((12, 12, 3), 60)
    rgb[:, 6:] = 180
    rgb = (rgb + random.integers(-8, 8, rgb.shape)).astype(np.uint8)
    logits = random.normal(size=(labels, 12, 12))
    logits[0, :, :6] += 1
    logits[1, :, 6:] += 1
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=0)).astype(np.float32), rgb


@pytest.mark.parametrize('labels', [2, 4], ids=['binary', 'joint'])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_equals_the_exact_mean_field(labels, seed):
    probabilities, rgb = two_halves(labels, seed)
    refined = refine_crf(probabilities, rgb, RefineConfig())
    exact = dense_mean_field(probabilities, rgb, RefineConfig())
    np.testing.assert_allclose(refined, exact, atol=1e-3)
    np.testing.assert_array_equal(refined.argmax(axis=0), exact.argmax(axis=0))


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_narrow_kernels_stay_near_the_exact_mean_field(seed):
    """The lattice interpolates; with kernels of a few pixels that shows, within 3 %."""
    config = RefineConfig(
        iterations=3,
        bilateral_sxy=5.0,
        bilateral_srgb=13.0,
        bilateral_compat=2.0,
        gaussian_compat=1.0,
    )
    probabilities, rgb = two_halves(4, seed)
    refined = refine_crf(probabilities, rgb, config)
    np.testing.assert_allclose(refined, dense_mean_field(probabilities, rgb, config), atol=0.03)


def test_noise_goes_and_the_edge_of_the_image_stays():
    probabilities, rgb = two_halves(2, 5)
    truth = np.arange(12)[None, :].repeat(12, axis=0) >= 6
    assert (probabilities.argmax(axis=0) == truth).mean() < 0.85
    refined = refine_crf(probabilities, rgb, RefineConfig())
    np.testing.assert_array_equal(refined.argmax(axis=0), truth)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
