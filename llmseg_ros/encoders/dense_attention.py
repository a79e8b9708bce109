"""Attention of the last CLIP block, changed without training so that patches stay where they are.

Every mode mixes the values v with weights A made from queries q and keys k, all of shape
(b, heads, n, e), where token 0 is CLS and s = e**-0.5:

| mode | A | what follows | source |
|---|---|---|---|
| vanilla | softmax(s q k^T) | residual, FFN | Radford et al., ICML 2021 |
| maskclip | identity | residual, FFN | Zhou et al., ECCV 2022 |
| value | identity | nothing | MaskCLIP as ClearCLIP's and NACLIP's authors have it |
| sclip | softmax(s q q^T) + softmax(s k k^T) | residual, FFN | Wang et al., ECCV 2024 |
| clearclip | softmax(s q q^T) | nothing | Lan et al., ECCV 2024 |
| naclip | softmax(s k k^T + omega) | nothing | Hajimiri et al., WACV 2025 |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MODES = ('vanilla', 'maskclip', 'value', 'sclip', 'clearclip', 'naclip')
RESIDUAL_MODES = ('vanilla', 'maskclip', 'sclip')  # the others drop the residual and the FFN
NEIGHBOUR_STD = 5.0  # patches


def neighbour_bias(
    grid: tuple[int, int], device: torch.device | str = 'cpu', prefix: int = 1
) -> torch.Tensor:
    """Return NACLIP's omega for a patch grid (Hajimiri et al., WACV 2025).

    omega_ij = exp(-|p_i - p_j|^2 / (2 * 5^2)) for patches at p_i and p_j, and 0 in the row and the
    column of the prefix tokens: CLS, where there are any registers, where there is none nothing.

    Returns:
        (prefix + h*w, prefix + h*w) float32, prefix tokens first.
    """
    import torch

    # the Gaussian of a squared distance is the product of those of its rows and its columns
    falloffs = []
    for length in grid:
        position = torch.arange(length, dtype=torch.float32, device=device)
        distance = position[:, None] - position
        falloffs.append(torch.exp(-(distance**2) / (2 * NEIGHBOUR_STD**2)))
    return torch.nn.functional.pad(torch.kron(*falloffs), (prefix, 0, prefix, 0))


def attend(
    mode: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return A·v of the mode.

    Args:
        mode: one of MODES.
        q: (b, heads, n, e) queries.
        k: (b, heads, n, e) keys.
        v: (b, heads, n, e) values.
        bias: (n, n) omega of neighbour_bias, for naclip.

    Returns:
        (b, heads, n, e).

    Raises:
        ValueError: the mode is unknown, or naclip has no bias.
    """
    # the fused kernel scales by e**-0.5 and never holds the n x n weights of all heads
    from torch.nn.functional import scaled_dot_product_attention as softmax_attention

    if mode == 'vanilla':
        return softmax_attention(q, k, v)
    if mode in ('maskclip', 'value'):
        return v
    if mode == 'sclip':
        return softmax_attention(q, q, v) + softmax_attention(k, k, v)
    if mode == 'clearclip':
        return softmax_attention(q, q, v)
    if mode == 'naclip' and bias is not None:
        return softmax_attention(k, k, v, attn_mask=bias.to(k.dtype))
    raise ValueError(f'attention mode {mode!r}: expected one of {", ".join(MODES)}, naclip biased')
