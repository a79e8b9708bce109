"""The parts of timm's transformer blocks and attention pools that dense features need apart.

Names of axes: b images, n tokens, h heads, e width of a head, d width of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

ATTENTIONS = ('Attention', 'AttentionRope', 'EvaAttention')
PRE_NORM, POST_NORM = ('Block', 'EvaBlock'), ('EvaBlockPostNorm',)


def split_heads(
    block: nn.Module, x_bnd: torch.Tensor, rope_ne: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Return q, k and v of a block's input, each (b, h, n, e), q and k as they are multiplied.

    That is normalised where the block does so, and those of patches rotated by their position.

    Args:
        block: of timm.
        x_bnd: its input.
        rope_ne: sines and cosines of the patches' positions, (patches, 2 * e).
    """
    import torch

    attention = block.attn
    if type(block).__name__ not in POST_NORM:
        x_bnd = block.norm1(x_bnd)
    if attention.qkv is None:
        parts = attention.q_proj(x_bnd), attention.k_proj(x_bnd), attention.v_proj(x_bnd)
    else:
        qkv = attention.qkv(x_bnd)
        if getattr(attention, 'q_bias', None) is not None:
            qkv = qkv + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        parts = qkv.chunk(3, dim=-1)
    q, k, v = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    q, k = attention.q_norm(q), attention.k_norm(k)
    if rope_ne is not None:
        prefix, half = attention.num_prefix_tokens, attention.rotate_half
        q, k = (rotate(part, rope_ne, prefix, half).type_as(v) for part in (q, k))
    return q, k, v


def rotate(x_bhne: torch.Tensor, rope_ne: torch.Tensor, prefix: int, half: bool) -> torch.Tensor:
    """Rotate queries or keys of patches by their position; those of prefix tokens stay.

    The same as timm's apply_rot_embed_cat, which can't be exported: it asks for the shape.

    Args:
        x_bhne: queries or keys.
        rope_ne: sines and cosines, (patches, 2 * e).
        prefix: number of prefix tokens.
        half: pairs are the halves of a head, else neighbours.
    """
    import torch

    patches = x_bhne[:, :, prefix:]
    sin_ne, cos_ne = rope_ne.chunk(2, dim=-1)
    if half:
        first, second = patches.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(3)
    return torch.cat([x_bhne[:, :, :prefix], patches * cos_ne + turned * sin_ne], dim=2)


def join_heads(block: nn.Module, mixed_bhne: torch.Tensor) -> torch.Tensor:
    """Return what a block's attention adds to its input, (b, n, d): O, scaled or normalised."""
    attention = block.attn
    joined = attention.proj(attention.norm(mixed_bhne.transpose(1, 2).flatten(2)))
    if type(block).__name__ in POST_NORM:
        return block.norm1(joined)
    return scale(block, 1, joined)


def finish_block(block: nn.Module, x_bnd: torch.Tensor, o_bnd: torch.Tensor) -> torch.Tensor:
    """Add the residual, then the feed-forward network and its residual."""
    x_bnd = x_bnd + o_bnd
    if type(block).__name__ in POST_NORM:
        return x_bnd + block.norm2(block.mlp(x_bnd))
    return x_bnd + scale(block, 2, block.mlp(block.norm2(x_bnd)))


def scale(block: nn.Module, which: int, x_bnd: torch.Tensor) -> torch.Tensor:
    """Apply the layer scale of a block's attention (1) or feed-forward network (2)."""
    layer = getattr(block, f'ls{which}', None)
    if layer is not None:
        return layer(x_bnd)
    gamma_d = getattr(block, f'gamma_{which}', None)
    return x_bnd if gamma_d is None else gamma_d * x_bnd


def pool_each(pool: nn.Module, x_bnd: torch.Tensor) -> torch.Tensor:
    """Return what an attention pool answers for each token as if it were the only one, (b, n, d).

    With one token the attention is 1 whatever query and key, so that the value path remains:
    y = W_o (W_v x + b_v) + b_o, then y + MLP(LN(y)). It is MaskCLIP's step (Zhou et al., ECCV 2022)
    from CLIP's attention pool to this one, which has a feed-forward network after it.
    """
    from torch.nn.functional import linear

    width = pool.kv.out_features // 2
    bias = None if pool.kv.bias is None else pool.kv.bias[width:]
    y_bnd = pool.proj(linear(x_bnd, pool.kv.weight[width:], bias))
    return y_bnd if pool.mlp is None else y_bnd + pool.mlp(pool.norm(y_bnd))


def why_not(blocks: nn.Module, pool: nn.Module | None) -> str:
    """Say what hinders dense features in blocks or an attention pool; empty where nothing does."""
    for block in blocks:
        kind, attention = type(block).__name__, type(block.attn).__name__
        if kind not in (*PRE_NORM, *POST_NORM) or attention not in ATTENTIONS:
            return f'blocks of a special kind ({kind}, {attention})'
        if block.attn.gate is not None or getattr(block.attn, 'num_kv_groups', 1) > 1:
            return 'gated or grouped attention'
    if pool is None:
        return ''
    if type(pool).__name__ != 'AttentionPoolLatent' or pool.pos_embed is not None:
        return f'an attention pool of a special kind ({type(pool).__name__})'
    return '' if pool.latent_len == 1 else f'an attention pool with {pool.latent_len} queries'
