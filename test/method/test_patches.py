"""Patches of windows spread over an image, against torch's own interpolation window by window."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from llmseg_ros.method.patches import PatchAxis, grid_length, weights_at, whole_axis


@pytest.mark.parametrize('length', [1, 3, 7, 20])
def test_patches_of_a_whole_image_are_resized_bilinearly(length):
    values = torch.randn(1, 1, 3, 1, dtype=torch.float64)
    found = weights_at(whole_axis(3), length) @ values[0, 0, :, 0].numpy()
    expected = interpolate(values, (length, 1), mode='bilinear')[0, 0, :, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('length', [50, 33, 117])
@pytest.mark.parametrize('before', [0, 3])
def test_windows_are_enlarged_averaged_and_resized(length, before):
    """Of 32 pixels, 4 patches of which reach beyond where there is padding; the last at the end."""
    spread, starts = 32 + 2 * before, (0, 16, 18)
    axis = PatchAxis(50, starts, 32, 4, spread, before)
    values = torch.randn(len(starts), 4, dtype=torch.float64)
    total, covers = torch.zeros(2, 50, dtype=torch.float64)
    for start, window in zip(starts, values, strict=True):
        enlarged = interpolate(window[None, None, :, None], (spread, 1), mode='bilinear')
        total[start : start + 32] += enlarged[0, 0, before : before + 32, 0]
        covers[start : start + 32] += 1
    expected = interpolate((total / covers)[None, None, :, None], (length, 1), mode='bilinear')
    found = weights_at(axis, length) @ values.flatten().numpy()
    np.testing.assert_allclose(found, expected[0, 0, :, 0], atol=1e-6)


def test_a_grid_is_as_fine_as_the_patches():
    assert grid_length(PatchAxis(336, (0, 112), 224, 14, 224)) == 21
    assert grid_length(whole_axis(5)) == 5
