"""Fusing a class's subclass descriptors into one map per class, for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmseg_ros.config import FusionConfig

if TYPE_CHECKING:
    import torch

# Subclass sets differ in size: descriptors are padded to (c, n, d), members_cn says which are real.


def subclass_weights(
    descriptors_cnd: torch.Tensor,
    members_cn: torch.Tensor,
    pooled_d: torch.Tensor,
    config: FusionConfig,
) -> torch.Tensor:
    """Weigh every subclass by how well it goes with the image as a whole.

    Args:
        descriptors_cnd: (c, n, d), rows of length 1; T in the paper.
        members_cn: (c, n) bool, False where a row is padding; at least one True a class.
        pooled_d: (d,) of length 1, the image descriptor v.
        config: `paper` is w = softmax_n(max_d(v * T) / temperature) (Sun et al., section 2.3);
            `reference` is w = softmax_n(T v / temperature), as their published code has it;
            `mean` is 1/n.

    Returns:
        (c, n) weights, each row summing to 1, zero on padding.
    """
    import torch

    if config.name == 'paper':
        relevance_cn = (descriptors_cnd * pooled_d).amax(dim=-1)
    elif config.name == 'reference':
        relevance_cn = descriptors_cnd @ pooled_d
    elif config.name == 'mean':
        relevance_cn = torch.zeros_like(members_cn, dtype=descriptors_cnd.dtype)
    else:
        raise ValueError(f'fusion {config.name!r} has no subclass weights')
    relevance_cn = (relevance_cn / config.temperature).masked_fill(~members_cn, -torch.inf)
    return relevance_cn.softmax(dim=-1)


def class_maps(
    patches_hwd: torch.Tensor,
    pooled_d: torch.Tensor,
    descriptors_cnd: torch.Tensor,
    members_cn: torch.Tensor,
    config: FusionConfig,
) -> torch.Tensor:
    """Compare patches with every class's descriptors.

    `paper`, `reference` and `mean` fuse the descriptors first: T^r = sum_n w_n T_n, not
    normalised again, and the map is norm(patches) T^r (Sun et al., section 2.3). `max` compares
    the patches with every subclass and keeps the best.

    Args:
        patches_hwd: (h, w, d), of length 1 unless their encoder says that the length counts.
        pooled_d: (d,), of length 1.
        descriptors_cnd: (c, n, d), of length 1.
        members_cn: (c, n) bool, False where a row is padding.
        config: the fusion.

    Returns:
        (h, w, c) similarities.
    """
    import torch

    if config.name == 'max':
        maps_hwcn = torch.einsum('hwd,cnd->hwcn', patches_hwd, descriptors_cnd)
        return maps_hwcn.masked_fill(~members_cn, -torch.inf).amax(dim=-1)
    weights_cn = subclass_weights(descriptors_cnd, members_cn, pooled_d, config)
    fused_cd = torch.einsum('cn,cnd->cd', weights_cn, descriptors_cnd)
    return patches_hwd @ fused_cd.T
