"""Patches times names are the maps of classes, with every encoder, and lie where they are said to.

That of SimSeg is beside its checkpoint, in test_simseg.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.config import ImageNetConfig, OpenClipConfig
from llmseg_ros.encoders.imagenet import ImageNetEncoder
from llmseg_ros.encoders.open_clip import OpenClipEncoder
from llmseg_ros.encoders.tiling import patch_axis
from llmseg_ros.method.patches import are_one_grid, average_windows, patch_strides

from ..helpers.products import check_products

CPU = torch.device('cpu')
NAMES = ['cat', 'mountain bike', 'zebra crossing']


@pytest.fixture(scope='module')
def embedded():
    return ImageNetEncoder(ImageNetConfig(model='lite0', short_sides=(64,), dilated=False), CPU)


@pytest.mark.parametrize('fusion', ['max', 'mean'])
def test_of_the_embedded_encoder(embedded, photo, fusion, monkeypatch):
    features = check_products(embedded, NAMES, photo, fusion, monkeypatch)
    assert (features.rows, features.columns) == (2, 3)
    assert (features.stride_y, features.stride_x) == (240 / 2, 400 / 3)
    assert (features.offset_y, features.offset_x) == (240 / 4 - 0.5, 400 / 6 - 0.5)


@pytest.mark.parametrize('fit', ['round', 'cut', 'pad', 'pad_end'])
@pytest.mark.parametrize('windows', [True, False])
def test_of_open_clip(tiny_models, photo, fit, windows, monkeypatch):
    pytest.importorskip('open_clip')
    tiling = {'short_side': 27, 'long_side': 64, 'window': 18, 'stride': 9}
    config = OpenClipConfig(
        model='tiny',
        pretrained=str(tiny_models['tiny']),
        templates='photo',
        fit=fit,
        windows=windows,
        **tiling,
    )
    fusion = 'max' if windows else 'mean'
    check_products(OpenClipEncoder(config, CPU), NAMES, photo, fusion, monkeypatch)


@pytest.mark.parametrize('fit', ['round', 'cut', 'pad', 'pad_end'])
@pytest.mark.parametrize('window', [18, 100])
def test_patches_lie_where_the_message_says(fit, window):
    """Where every patch has its own place as its value, so does the grid they are averaged on."""
    sides, size = (27, 45), (270, 900)
    if fit == 'round':  # windows of whole patches
        sides, window = (28, 44), 20 if window == 18 else window
    rows, columns = axes = tuple(patch_axis(side, window, 8, 4, fit) for side in sides)
    places = []
    for axis in axes:
        own = (np.arange(axis.patches) + 0.5) * axis.spread / axis.patches - axis.before
        places.append(np.concatenate([start + own for start in axis.starts]))
    places_hwd = np.stack(np.meshgrid(*places, indexing='ij'), axis=-1).astype(np.float32)
    grid_hwd = average_windows(torch.from_numpy(places_hwd), axes).numpy()
    strides = patch_strides(axes, grid_hwd.shape[:2], size)
    for dimension, (axis, stride) in enumerate(zip((rows, columns), strides, strict=True)):
        scale = size[dimension] / axis.length
        found = np.moveaxis(grid_hwd[..., dimension], dimension, 0)[:, 0] * scale
        said = (np.arange(len(found)) + 0.5) * stride
        # beyond the centre of a window's last patch its value holds, half a patch at most
        assert np.abs(found - said).max() <= 0.51 * axis.spread / axis.patches * scale
        inner = slice(2, -2)
        np.testing.assert_allclose(found[inner], said[inner], atol=0.26 * stride)
        if are_one_grid(axes):
            np.testing.assert_allclose(found, said, rtol=1e-5)
