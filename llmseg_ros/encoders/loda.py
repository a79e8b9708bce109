"""LoDA pooling: locality-driven alignment (Yi et al., CVPR 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def loda_pool(
    tokens_bnd: torch.Tensor, k: int, mask_bn: torch.Tensor | None = None
) -> torch.Tensor:
    """Average the k strongest tokens of every channel.

    Args:
        tokens_bnd: (b, n, d) float tokens.
        k: tokens kept per channel; a row with fewer keeps all it has.
        mask_bn: (b, n) bool, True where a token counts; None where all do.

    Returns:
        (b, d) pooled tokens, not normalised; zeros for a row without a token.

    Raises:
        ValueError: k is below 1, or n is 0.
    """
    import torch

    if k < 1 or tokens_bnd.shape[1] == 0:
        raise ValueError(f'LoDA needs k >= 1 and a token, got k {k}, {tokens_bnd.shape[1]} tokens')
    k = min(k, tokens_bnd.shape[1])
    if mask_bn is None:
        return tokens_bnd.topk(k, dim=1).values.mean(dim=1)
    strongest_bkd = tokens_bnd.masked_fill(~mask_bn[..., None], -torch.inf).topk(k, dim=1).values
    kept_b = mask_bn.sum(dim=1).clamp(max=k)
    is_kept_bk = torch.arange(k, device=mask_bn.device) < kept_b[:, None]
    total_bd = strongest_bkd.masked_fill(~is_kept_bk[..., None], 0).sum(dim=1)
    return total_bd / kept_b.clamp(min=1)[:, None]
