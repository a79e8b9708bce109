"""The CRF in torch against an exact mean field, and that nothing waits for a device."""

import numpy as np
import pytest
import torch
from skimage import data

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.crf import PROBABILITY_FLOOR
from llmseg_ros.method.crf_torch import (
    MOST_PIXELS,
    MOST_PIXELS_CPU,
    colour_factors,
    mean_field,
    refine_crf_torch,
    scale_kernels,
    working_size,
)
from llmseg_ros.method.maps import resize_maps
from llmseg_ros.method.stages import Shared

from .mean_field import dense_mean_field

NARROW = RefineConfig(
    iterations=3,
    bilateral_sxy=5.0,
    bilateral_srgb=13.0,
    bilateral_compat=2.0,
    gaussian_sxy=1.2,
    gaussian_compat=1.0,
)


def noisy_images(labels: int, count: int = 2):
    """Images of 7 x 9 pixels of random colours, and random probabilities."""
    random = np.random.default_rng(labels)
    rgb = random.integers(0, 256, (count, 7, 9, 3), dtype=np.uint8)
    probabilities = random.dirichlet(np.ones(labels), (count, 7, 9)).transpose(0, 3, 1, 2)
    return probabilities.astype(np.float32), rgb


def unary_of(probabilities):
    return -torch.from_numpy(probabilities).clamp(min=PROBABILITY_FLOOR).log()


def channels_first(rgb):
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float()


def photos():
    """Two photographs of 120 x 160 pixels, and logits of which each lacks another label."""
    rgb = torch.from_numpy(
        np.stack([data.chelsea()[60:180, 130:290], data.coffee()[100:220, 200:360]])
    )
    logits = 3 * torch.randn(2, 4, 8, 10, generator=torch.Generator().manual_seed(1))
    logits[0, 1] = logits[1, 3] = ABSENT
    return logits, rgb


@pytest.mark.parametrize('config', [RefineConfig(), NARROW], ids=['default', 'narrow'])
@pytest.mark.parametrize('labels', [2, 5, 32])
def test_equals_the_exact_mean_field(config, labels):
    probabilities, rgb = noisy_images(labels)
    marginals = mean_field(unary_of(probabilities), channels_first(rgb), config, torch.float32)
    for image, marginals_khw in enumerate(marginals):
        exact = dense_mean_field(probabilities[image], rgb[image], config)
        np.testing.assert_allclose(marginals_khw, exact, atol=1e-4)


@pytest.mark.parametrize(('dtype', 'apart'), [(torch.float16, 0.003), (torch.bfloat16, 0.02)])
def test_a_kernel_of_half_precision_stays_near(dtype, apart):
    probabilities, rgb = noisy_images(3)
    marginals = mean_field(unary_of(probabilities), channels_first(rgb), NARROW, dtype)
    for image, marginals_khw in enumerate(marginals):
        exact = dense_mean_field(probabilities[image], rgb[image], NARROW)
        np.testing.assert_allclose(marginals_khw, exact, atol=apart)


def test_an_image_of_the_working_size_is_refined_exactly():
    _, rgb = noisy_images(3)
    logits = 2 * torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(2))
    refined = refine_crf_torch(logits, torch.from_numpy(rgb), RefineConfig())
    for image in range(2):
        probabilities = resize_maps(logits[image], (7, 9)).softmax(dim=0).numpy()
        exact = dense_mean_field(probabilities, rgb[image], RefineConfig())
        np.testing.assert_allclose(refined[image], exact, atol=1e-4)


def test_a_batch_is_what_its_images_are_alone():
    logits, rgb = photos()
    together = refine_crf_torch(logits, rgb, RefineConfig())
    assert together.shape == (2, 4, 120, 160)
    torch.testing.assert_close(together.sum(dim=1), torch.ones(2, 120, 160))
    for image in range(2):
        alone = refine_crf_torch(logits[image][None], rgb[image][None], RefineConfig())
        torch.testing.assert_close(together[image], alone[0], atol=1e-5, rtol=0)


def test_two_runs_are_equal_and_a_shared_kernel_changes_nothing():
    logits, rgb = (tensor[:1] for tensor in photos())
    first, second = (refine_crf_torch(logits, rgb, RefineConfig()) for _ in range(2))
    assert torch.equal(first, second)
    shared = Shared()
    for _ in range(2):
        assert torch.equal(first, refine_crf_torch(logits, rgb, RefineConfig(), shared))
    other = RefineConfig(bilateral_srgb=20.0)
    assert torch.equal(
        refine_crf_torch(logits, rgb, other), refine_crf_torch(logits, rgb, other, shared)
    )


def test_an_absent_label_is_as_if_it_were_not_there():
    logits, rgb = (tensor[:1] for tensor in photos())
    refined = refine_crf_torch(logits, rgb, RefineConfig())
    present = refine_crf_torch(logits[:, [0, 2, 3]], rgb, RefineConfig())
    assert not refined[:, 1].any()
    torch.testing.assert_close(refined[:, [0, 2, 3]], present, atol=1e-5, rtol=0)


def test_where_all_labels_are_absent_the_first_is_everywhere():
    _, rgb = photos()
    refined = refine_crf_torch(torch.full((2, 3, 8, 10), ABSENT), rgb, RefineConfig())
    torch.testing.assert_close(refined[:, 0], torch.ones(2, 120, 160))
    assert not refined[:, 1:].any()


@pytest.mark.parametrize('labels', [1, 2, 32])
@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (7, 1), (2, 5000), (5000, 2)])
def test_tiny_and_narrow_images(labels, shape):
    logits = torch.randn(1, labels, 2, 3)
    refined = refine_crf_torch(logits, torch.full((1, *shape, 3), 90).byte(), RefineConfig())
    assert refined.shape == (1, labels, *shape)
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(1, *shape))


@pytest.mark.parametrize(
    ('shape', 'short_side', 'expected'),
    [
        ((480, 640), 160, (48, 64)),
        ((480, 640), 24, (24, 32)),
        ((40, 60), 160, (40, 60)),
        ((1, 100_000), 160, (1, 3072)),
        ((100_000, 1), 160, (3072, 1)),
        ((200, 20_000), 160, (6, 512)),
        ((720, 1280), 160, (42, 73)),
    ],
)
def test_working_size_is_bounded(shape, short_side, expected):
    size = working_size(shape, short_side, 3072)
    assert size == expected
    assert size[0] * size[1] <= 3072


@pytest.mark.parametrize('shape', [(480, 640), (720, 1280)])
def test_on_a_gpu_the_short_side_is_64_to_96(shape):
    assert 64 <= min(working_size(shape, 160, MOST_PIXELS)) <= 96


def test_kernels_shrink_with_the_image():
    config = RefineConfig(gaussian_sxy=3.0, bilateral_sxy=40.0)
    scaled = scale_kernels(config, (480, 640), (48, 64))  # widths are of 160 x 213
    assert (scaled.gaussian_sxy, scaled.bilateral_sxy) == pytest.approx((0.9, 12.0))
    assert scaled.bilateral_srgb == config.bilateral_srgb
    assert scale_kernels(config, (40, 60), (40, 60)) == config


def test_differences_of_colour_are_exact_even_with_mantissas_of_8_bits():
    rgb = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(3))
    rgb[0, :, 0, 0], rgb[0, :, 0, 1] = 0, 255
    left, right = colour_factors(rgb.float())
    for factors in (left, right):
        assert torch.equal(factors.bfloat16().float(), factors)
    colours = rgb.flatten(2).mT.double()
    squared = (colours[:, :, None] - colours[:, None]).square().sum(dim=-1)
    assert torch.equal(left @ right, -squared.float() / 2)


@pytest.mark.parametrize('count', [1, 4])
def test_nothing_is_read_back_from_a_device(count):
    """Tensors of the meta device have no values: whoever asks for one gets an error."""
    logits = torch.empty(count, 6, 20, 28, device='meta')
    rgb = torch.empty(count, 480, 640, 3, dtype=torch.uint8, device='meta')
    with pytest.raises(RuntimeError, match='meta'):
        logits.max().item()
    refined = refine_crf_torch(logits, rgb, RefineConfig())
    assert refined.device.type == 'meta'
    assert refined.shape == (count, 6, 480, 640)


def test_the_edge_between_colours_is_found_within_a_pixel():
    rgb = torch.zeros(1, 480, 640, 3, dtype=torch.uint8)
    rgb[:, :, 323:] = 200  # in the middle of a pixel of the working size, off that of two patches
    logits = torch.zeros(1, 2, 15, 20)
    logits[:, 1, :, :10], logits[:, 1, :, 10:] = -2.0, 2.0
    labels = refine_crf_torch(logits, rgb, RefineConfig())[0].argmax(dim=0)
    assert MOST_PIXELS_CPU < MOST_PIXELS < 480 * 640
    assert not labels[:, :322].any()
    assert labels[:, 324:].all()
