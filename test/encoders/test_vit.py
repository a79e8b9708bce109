"""Pixels in, and position embeddings for any grid."""

from __future__ import annotations

import numpy as np
import pytest
import slow_reference as slow
import torch

from llmseg_ros.encoders.vit import image_tensor, interpolate_positions

ZERO, ONE = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)


def test_pixels_are_scaled_and_normalised():
    rgb = np.array([[[0, 51, 255]]], np.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.5), (0.1, 1.0, 0.25)))
    found = image_tensor(rgb, (1, 1), 'bicubic', mean, std)
    torch.testing.assert_close(found, torch.tensor([[[-1.0]], [[0.0]], [[2.0]]]))


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(60, 100), (480, 800), (233, 31)])
def test_resizing_is_that_of_pillow(photo, mode, size):
    image = pytest.importorskip('PIL.Image')
    expected = np.array(
        image.fromarray(photo).resize(size[::-1], image.Resampling[mode.upper()])
    ).transpose(2, 0, 1)
    found = image_tensor(photo, size, mode, ZERO, ONE).numpy() * 255
    assert np.abs(found - expected).max() < 1.01
    assert np.abs(found - expected).mean() < 0.02


def test_a_read_only_or_strided_array_is_taken(photo, recwarn):
    frozen = photo[::2, ::-1]
    frozen.flags.writeable = False
    found = image_tensor(frozen, (10, 10), 'bilinear', ZERO, ONE)
    torch.testing.assert_close(
        found, image_tensor(np.ascontiguousarray(frozen), (10, 10), 'bilinear', ZERO, ONE)
    )
    assert not recwarn


@pytest.mark.parametrize('how', ['antialias', 'plain', 'offset'])
@pytest.mark.parametrize('grid', [(5, 5), (2, 3), (9, 4), (1, 1), (5, 1), (12, 17)])
def test_positions_are_those_of_the_formula(how, grid):
    positions = torch.randn(26, 3, generator=torch.Generator().manual_seed(0))
    found = interpolate_positions(positions, grid, how)
    expected = slow.resize_positions(positions.double().numpy(), grid, how)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('image_size', [64, 16, 48])
def test_positions_are_those_of_open_clip(image_size):
    model = pytest.importorskip('open_clip.model')
    visual = type('Visual', (), {'grid_size': (image_size // 8,) * 2})()
    stub = type('Model', (), {'visual': visual})()
    positions = torch.randn(17, 3)
    state = {'visual.positional_embedding': positions}
    model.resize_pos_embed(state, stub)
    found = interpolate_positions(positions, (image_size // 8,) * 2, 'antialias')
    torch.testing.assert_close(found, state['visual.positional_embedding'])
