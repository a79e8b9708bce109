"""Where windows lie, and averaging what they overlap in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmseg_ros.encoders.tiling import (
    cut_windows,
    fit_grid,
    fit_size,
    join_windows,
    patch_axis,
    window_starts,
)
from llmseg_ros.method.patches import PatchAxis, average_windows


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


@pytest.mark.parametrize(
    ('height', 'width', 'fit', 'size'),
    [
        (375, 500, 'round', (336, 448)),
        (333, 500, 'round', (336, 512)),
        (333, 500, 'cut', (336, 505)),  # 504.5 and up is 505, as mmseg has it
        (333, 500, 'pad', (336, 505)),
        (720, 1280, 'pad_end', (336, 597)),
        (100, 10_000, 'cut', (20, 2048)),
        (10, 10_000, 'cut', (16, 2048)),  # at least a patch
    ],
)
def test_size_of_an_image(height, width, fit, size):
    assert fit_size(height, width, 16, 336, 2048, fit) == size


@pytest.mark.parametrize(
    ('length', 'window', 'fit', 'axis'),
    [
        (336, 224, 'round', PatchAxis(336, (0, 112), 224, 14, 224)),
        (500, 224, 'cut', PatchAxis(500, (0, 112, 224, 276), 224, 14, 224)),
        (500, 500, 'cut', PatchAxis(500, (0,), 500, 31, 500)),
        (500, 500, 'pad_end', PatchAxis(500, (0,), 500, 32, 500)),
        (300, 448, 'pad', PatchAxis(300, (0,), 300, 19, 304, 2)),
    ],
)
def test_where_patches_lie(length, window, fit, axis):
    assert patch_axis(length, window, 112, 16, fit) == axis


def test_windows_are_cut_padded_and_joined():
    image = torch.arange(24.0).reshape(1, 4, 6)
    axes = PatchAxis(4, (0, 1), 3, 1, 3), PatchAxis(6, (0, 3), 3, 2, 4)
    found = cut_windows(image, axes, 2)  # 3 x 3 pixels: a row is cut off, a column of zeros added
    expected = [[0, 1, 2, 0], [6, 7, 8, 0]], [[3, 4, 5, 0], [9, 10, 11, 0]]
    assert found[:2, 0].tolist() == [list(rows) for rows in expected]
    assert found.shape == (4, 1, 2, 4)
    patches = torch.arange(8.0).reshape(4, 1, 2, 1)
    assert join_windows(patches, axes)[..., 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), window=st.integers(1, 6), data=st.data())
def test_every_patch_is_the_mean_of_the_windows_over_it(rows, columns, window, data):
    stride = data.draw(st.integers(1, window))
    axes = tuple(patch_axis(16 * n, 16 * window, 16 * stride, 16, 'round') for n in (rows, columns))
    starts = [[start // 16 for start in axis.starts] for axis in axes]
    shape = tuple(axis.patches for axis in axes)
    random = np.random.default_rng(0)
    windows = random.normal(size=(len(starts[0]) * len(starts[1]), *shape, 2))
    found = average_windows(join_windows(torch.from_numpy(windows).float(), axes), axes)
    covering = [[[] for _ in range(columns)] for _ in range(rows)]
    for number, values in enumerate(windows):
        top, left = starts[0][number // len(starts[1])], starts[1][number % len(starts[1])]
        for y in range(shape[0]):
            for x in range(shape[1]):
                covering[top + y][left + x].append(values[y, x])
    expected = [[np.mean(values, axis=0) for values in row] for row in covering]
    np.testing.assert_allclose(found, expected, atol=1e-5)
