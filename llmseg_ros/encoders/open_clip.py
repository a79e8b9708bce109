"""CLIP models of open_clip as dense encoders, with the attention of the last block changed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.base import EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.dense_attention import RESIDUAL_MODES, attend, neighbour_bias
from llmseg_ros.encoders.precision import autocast, pick_precision
from llmseg_ros.encoders.templates import average_templates, fill_templates, load_templates
from llmseg_ros.encoders.text_cache import TextCache
from llmseg_ros.encoders.tiling import average_windows, cut_windows, fit_grid, window_origins
from llmseg_ros.encoders.vit import image_tensor, interpolate_positions
from llmseg_ros.encoders.weights import (
    SUFFIXES,
    absent,
    checksum,
    find_weights,
    load_once,
    load_strictly,
    read_state_dict,
    weights_folder,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

TEXT_BATCH = 256
QUICKGELU_TAGS = ('openai', 'dfn2b', 'dfn5b', 'metaclip_400m', 'metaclip_fullcc')
"""Trained with QuickGELU; open_clip before 2.30 does not say so."""


class OpenClipEncoder:
    """An open_clip model with a VisionTransformer image tower; implements Encoder."""

    def __init__(
        self, config: OpenClipConfig, device: torch.device, precision: str = 'auto'
    ) -> None:
        """Load the model, or share the one this process already has.

        Raises:
            EncoderUnavailable: open_clip or the weights are absent, or the model and its weights
                can't be used together, or not for dense features.
            ConfigError: the templates can't be read.
        """
        import torch

        self.device = device
        self._config = config
        self._precision = pick_precision(precision, device)
        self._shared = shared_model(config.model, config.pretrained, device)
        self.name = f'open_clip {self._shared.name}'
        visual = self._shared.model.visual
        self._patch = visual.conv1.stride[0]
        self._templates = load_templates(config.templates)
        self._text_cache = TextCache(
            f'open_clip {config.model} {self._shared.digest}', self._templates
        )
        self._mean_c11, self._std_c11 = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (self._shared.mean, self._shared.std)
        )
        if config.channels_last:
            visual.conv1.to(memory_format=torch.channels_last)
        self._forward = torch.compile(dense_forward) if config.compile else dense_forward
        self._grid_constants = functools.lru_cache(maxsize=2)(self._make_grid_constants)

    def encode_image(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        """Encode an (H, W, 3) uint8 RGB image, whole or by sliding windows.

        Windows: patches are the mean, by coverage, of the windows' unit features, and pooled is
        the mean of their unit image embeddings; so products with a descriptor are mean cosines.

        Raises:
            ValueError: the array is not an RGB image, or has no pixels.
        """
        import torch
        from torch.nn.functional import normalize

        config, patch = self._config, self._patch
        height, width = rgb.shape[:2]
        grid = fit_grid(height, width, patch, config.short_side, config.long_side)
        size = (grid[0] * patch, grid[1] * patch)
        image_chw = image_tensor(rgb, size, 'bicubic', self._mean_c11, self._std_c11)
        if not config.windows:
            patches_1hwd, pooled_1d = self._encode(image_chw[None], grid)
            return ImageFeatures(patches_1hwd[0], pooled_1d[0])
        # window and stride in whole patches, so that windows overlap in whole patches
        window = max(1, round(config.window / patch))
        stride = min(window, max(1, round(config.stride / patch)))
        origins = window_origins(grid, window, stride)
        window_grid = (min(window, grid[0]), min(window, grid[1]))
        windows_nchw = cut_windows(image_chw, origins, window_grid, patch)
        encoded = [self._encode(part, window_grid) for part in windows_nchw.split(config.batch)]
        patches_nhwd, pooled_nd = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        patches_hwd = average_windows(normalize(patches_nhwd, dim=-1), origins, grid)
        pooled_d = normalize(pooled_nd, dim=-1).mean(dim=0)
        return ImageFeatures(patches_hwd, pooled_d, keep_length=True)

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names through the text templates into (n, d) float32, rows of length 1."""
        import torch

        if not names:
            return torch.zeros(0, self._shared.model.visual.proj.shape[1], device=self.device)
        return self._text_cache.encode(names, self._encode_text).to(self.device)

    def _encode(
        self, images_bchw: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return patches (b, h, w, d) and pooled (b, d), both float32."""
        import torch

        if self._config.channels_last:
            images_bchw = images_bchw.to(memory_format=torch.channels_last)
        positions_nd, bias_nn = self._grid_constants(grid)
        with torch.no_grad(), autocast(self.device, self._precision):
            patches_bnd, pooled_bd = self._forward(
                self._shared.model.visual,
                images_bchw,
                self._config.attention,
                positions_nd,
                bias_nn,
            )
        return patches_bnd.float().unflatten(1, grid), pooled_bd.float()

    def _make_grid_constants(
        self, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the position embeddings of a patch grid, and NACLIP's bias where it is used."""
        positions_nd = self._shared.model.visual.positional_embedding.detach().float().cpu()
        positions_nd = interpolate_positions(positions_nd, grid, antialias=True).to(self.device)
        if self._config.attention != 'naclip':
            return positions_nd, None
        return positions_nd, neighbour_bias(grid, self.device)

    def _encode_text(self, names: Sequence[str]) -> torch.Tensor:
        import torch

        model, tokenize = self._shared.model, self._shared.tokenize
        texts = fill_templates(self._templates, names)
        with torch.no_grad():
            encoded = [
                model.encode_text(tokenize(texts[start : start + TEXT_BATCH]).to(self.device))
                for start in range(0, len(texts), TEXT_BATCH)
            ]
            return average_templates(torch.cat(encoded).float(), len(self._templates))


def dense_forward(
    visual: nn.Module,
    images_bchw: torch.Tensor,
    mode: str,
    positions_nd: torch.Tensor,
    bias_nn: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode images with the last block's attention changed for patches, unchanged for pooled.

    Args:
        visual: the VisionTransformer.
        images_bchw: (b, 3, H, W), both sides whole patches.
        mode: one of dense_attention.MODES.
        positions_nd: (1 + h*w, width) position embeddings of the patch grid.
        bias_nn: naclip's neighbour_bias.

    Returns:
        Patch features (b, h*w, d) and image embeddings (b, d), projected, not normalised.
    """
    import torch

    x = visual.conv1(images_bchw).flatten(2).transpose(1, 2)
    cls_b1d = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([cls_b1d, x], dim=1) + positions_nd.to(x.dtype))
    *blocks, last = visual.transformer.resblocks
    # nn.MultiheadAttention puts tokens first, which costs bf16 on a CPU a copy of the weights for
    # every token of a batch; and whether a block takes tokens first depends on open_clip's version
    for block in blocks:
        x = finish_block(block, x, join_heads(block, attend('vanilla', *split_heads(block, x))))

    q, k, v = split_heads(last, x)
    is_cls = visual.pool_type == 'tok'
    plain = attend('vanilla', q[:, :, :1] if is_cls else q, k, v)
    pooled = finish_block(last, x[:, :1] if is_cls else x, join_heads(last, plain))
    changed = join_heads(last, attend(mode, q, k, v, bias_nn))
    dense = finish_block(last, x, changed) if mode in RESIDUAL_MODES else changed
    if is_cls:
        pooled = visual.ln_post(pooled[:, 0])
    elif visual.final_ln_after_pool:
        pooled = visual.ln_post(pooled[:, 1:].mean(dim=1))
    else:
        pooled = visual.ln_post(pooled)[:, 1:].mean(dim=1)
    return visual.ln_post(dense[:, 1:]) @ visual.proj, pooled @ visual.proj


def split_heads(block: nn.Module, x_bnd: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the block's q, k and v of its input, each (b, heads, n, e)."""
    from torch.nn.functional import linear

    attention = block.attn
    qkv = linear(block.ln_1(x_bnd), attention.in_proj_weight, attention.in_proj_bias)
    return tuple(
        part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for part in qkv.chunk(3, dim=-1)
    )


def join_heads(block: nn.Module, mixed_bhne: torch.Tensor) -> torch.Tensor:
    """Return O = out_proj(concatenated heads), (b, n, d)."""
    return block.attn.out_proj(mixed_bhne.transpose(1, 2).flatten(2))


def finish_block(block: nn.Module, x_bnd: torch.Tensor, o_bnd: torch.Tensor) -> torch.Tensor:
    """Add the residual, then the feed-forward network and its residual."""
    x_bnd = x_bnd + block.ls_1(o_bnd)
    return x_bnd + block.ls_2(block.mlp(block.ln_2(x_bnd)))


@dataclass(frozen=True)
class SharedModel:
    """A loaded model and what belongs to its weights.

    Attributes:
        name: model and tag, or model and the start of a local checkpoint's checksum.
        digest: SHA-256 of the weight file, in hex.
        model: of open_clip, in evaluation mode, without gradients.
        tokenize: texts to (n, context) int64 tokens.
        mean: of the pixels on a scale of 0 to 1, per channel.
        std: likewise.
    """

    name: str
    digest: str
    model: Any
    tokenize: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def shared_model(name: str, pretrained: str, device: torch.device) -> SharedModel:
    """Load a model once per process, weights and device, however many encoders use it.

    Args:
        name: of the model in open_clip.
        pretrained: a tag whose weights were downloaded, or a checkpoint file.
        device: where it runs.

    Raises:
        EncoderUnavailable: it can't be loaded or used.
    """
    # first of all, in milliseconds: importing open_clip takes longer than a user should wait for
    # the news that there are no weights
    path = find_checkpoint(name, pretrained)
    digest = checksum(path)
    return load_once(
        ('open_clip', name, digest, device),
        lambda: load_model(name, pretrained, path, digest, device),
    )


def find_checkpoint(name: str, pretrained: str) -> Path:
    """Return the weight file of a tag, or the checkpoint file given.

    Raises:
        EncoderUnavailable: it is not there.
    """
    if is_path(pretrained):
        if not Path(pretrained).expanduser().is_file():
            raise EncoderUnavailable(f'checkpoint {pretrained} does not exist')
        return Path(pretrained).expanduser()
    path = find_weights(weights_folder('open_clip', f'{name}--{pretrained}'))
    if path is None:
        raise absent(f'weights of {name}, {pretrained},', 'open_clip')
    return path


def is_path(pretrained: str) -> bool:
    """Tell a checkpoint file from a tag."""
    return '/' in pretrained or Path(pretrained).suffix in SUFFIXES


def load_model(
    name: str, pretrained: str, path: Path, digest: str, device: torch.device
) -> SharedModel:
    """Build the model, load its weights, and make it ready for inference."""
    open_clip = import_open_clip()
    tag = None if is_path(pretrained) else pretrained
    config = check_model(name, tag)
    text_folder = weights_folder('open_clip', f'{name}--{pretrained}') / 'text'
    model, tokenize = build_model(name, config, text_folder)
    state = read_state_dict(path)
    if 'text_projection' in state and not isinstance(model, open_clip.CLIP):
        from open_clip.model import convert_to_custom_text_state_dict

        state = convert_to_custom_text_state_dict(state)
    state.pop('text.transformer.embeddings.position_ids', None)  # transformers before 4.31
    load_strictly(model, state, path)
    preprocess = pretrained_config(name, tag)
    return SharedModel(
        name=f'{name} {tag or digest[:12]}',
        digest=digest,
        model=model.eval().requires_grad_(False).to(device),
        tokenize=tokenize,
        mean=tuple(preprocess.get('mean', open_clip.OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get('std', open_clip.OPENAI_DATASET_STD)),
    )


def import_open_clip() -> Any:
    """Import open_clip.

    Raises:
        EncoderUnavailable: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise EncoderUnavailable(
            f'encoder open_clip needs {error.name}: pip install open_clip_torch, '
            'or use `encoder: imagenet`'
        ) from error
    return open_clip


def pretrained_config(name: str, tag: str | None) -> dict[str, Any]:
    """Return what open_clip knows of a tag; of the model's first tag where none is given."""
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag is None and tags:
        tag = tags[0]
    return open_clip.get_pretrained_cfg(name, tag) if tag else {}


def check_model(name: str, tag: str | None) -> dict[str, Any]:
    """Return the configuration of a model that can be a dense encoder with these weights.

    Raises:
        EncoderUnavailable: the model or tag is unknown to this open_clip, the image tower is not
            its VisionTransformer, or model and tag differ in their activation.
    """
    open_clip = import_open_clip()
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise EncoderUnavailable(
            f'{library()} has no model {name!r}, '
            '`python -c "import open_clip; print(open_clip.list_models())"` lists them'
        )
    vision = config['vision_cfg']
    if 'timm_model_name' in vision:
        raise EncoderUnavailable(
            f'{name} has an image tower of timm ({vision["timm_model_name"]}), which is not '
            'supported yet: choose a ViT of open_clip itself, such as ViT-B-16-quickgelu'
        )
    if not isinstance(vision['layers'], int) or vision.get('attentional_pool'):
        kind = 'an attentional pooler' if isinstance(vision['layers'], int) else 'a ResNet tower'
        raise EncoderUnavailable(f'{name} has {kind}, its patches are not in the joint space')
    special = ('block_type', 'qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner')
    if any(vision.get(key) for key in (*special, 'scale_attn', 'scale_fc')):
        raise EncoderUnavailable(f'{name} has blocks of a special kind, which are not supported')
    if tag is not None:
        check_tag(name, tag, bool(config.get('quick_gelu')))
    return config


def check_tag(name: str, tag: str, has_quickgelu: bool) -> None:
    """Raise EncoderUnavailable where a tag is unknown or was trained with another activation."""
    open_clip = import_open_clip()
    needs_quickgelu = open_clip.get_pretrained_cfg(name, tag).get('quick_gelu', False)
    if (needs_quickgelu or tag in QUICKGELU_TAGS) and not has_quickgelu:
        raise EncoderUnavailable(
            f'weights {tag!r} were trained with QuickGELU and {name} has GELU: '
            f'use the model {name}-quickgelu'
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        known = f'there are {", ".join(tags)}' if tags else 'give a checkpoint file'
        raise EncoderUnavailable(f'{library()} has no weights {tag!r} of {name}: {known}')


def library() -> str:
    """Return the name and version of open_clip."""
    from open_clip.version import __version__

    return f'open_clip {__version__}'


def build_model(name: str, config: dict[str, Any], text_folder: Path) -> tuple[Any, Any]:
    """Build the model with random weights, and its tokenizer, without touching the network.

    Args:
        name: of the model.
        config: of the model, as open_clip has it.
        text_folder: where the configuration and tokenizer of a Hugging Face text tower were
            downloaded to.

    Raises:
        EncoderUnavailable: the model needs those and they are absent.
    """
    open_clip = import_open_clip()
    text = config['text_cfg']
    if needs_hub_text(config):
        if not text_folder.is_dir():
            raise absent(f'tokenizer of {name}', 'open_clip')
        for key in ('hf_model_name', 'hf_tokenizer_name'):
            if key in text:
                text[key] = str(text_folder)
        text['hf_model_pretrained'] = False
    custom_text = config.pop('custom_text', False) or 'hf_model_name' in text
    model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    context = text.get('context_length', 77)
    if 'hf_tokenizer_name' in text:
        options = text.get('tokenizer_kwargs') or {}
        return model, open_clip.HFTokenizer(str(text_folder), context_length=context, **options)
    return model, open_clip.SimpleTokenizer(context_length=context)


def needs_hub_text(config: dict[str, Any]) -> bool:
    """Tell whether the text tower or its tokenizer come from the Hugging Face hub."""
    return bool({'hf_model_name', 'hf_tokenizer_name'} & set(config['text_cfg']))
