"""Random CLIP models small enough for references that are written out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for reference
sys.path.insert(0, str(Path(__file__).parents[1] / 'encoders'))  # for slow_reference

from tiny import NAME, TEXT, VISION


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv('LLMSEG_CACHE', str(tmp_path / 'cache'))


@pytest.fixture(scope='session')
def tiny_clip(tmp_path_factory):
    """Make open_clip know a tiny model with QuickGELU; return its checkpoint."""
    import slow_reference
    import torch

    open_clip = pytest.importorskip('open_clip')
    folder = tmp_path_factory.mktemp('open_clip')
    config = {'embed_dim': 40, 'quick_gelu': True, 'vision_cfg': VISION, 'text_cfg': TEXT}
    (folder / f'{NAME}.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / f'{NAME}.json')
    model = slow_reference.randomise(open_clip.CLIP(**open_clip.get_model_config(NAME)))
    with torch.no_grad():  # so that patches differ more than places do
        model.visual.conv1.weight.mul_(3)
        model.visual.positional_embedding.mul_(0.5)
        model.visual.transformer.resblocks[-1].attn.in_proj_weight.mul_(3)
    torch.save(model.state_dict(), folder / 'clip.pt')
    return folder / 'clip.pt'


@pytest.fixture(params=['photograph', 'photograph, square', 'smooth random'])
def rgb(request):
    """An image of two sizes, one not square: of a cat, and of nothing."""
    from skimage import data

    if request.param == 'smooth random':
        noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        return cv2.resize(noise, (117, 83), interpolation=cv2.INTER_CUBIC)
    photo = data.chelsea()[20:280, 60:420]
    size = (90, 90) if 'square' in request.param else (131, 94)
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
