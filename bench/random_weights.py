"""Checkpoints of random weights: time goes with the size of a model, not with what they say."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import TYPE_CHECKING

from llmseg_ros.config import OpenClipConfig, SimSegConfig

if TYPE_CHECKING:
    import torch

INPUT, PATCH, WIDTH, JOINT = 288, 16, 384, 512  # of SimSeg's ViT-S/16
SMALL_CLIP = {
    'embed_dim': 32,
    'vision_cfg': {'image_size': 32, 'layers': 2, 'width': 64, 'head_width': 32, 'patch_size': 8},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1},
}


def random_vit(layers: int = 12) -> torch.nn.Module:
    """Return SimSeg's image tower."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=INPUT, patch_size=PATCH, embed_dim=WIDTH, depth=layers, num_heads=6, num_classes=0
    ).eval()


def write_random_simseg(folder: Path, layers: int = 12) -> SimSegConfig:
    """Write a checkpoint in the published layout and a tokenizer that spells names out.

    The text encoder has two layers: its time is not measured.

    Raises:
        ImportError: timm or transformers isn't installed.
    """
    import torch
    import transformers

    letters = string.ascii_lowercase
    tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *letters, *(f'##{c}' for c in letters)]
    (folder / 'tokenizer').mkdir()
    (folder / 'tokenizer' / 'vocab.txt').write_text('\n'.join(tokens), encoding='utf-8')
    bert = transformers.BertModel(
        transformers.BertConfig(vocab_size=len(tokens), num_hidden_layers=2),
        add_pooling_layer=False,
    )
    parts = {
        'image_encoder.model.model': random_vit(layers),
        'text_encoder.model.model': bert,
        'image_projection.linear': torch.nn.Linear(WIDTH, JOINT, bias=False),
        'text_projection.linear': torch.nn.Linear(768, JOINT, bias=False),
    }
    state = {
        f'{prefix}.{key}': value
        for prefix, module in parts.items()
        for key, value in module.state_dict().items()
    }
    torch.save({'state_dict': state}, folder / 'random.pth')
    return SimSegConfig(
        checkpoint=str(folder / 'random.pth'),
        tokenizer=str(folder / 'tokenizer'),
        templates='photo',
        input_size=INPUT,
    )


def write_random_clip(folder: Path, model: str) -> OpenClipConfig:
    """Write a checkpoint of an open_clip model; `small` is one of our own.

    Raises:
        ImportError: open_clip isn't installed.
    """
    import open_clip
    import torch

    if model == 'small':
        (folder / 'small.json').write_text(json.dumps(SMALL_CLIP), encoding='utf-8')
        open_clip.add_model_config(folder / 'small.json')
    random = open_clip.CLIP(**open_clip.get_model_config(model))
    torch.save(random.state_dict(), folder / 'clip.pt')
    return OpenClipConfig(model=model, pretrained=str(folder / 'clip.pt'), templates='photo')
