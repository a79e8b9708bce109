"""Image towers of timm in open_clip's models as dense encoders.

Patches of the last block are made as in dense_attention. What stands for the projection of CLIP
depends on how a tower pools:

| pool | image embedding | feature of a patch x |
|---|---|---|
| token | head(LN(CLS)) | head(LN(x)) |
| avg | head(LN(mean of the patches)) | head(LN(x)) |
| map | head(pool of all tokens, LN before) | head(pool of LN(x) alone), see pool_each |
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from llmseg_ros.encoders import timm_attention
from llmseg_ros.encoders.dense_attention import RESIDUAL_MODES, attend, neighbour_bias
from llmseg_ros.encoders.timm_attention import finish_block, join_heads, pool_each, split_heads
from llmseg_ros.encoders.vit import interpolate_positions

if TYPE_CHECKING:
    import torch
    from torch import nn

TRUNKS = ('VisionTransformer', 'Eva')
POOLS = ('token', 'avg', 'map')
FILLING = ('normal_', 'uniform_', 'zero_', 'fill_', 'erfinv_', 'mul_', 'add_', 'div_', 'clamp_')


class Family(NamedTuple):
    """Models with the same kind of tower.

    Attributes:
        name: of the family.
        marks: one of these is in the name of the model.
        tower: what is particular about it.
        source: the paper.
    """

    name: str
    marks: tuple[str, ...]
    tower: str
    source: str


FAMILIES = (
    Family('SigLIP 2', ('SigLIP2',), 'attention pool, no CLS', 'Tschannen et al., 2025'),
    Family('SigLIP', ('SigLIP', 'siglip'), 'attention pool, no CLS', 'Zhai et al., ICCV 2023'),
    Family('PE-Core', ('PE-Core',), 'attention pool, RoPE', 'Bolya et al., NeurIPS 2025'),
    Family('EVA-02-CLIP E', ('EVA02-E',), 'CLS, norms after', 'Sun et al., 2023'),
    Family('EVA-02-CLIP', ('EVA02',), 'CLS, RoPE, SwiGLU', 'Sun et al., 2023'),
    Family('EVA-01-CLIP', ('EVA01',), 'CLS', 'Sun et al., 2023'),
    Family('MobileCLIP B', ('MobileCLIP-B', 'MobileCLIP2-B'), 'CLS, convolutional stem',
           'Vasu et al., CVPR 2024'),
    Family('MobileCLIP 2 L', ('MobileCLIP2-L',), 'CLS', 'Faghri et al., TMLR 2025'),
    Family('ViTamin', ('ViTamin',), 'mean of patches, convolutional stages',
           'Chen et al., CVPR 2024'),
)  # fmt: skip
"""The first whose mark is in a name has it."""


def family_of(model: str) -> Family | None:
    """Return the family of a model's name, None where it is none of those above."""
    return next((f for f in FAMILIES if any(mark in model for mark in f.marks)), None)


def is_timm(visual: nn.Module) -> bool:
    """Tell whether an image tower of open_clip is one of timm."""
    return hasattr(visual, 'trunk')


def why_not(visual: nn.Module) -> str:
    """Say what a tower has that hinders dense features; empty where nothing does."""
    trunk = visual.trunk
    kind = type(trunk).__name__
    if kind not in TRUNKS:
        return f'a {kind} of timm as image tower, no plain ViT'
    if (pool := trunk.global_pool) not in POOLS or 'pool' in dict(visual.head.named_children()):
        return f'the pool {pool or "of open_clip"!r}, from which patches have no way to the text'
    rope = getattr(trunk, 'rope', None)
    if rope is not None and type(rope).__name__ != 'RotaryEmbeddingCat':
        return f'rotary positions of a special kind ({type(rope).__name__})'
    return timm_attention.why_not(trunk.blocks, trunk.attn_pool)


def build_tower(config: dict[str, Any]) -> nn.Module:
    """Build the image tower of a model's configuration without memory for its weights."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    with without_memory():
        return _build_vision_tower(config['embed_dim'], CLIPVisionCfg(**config['vision_cfg']))


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Within this block modules are built with shapes alone: without memory, without numbers."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        """Leaves out what fills weights: without memory it takes most of the time, for nothing."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.__name__ in FILLING and args:
                return args[0]
            return func(*args, **(kwargs or {}))

    with torch.device('meta'), Unfilled():
        yield


def patch_side(visual: nn.Module) -> int:
    """Return the side of a patch in pixels, with what a convolutional stem shrinks."""
    side: int = visual.trunk.patch_embed.feat_ratio()
    return side


def has_rope(visual: nn.Module) -> bool:
    """Tell whether a tower has rotary positions."""
    return getattr(visual.trunk, 'rope', None) is not None


def grid_constants(
    visual: nn.Module, grid: tuple[int, int], how: str, attention: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return what a tower needs of a patch grid.

    Args:
        visual: the tower.
        grid: rows and columns of patches.
        how: position embeddings are interpolated, see interpolate_positions.
        attention: a mode of dense_attention.
        device: of the result.

    Returns:
        Position embeddings, (h*w, d) or, with those of the prefix tokens before, (p + h*w, d);
        the neighbour bias of naclip; sines and cosines of rotary positions, (h*w, 2 * e).
    """
    import torch

    trunk = visual.trunk
    prefix: int = trunk.num_prefix_tokens
    if trunk.pos_embed is None:
        positions_nd = torch.zeros(grid[0] * grid[1], trunk.embed_dim)
    else:
        positions_nd = trunk.pos_embed[0].detach().float().cpu()
        own = 0 if trunk.no_embed_class else prefix
        positions_nd = interpolate_positions(positions_nd, grid, how, own)
    bias_nn = neighbour_bias(grid, device, prefix) if attention == 'naclip' else None
    rope_ne = None
    if has_rope(visual):
        rope = copy.deepcopy(trunk.rope)
        rope.update_feat_shape(list(grid))
        rope_ne = rope.get_embed(shape=list(grid)).detach().to(device)
    return positions_nd.to(device), bias_nn, rope_ne


def dense_forward(
    visual: nn.Module,
    images_bchw: torch.Tensor,
    mode: str,
    positions_nd: torch.Tensor,
    bias_nn: torch.Tensor | None = None,
    rope_ne: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode images with the last block's attention changed for patches, unchanged for pooled.

    Args:
        visual: the tower.
        images_bchw: (b, 3, H, W), both sides whole patches.
        mode: one of dense_attention.MODES.
        positions_nd: of grid_constants, as the two that follow.
        bias_nn: naclip's.
        rope_ne: of towers with rotary positions.

    Returns:
        Patch features (b, h*w, d) and image embeddings (b, d), projected, not normalised.
    """
    trunk = visual.trunk
    x = embed(trunk, images_bchw, positions_nd)
    *blocks, last = trunk.blocks
    for block in blocks:  # not block itself, whose rotary positions can't be exported
        attended = attend('vanilla', *split_heads(block, x, rope_ne))
        x = finish_block(block, x, join_heads(block, attended))
    q, k, v = split_heads(last, x, rope_ne)
    first = slice(0, 1 if trunk.global_pool == 'token' else None)  # CLS needs no other's output
    plain = attend('vanilla', q[:, :, first], k, v)
    pooled = finish_block(last, x[:, first], join_heads(last, plain))
    changed = join_heads(last, attend(mode, q, k, v, bias_nn))
    dense = finish_block(last, x, changed) if mode in RESIDUAL_MODES else changed
    dense = trunk.norm(dense[:, trunk.num_prefix_tokens :])
    if trunk.attn_pool is not None:
        dense = pool_each(trunk.attn_pool, dense)
    dense = visual.head(trunk.head(trunk.fc_norm(dense)))
    return dense, visual.head(trunk.forward_head(trunk.norm(pooled)))


def embed(trunk: nn.Module, images_bchw: torch.Tensor, positions_nd: torch.Tensor) -> torch.Tensor:
    """Return the input of the first block, prefix tokens before the patches, (b, n, d)."""
    import torch

    # not patch_embed itself, which takes images of one size
    layer = trunk.patch_embed
    stem = getattr(layer, 'backbone', None)
    x = layer.proj(images_bchw if stem is None else stem(images_bchw)).flatten(2).transpose(1, 2)
    x = getattr(layer, 'norm', torch.nn.Identity())(x)
    positions_nd = positions_nd.to(x.dtype)
    if positions_nd.shape[0] == x.shape[1]:
        x = x + positions_nd
    tokens = (getattr(trunk, name, None) for name in ('cls_token', 'reg_token'))
    prefix = [token.to(x.dtype).expand(x.shape[0], -1, -1) for token in tokens if token is not None]
    x = torch.cat([*prefix, x], dim=1)
    if positions_nd.shape[0] == x.shape[1] and prefix:
        x = x + positions_nd
    return trunk.norm_pre(x)
