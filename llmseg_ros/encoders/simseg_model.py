"""SimSeg's checkpoints: the modules in them, in the layouts they were published in."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.weights import load_strictly, read_state_dict, some_of

if TYPE_CHECKING:
    import torch
    from torch import nn

HEAD_WIDTH = 64  # in both encoders of both published sizes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimSegModel:
    """The four modules of a checkpoint, in evaluation mode, without gradients."""

    image: Any
    text: Any
    image_projection: nn.Linear
    text_projection: nn.Linear


def load_model(path: Path, device: torch.device, with_blocks: bool = True) -> SimSegModel:
    """Load a checkpoint in the published layout; sizes are read off the tensors.

    Args:
        path: of the checkpoint.
        device: where it goes.
        with_blocks: of the image tower, which take most of its room.

    Raises:
        EncoderUnavailable: timm or transformers is absent, or the checkpoint lacks keys, has
            extra ones, or has tensors of unexpected shapes.
    """
    from torch import nn

    state = read_state_dict(path)
    parts = split_state(state, path)
    if not with_blocks:
        image_state = parts['image'].items()
        parts['image'] = {k: v for k, v in image_state if not k.startswith('blocks.')}
    try:
        image, text = build_vit(parts['image']), build_bert(parts['text'])
        image_projection, text_projection = (
            nn.Linear(*reversed(parts[name]['weight'].shape), bias=False)
            for name in ('image_projection', 'text_projection')
        )
    except ImportError as error:
        raise missing_package(error) from error
    except KeyError as error:
        raise EncoderUnavailable(f'checkpoint {path} is not of SimSeg: no {error}') from error
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise EncoderUnavailable(
            f'checkpoint {path} has tensors of shapes that SimSeg does not have'
        ) from error
    modules = {
        'image': image,
        'text': text,
        'image_projection': image_projection,
        'text_projection': text_projection,
    }
    for name, module in modules.items():
        load_strictly(module, parts[name], path)
        module.eval().requires_grad_(False).to(device)
    return SimSegModel(**modules)


def missing_package(error: ImportError) -> EncoderUnavailable:
    return EncoderUnavailable(
        f'encoder simseg needs {error.name}: pip install timm transformers, '
        'or use `encoder: imagenet`'
    )


PREFIXES = {
    'image': 'image_encoder.model.model.',
    'text': 'text_encoder.model.',  # with or without a further `model.`
    'image_projection': 'image_projection.linear.',
    'text_projection': 'text_projection.linear.',
}
# the loss temperature, BERT's pooler and the ViT's classifier are not used; some transformers
# kept position_ids and token_type_ids
UNUSED = re.compile(
    r'loss\.|image_encoder\.model\.model\.head\.'
    r'|text_encoder\.model\.(model\.)?(pooler\.|embeddings\.(position|token_type)_ids$)'
)


def split_state(
    state: Mapping[str, torch.Tensor], path: Path
) -> dict[str, dict[str, torch.Tensor]]:
    """Split the tensors of a checkpoint by module.

    Raises:
        EncoderUnavailable: a tensor belongs to none of them, or one of them has no tensors.

    What no part of the segmenter uses is named in the log.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in PREFIXES}
    extra = []
    if unused := [key for key in state if UNUSED.match(key)]:
        logger.info('of checkpoint %s are not used: %s', path, ', '.join(unused))
    for key, value in state.items():
        if UNUSED.match(key):
            continue
        for name, prefix in PREFIXES.items():
            if key.startswith(prefix):
                parts[name][key.removeprefix(prefix).removeprefix('model.')] = value
                break
        else:
            extra.append(key)
    missing = [f'{PREFIXES[name]}*' for name, part in parts.items() if not part]
    if missing:
        raise EncoderUnavailable(f'checkpoint {path} is not of SimSeg: no {", ".join(missing)}')
    if extra:
        raise EncoderUnavailable(
            f'checkpoint {path} is not of SimSeg alone: it has extra {some_of(extra)}'
        )
    return parts


def build_vit(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build timm's VisionTransformer of the sizes the tensors have, with random weights."""
    from timm.models.vision_transformer import VisionTransformer

    width, _, patch, _ = state['patch_embed.proj.weight'].shape
    side = round((state['pos_embed'].shape[1] - 1) ** 0.5)
    return VisionTransformer(
        img_size=side * patch,
        patch_size=patch,
        embed_dim=width,
        depth=count_layers(state, 'blocks.'),
        num_heads=max(1, width // HEAD_WIDTH),
        num_classes=0,
    )


def build_bert(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build transformers' BERT of the sizes the tensors have, with random weights."""
    from transformers import BertConfig, BertModel

    vocabulary, width = state['embeddings.word_embeddings.weight'].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=count_layers(state, 'encoder.layer.'),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        intermediate_size=len(state['encoder.layer.0.intermediate.dense.bias']),
        max_position_embeddings=len(state['embeddings.position_embeddings.weight']),
        type_vocab_size=len(state['embeddings.token_type_embeddings.weight']),
    )
    return BertModel(config, add_pooling_layer=False)


def count_layers(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Return how many numbered layers there are under a prefix."""
    return len({key.removeprefix(prefix).split('.')[0] for key in state if key.startswith(prefix)})
