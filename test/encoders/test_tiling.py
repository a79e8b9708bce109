"""Where windows lie, and averaging what they overlap in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmseg_ros.encoders.tiling import (
    average_windows,
    cut_windows,
    fit_grid,
    window_origins,
    window_starts,
)


@pytest.mark.parametrize(
    ('height', 'width', 'patch', 'grid'),
    [
        (480, 640, 16, (21, 28)),  # short side 336
        (640, 480, 16, (28, 21)),
        (336, 336, 14, (24, 24)),
        (720, 1280, 16, (21, 37)),
        (1, 1, 16, (21, 21)),  # smaller than a patch: enlarged
        (100, 10_000, 16, (1, 128)),  # long side 2048
        (10_000, 10, 16, (128, 1)),
        (480, 640, 32, (10, 14)),  # 10.5 rounds to even
    ],
)
def test_grid_of_an_image(height, width, patch, grid):
    assert fit_grid(height, width, patch, 336, 2048) == grid


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_number_of_patches_is_bounded(height, width):
    rows, columns = fit_grid(height, width, 16, 336, 2048)
    assert 1 <= min(rows, columns) <= 21
    assert max(rows, columns) <= 128


def test_an_empty_image_is_refused():
    with pytest.raises(ValueError, match='0x7 pixels'):
        fit_grid(7, 0, 16, 336, 2048)


@pytest.mark.parametrize(
    ('length', 'window', 'stride', 'starts'),
    [
        (28, 14, 7, [0, 7, 14]),
        (21, 14, 7, [0, 7]),
        (30, 14, 7, [0, 7, 14, 16]),  # the last is moved back to the end
        (14, 14, 7, [0]),
        (5, 14, 7, [0]),  # one window, as short as the side
        (15, 14, 14, [0, 1]),
    ],
)
def test_window_starts(length, window, stride, starts):
    assert window_starts(length, window, stride) == starts


@pytest.mark.parametrize('stride', [0, 15])
def test_strides_that_leave_gaps_are_refused(stride):
    with pytest.raises(ValueError, match='stride'):
        window_starts(28, 14, stride)


def test_windows_are_cut_at_their_origins():
    image = torch.arange(2 * 4 * 6).reshape(2, 4, 6)
    found = cut_windows(image, [(0, 0), (1, 2)], (1, 1), 2)
    assert found.shape == (2, 2, 2, 2)
    assert found[1, 0].tolist() == [[16, 17], [22, 23]]


def test_overlap_is_averaged():
    windows = torch.tensor([1.0, 2, 6]).reshape(3, 1, 1, 1).expand(3, 1, 2, 1)
    found = average_windows(windows, [(0, 0), (0, 1), (0, 1)], (1, 3))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([1.0, 3, 4]))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.data())
def test_every_patch_is_the_mean_of_the_windows_over_it(rows, columns, window, data):
    stride = data.draw(st.integers(1, window))
    origins = window_origins((rows, columns), window, stride)
    size = (min(window, rows), min(window, columns))
    windows = torch.from_numpy(np.random.default_rng(0).standard_normal((len(origins), *size, 2)))
    found = average_windows(windows, origins, (rows, columns))
    for y in range(rows):
        for x in range(columns):
            over = [
                windows[i, y - top, x - left]
                for i, (top, left) in enumerate(origins)
                if 0 <= y - top < size[0] and 0 <= x - left < size[1]
            ]
            torch.testing.assert_close(found[y, x], sum(over) / len(over))


def test_averaging_features_is_averaging_cosines():
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(6, 4, 4, 5, generator=generator, dtype=torch.float64)
    windows = torch.nn.functional.normalize(windows, dim=-1)
    names = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    origins = window_origins((6, 7), 4, 2)
    assert len(origins) == 6
    averaged = average_windows(windows, origins, (6, 7)) @ names
    torch.testing.assert_close(averaged, average_windows(windows @ names, origins, (6, 7)))
