"""What all tests share: the installed package, and a user who has no keys and no data."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# As find_device does, but before any test imports torch.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

ROOT = Path(__file__).resolve().parents[1]
FAST_CONFIG = 'imagenet: {model: lite0, short_sides: [64], dilated: false}\n'
PHOTOGRAPHS = {'cat': 'chelsea', 'cup': 'coffee', 'rocket': 'rocket'}

# `python -m pytest` puts the source tree first, which lacks the generated messages.
_installed = [entry for entry in sys.path if Path(entry or '.').resolve() != ROOT]
if PathFinder.find_spec('llmseg_ros', _installed):
    sys.path[:] = _installed

# A job in the background of a shell ignores Ctrl-C, and so would every process the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session', autouse=True)
def fresh_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the processes they start, off this user's keys, data and network."""
    home = tmp_path_factory.mktemp('user')
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('OPENAI_API_KEY', raising=False)
        patch.setenv('HF_HUB_OFFLINE', '1')
        for variable in ('ROS_HOME', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME', 'XDG_DATA_HOME'):
            patch.setenv(variable, str(home / variable.lower()))
        yield


@pytest.fixture(scope='session')
def encoders_are_loaded_once() -> Iterator[None]:
    """Keep loaded encoders: loading takes longer than all that is done with them here."""
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.encoders import create_encoder

    @functools.cache
    def load(encoder: Any, settings: Any) -> Any:
        return create_encoder(SegmenterConfig(encoder, **{encoder.name: settings}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'llmseg_ros.segmenter.create_encoder',
            lambda config: load(config.encoder, getattr(config, config.encoder.name)),
        )
        yield


@pytest.fixture(scope='session')
def one_thread() -> Iterator[None]:
    """Compute on one thread: tiny models lose more to waking threads than they gain."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def fast_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file with the smallest model and image."""
    path = tmp_path_factory.mktemp('config') / 'fast.yaml'
    path.write_text(FAST_CONFIG)
    return path


@pytest.fixture(scope='session')
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder dataset: the thing in the middle of every photograph, an ignored frame around."""
    import skimage.data

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
