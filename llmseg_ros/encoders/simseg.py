"""SimSeg, the encoders of the paper (Yi et al., CVPR 2023): ViT and BERT aligned by LoDA.

Checkpoints are read as published (simseg.vit-s.pth, simseg.vit-b.pth).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import SimSegConfig
from llmseg_ros.encoders.base import EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.loda import loda_pool
from llmseg_ros.encoders.precision import autocast, pick_precision
from llmseg_ros.encoders.templates import average_templates, fill_templates, load_templates
from llmseg_ros.encoders.text_cache import TextCache
from llmseg_ros.encoders.vit import image_tensor, interpolate_positions
from llmseg_ros.encoders.weights import (
    absent,
    checksum,
    find_weights,
    first_line,
    given_weights,
    load_once,
    load_strictly,
    read_state_dict,
    some_of,
    weights_folder,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGE_K = 5  # LoDA over patches, without CLS
TEXT_K = 1  # LoDA over all tokens that are not padding
MAX_TOKENS = 25
HEAD_WIDTH = 64  # in both encoders of both published sizes
TEXT_BATCH = 256
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

logger = logging.getLogger(__name__)


class SimSegEncoder:
    """SimSeg's image and text encoders with their projections; implements Encoder."""

    def __init__(self, config: SimSegConfig, device: torch.device, precision: str = 'auto') -> None:
        """Load the checkpoint, or share the model this process already has.

        Raises:
            EncoderUnavailable: timm, transformers, the checkpoint or the tokenizer are absent, or
                the checkpoint is not one of SimSeg.
            ConfigError: the templates can't be read.
        """
        import torch

        path = find_checkpoint(config.checkpoint)
        tokenizer_path = find_tokenizer(config.tokenizer)
        digest = checksum(path)
        self.device = device
        self.name = f'simseg {path.stem} {digest[:12]}'
        self._precision = pick_precision(precision, device)
        self._model = load_once(('simseg', digest, device), lambda: load_model(path, device))
        self._tokenizer = load_tokenizer(tokenizer_path, self._model.text.config.vocab_size)
        self._templates = load_templates(config.templates)
        vocabulary = hash_vocabulary(self._tokenizer)
        self._text_cache = TextCache(f'simseg {digest} {vocabulary}', self._templates)
        self._mean_c11, self._std_c11 = (
            torch.tensor(values, device=device)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD)
        )
        vit = self._model.image
        patch = vit.patch_embed.proj.stride[0]
        side = max(1, round(config.input_size / patch))
        self._grid = (side, side)
        self._size = (side * patch, side * patch)
        # without antialiasing, as published
        self._positions_nd = interpolate_positions(vit.pos_embed[0].cpu(), self._grid, 'plain').to(
            device
        )
        self._encode_patches = torch.compile(encode_patches) if config.compile else encode_patches

    def encode_image(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        """Encode an (H, W, 3) uint8 RGB image, squeezed into a square; pooled has length 1.

        Raises:
            ValueError: the array is not an RGB image, or has no pixels.
        """
        import torch
        from torch.nn.functional import normalize

        image_chw = image_tensor(rgb, self._size, 'bilinear', self._mean_c11, self._std_c11)
        with torch.no_grad(), autocast(self.device, self._precision):
            patches_1nd = self._encode_patches(
                self._model, image_chw[None], self._positions_nd
            ).float()
        pooled_d = normalize(loda_pool(patches_1nd, IMAGE_K), dim=-1)[0]
        return ImageFeatures(patches_1nd[0].unflatten(0, self._grid), pooled_d)

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names through the text templates into (n, d) float32, rows of length 1."""
        import torch

        if not names:
            width = self._model.text_projection.out_features
            return torch.zeros(0, width, device=self.device)
        return self._text_cache.encode(names, self._encode_text).to(self.device)

    def _encode_text(self, names: Sequence[str]) -> torch.Tensor:
        import torch

        texts = fill_templates(self._templates, names)
        with torch.no_grad():
            encoded = [
                self._encode_texts(texts[start : start + TEXT_BATCH])
                for start in range(0, len(texts), TEXT_BATCH)
            ]
            return average_templates(torch.cat(encoded), len(self._templates))

    def _encode_texts(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            texts,
            padding='max_length',
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors='pt',
        ).to(self.device)
        ids, mask = tokens['input_ids'], tokens['attention_mask']
        words_bnd = self._model.text(input_ids=ids, attention_mask=mask).last_hidden_state
        return loda_pool(self._model.text_projection(words_bnd), TEXT_K, mask.bool())


@dataclass(frozen=True)
class SimSegModel:
    """The four modules of a checkpoint, in evaluation mode, without gradients."""

    image: Any
    text: Any
    image_projection: nn.Linear
    text_projection: nn.Linear


def encode_patches(
    model: SimSegModel, images_bchw: torch.Tensor, positions_nd: torch.Tensor
) -> torch.Tensor:
    """Return the projected patch tokens (b, h*w, d), CLS dropped, not normalised.

    Args:
        model: the modules.
        images_bchw: (b, 3, H, W), both sides whole patches.
        positions_nd: (1 + h*w, width) position embeddings of the patch grid.
    """
    import torch

    vit = model.image
    x = vit.patch_embed.proj(images_bchw).flatten(2).transpose(1, 2)
    x = torch.cat([vit.cls_token.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = vit.norm(vit.blocks(x + positions_nd.to(x.dtype)))
    return model.image_projection(x[:, 1:])


def find_checkpoint(checkpoint: str) -> Path:
    """Return the checkpoint file given, or the one in the cache folder.

    Raises:
        EncoderUnavailable: it is not there.
    """
    if checkpoint:
        return given_weights(checkpoint)
    # of several the small one, the paper's
    path = find_weights(weights_folder('simseg'), first='vit-s')
    if path is None:
        raise absent('checkpoint of SimSeg', 'simseg')
    return path


def find_tokenizer(tokenizer: str) -> Path:
    """Return the tokenizer folder given, or the one in the cache folder.

    Raises:
        EncoderUnavailable: it is not there.
    """
    if tokenizer:
        if not Path(tokenizer).expanduser().is_dir():
            raise EncoderUnavailable(f'tokenizer folder {tokenizer} does not exist')
        return Path(tokenizer).expanduser()
    folder = weights_folder('simseg', 'tokenizer')
    if not folder.is_dir():
        raise absent('tokenizer of SimSeg', 'simseg')
    return folder


def load_tokenizer(folder: Path, vocabulary: int) -> Any:
    """Load a BERT tokenizer from a folder.

    Args:
        folder: with vocab.txt or tokenizer.json.
        vocabulary: number of token embeddings of the text encoder.

    Raises:
        EncoderUnavailable: it can't be read, or has tokens the text encoder lacks.
    """
    if not any((folder / name).is_file() for name in ('vocab.txt', 'tokenizer.json')):
        # transformers would make up an empty vocabulary
        raise EncoderUnavailable(f'tokenizer folder {folder} has no vocab.txt or tokenizer.json')
    try:
        from transformers import BertTokenizerFast

        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise missing_package(error) from error
    except Exception as error:  # tokenizer files are parsed by several libraries
        raise EncoderUnavailable(
            f'tokenizer in {folder} does not load: {first_line(error)}'
        ) from error
    if len(tokenizer) > vocabulary:
        raise EncoderUnavailable(
            f'tokenizer in {folder} has {len(tokenizer)} tokens, the checkpoint {vocabulary}: '
            'SimSeg was trained with bert-base-uncased'
        )
    return tokenizer


def hash_vocabulary(tokenizer: Any) -> str:
    """Return a digest of a tokenizer's tokens and their numbers."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def load_model(path: Path, device: torch.device) -> SimSegModel:
    """Load a checkpoint in the published layout; sizes are read off the tensors.

    Raises:
        EncoderUnavailable: timm or transformers is absent, or the checkpoint lacks keys, has
            extra ones, or has tensors of unexpected shapes.
    """
    from torch import nn

    state = read_state_dict(path)
    parts = split_state(state, path)
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
