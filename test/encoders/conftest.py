"""Fixtures of the encoder tests: a cache folder of their own, and random models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for slow_reference


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, one_thread):
    folder = tmp_path / 'cache'
    monkeypatch.setenv('LLMSEG_CACHE', str(folder))
    return folder


@pytest.fixture(scope='session')
def photo():
    skimage = pytest.importorskip('skimage')
    return np.ascontiguousarray(skimage.data.chelsea()[:240, :400])


TINY_VISION = {'image_size': 16, 'layers': 2, 'width': 24, 'head_width': 12, 'patch_size': 4}
TINY_TEXT = {'context_length': 77, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1}
TINY_MODELS = {
    'tiny': {},
    'tiny-quickgelu': {'quick_gelu': True},
    'tiny-scaled': {'vision_cfg': {'ls_init_value': 0.5}},
    'tiny-average': {'vision_cfg': {'pool_type': 'avg', 'no_ln_pre': True}},
    'tiny-average-late': {'vision_cfg': {'pool_type': 'avg', 'final_ln_after_pool': True}},
    'tiny-special': {'vision_cfg': {'qk_norm': True}},
}


@pytest.fixture(scope='session')
def tiny_models(tmp_path_factory):
    """Make open_clip know tiny models; return checkpoint files by model name."""
    import slow_reference
    import torch

    open_clip = pytest.importorskip('open_clip')
    folder = tmp_path_factory.mktemp('open_clip')
    checkpoints = {}
    for name, changes in TINY_MODELS.items():
        config = {'embed_dim': 20, **changes, 'text_cfg': TINY_TEXT}
        config['vision_cfg'] = {**TINY_VISION, **changes.get('vision_cfg', {})}
        (folder / f'{name}.json').write_text(json.dumps(config))
        open_clip.add_model_config(folder / f'{name}.json')
        if name == 'tiny-special':
            continue
        model = slow_reference.randomise(open_clip.CLIP(**open_clip.get_model_config(name)))
        checkpoints[name] = folder / f'{name}.pt'
        torch.save(model.state_dict(), checkpoints[name])
    return checkpoints
