"""One small random model for every kind of timm tower, as open_clip builds the real one."""

from __future__ import annotations

import copy
from typing import NamedTuple

import open_clip
import slow_reference as slow
import timm
import torch
from open_clip import factory
from timm.models import register_model

TEXT = {'context_length': 77, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1}
SMALL = {'depth': 2, 'embed_dim': 24, 'num_heads': 2, 'patch_size': 4}


class Kind(NamedTuple):
    """A tiny tower.

    Attributes:
        like: the model of open_clip whose configuration it takes over, but for sizes.
        trunk: the model of timm.
        changes: to its sizes.
        size: side of its images.
    """

    like: str
    trunk: str
    changes: dict
    size: int = 16


KINDS = {
    'siglip': Kind('ViT-B-16-SigLIP', 'vit_base_patch16_siglip_224', SMALL),
    'siglip-gopt': Kind('ViT-gopt-16-SigLIP2-256', 'vit_giantopt_patch16_siglip_256', SMALL),
    'eva01': Kind('EVA01-g-14', 'eva_giant_patch14_224', SMALL),
    'eva02': Kind('EVA02-B-16', 'eva02_base_patch16_clip_224', SMALL),
    'eva02-e': Kind('EVA02-E-14', 'eva02_enormous_patch14_clip_224', SMALL),
    'pe': Kind(
        'PE-Core-B-16', 'vit_pe_core_base_patch16_224', {**SMALL, 'attn_pool_num_heads': 3}
    ),
    'pe-big': Kind(
        'PE-Core-bigG-14-448',
        'vit_pe_core_gigantic_patch14_448',
        {**SMALL, 'attn_pool_num_heads': 3},
    ),
    'mobileclip': Kind('MobileCLIP2-B', 'vit_base_mci_224', {'depth': 2, 'mlp_ratio': 0.1}, 32),
    'mobileclip-l': Kind('MobileCLIP2-L-14', 'vit_large_patch14_clip_224', SMALL),
    'vitamin': Kind('ViTamin-S', 'vitamin_small_224', {'depth': 2, 'mlp_ratio': 0.1}, 32),
    'vitamin-xl': Kind(
        'ViTamin-XL-256', 'vitamin_small_224', {'depth': 2, 'mlp_ratio': 0.1, 'pos_embed': 'none'},
        32,
    ),
    'gap': Kind('vit_medium_patch16_gap_256', 'vit_medium_patch16_gap_256', SMALL),
    'registers': Kind('MobileCLIP2-B', 'vit_small_patch14_reg4_dinov2', SMALL),
}  # fmt: skip


def make_trunk(kind: Kind):
    """Return a builder that timm can call by name."""

    def build(pretrained=False, **kwargs):
        assert not pretrained, 'weights of its own would be fetched'
        return timm.create_model(kind.trunk, img_size=kind.size, **kind.changes, **kwargs)

    return build


def tiny_config(name: str) -> dict:
    """Return the configuration of the real model with a tiny tower and a tiny text tower."""
    kind = KINDS[name]
    config = copy.deepcopy(open_clip.get_model_config(kind.like))
    vision = config['vision_cfg']
    vision.update(timm_model_name=f'tiny_{name.replace("-", "_")}', image_size=kind.size)
    config['embed_dim'] = 24 if vision.get('timm_proj') == 'none' else 20
    config['text_cfg'] = dict(TEXT)
    return config


def register(name: str) -> str:
    """Make timm and open_clip know a tiny model; return its name in open_clip."""
    build = make_trunk(KINDS[name])
    build.__name__ = f'tiny_{name.replace("-", "_")}'
    if not timm.is_model(build.__name__):
        register_model(build)
    factory._MODEL_CONFIGS[f'tiny-timm-{name}'] = tiny_config(name)
    return f'tiny-timm-{name}'


def random_model(name: str) -> torch.nn.Module:
    """Build a registered model of open_clip with weights that leave no formula trivial."""
    config = open_clip.get_model_config(name)
    config.pop('custom_text', None)
    return slow.randomise(open_clip.CustomTextCLIP(**config))
