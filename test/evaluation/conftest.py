"""A small dataset of photographs and a configuration that is fast."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from llmseg_ros.config import EncoderConfig, ImageNetConfig, SegmenterConfig
from llmseg_ros.encoders import Encoder, create_encoder

FAST_CONFIG = 'imagenet: {model: lite0, short_sides: [64], dilated: false}\n'
PHOTOGRAPHS = {'cat': 'chelsea', 'cup': 'coffee', 'rocket': 'rocket'}


@pytest.fixture(scope='session', autouse=True)
def encoders_are_loaded_once() -> Iterator[None]:
    """Keep loaded encoders: loading takes longer than all that is done with them here."""

    @functools.cache
    def load(encoder: EncoderConfig, imagenet: ImageNetConfig) -> Encoder:
        return create_encoder(SegmenterConfig(encoder, imagenet))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'llmseg_ros.segmenter.create_encoder',
            lambda config: load(config.encoder, config.imagenet),
        )
        yield


@pytest.fixture(scope='session')
def fast_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file with the smallest model and image."""
    path = tmp_path_factory.mktemp('config') / 'fast.yaml'
    path.write_text(FAST_CONFIG)
    return path


@pytest.fixture(scope='session')
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder dataset: the thing in the middle of every photograph, an ignored frame around."""
    root = tmp_path_factory.mktemp('photographs')
    for folder in ('images', 'labels'):
        (root / folder).mkdir()
    for value, (name, photograph) in enumerate(PHOTOGRAPHS.items(), start=1):
        rgb = getattr(skimage.data, photograph)()
        height, width = rgb.shape[:2]
        labels = np.zeros((height, width), np.uint8)
        labels[height // 4 : -height // 4, width // 4 : -width // 4] = value
        labels[:, :10] = 255
        Image.fromarray(rgb).save(root / 'images' / f'{name}.png')
        Image.fromarray(labels).save(root / 'labels' / f'{name}.png')
    (root / 'classes.txt').write_text('\n'.join(['background', *PHOTOGRAPHS]))
    return root
