"""Fusing a class's subclass descriptors into one map per class, for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmseg_ros.config import FusionConfig

if TYPE_CHECKING:
    import torch

# Subclass sets differ in size: descriptors are padded to (c, n, d), members_cn says which are real.
# The class's own name comes first. A class without any member takes no part: its map is the least.


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
    """Compare patches with every class.

    Args:
        patches_hwd: (h, w, d), of length 1 unless their encoder says that the length counts.
        pooled_d: (d,), of length 1.
        descriptors_cnd: (c, n, d), of length 1, the class's own name first.
        members_cn: (c, n) bool, False where a row is padding.
        config: the fusion.

    Returns:
        (h, w, c) similarities, with `chils` probabilities.
    """
    if config.name == 'chils':
        return chils_maps(patches_hwd, descriptors_cnd, members_cn, config)
    return name_maps(patches_hwd, pooled_d, descriptors_cnd, members_cn, config).amax(dim=-1)


def name_maps(
    patches_hwd: torch.Tensor,
    pooled_d: torch.Tensor,
    descriptors_cnd: torch.Tensor,
    members_cn: torch.Tensor,
    config: FusionConfig,
) -> torch.Tensor:
    """Compare patches with the names that stand for each class.

    `paper`, `reference` and `mean` fuse them into one: T^r = sum_n w_n T_n, not normalised again,
    and the map is norm(patches) T^r (Sun et al., section 2.3). With `max` each stands for itself.

    Returns:
        (h, w, c, 1 or n) similarities, -inf for padding.
    """
    import torch

    members_cn = taking_part(members_cn, config)
    if config.name == 'max':
        maps_hwcn = torch.einsum('hwd,cnd->hwcn', patches_hwd, descriptors_cnd)
        return maps_hwcn.masked_fill(~members_cn, -torch.inf)
    weights_cn = subclass_weights(descriptors_cnd, members_cn, pooled_d, config)
    fused_cd = torch.einsum('cn,cnd->cd', weights_cn, descriptors_cnd)
    maps_hwc = patches_hwd @ fused_cd.T
    return maps_hwc.masked_fill(~members_cn.any(dim=-1), -torch.inf)[..., None]


def chils_maps(
    patches_hwd: torch.Tensor,
    descriptors_cnd: torch.Tensor,
    members_cn: torch.Tensor,
    config: FusionConfig,
) -> torch.Tensor:
    """Multiply P(class name) with the P(subclass) of the class's best subclass.

    P(subclass) is a softmax over the subclasses of all classes, P(class name) another over the
    class names, both of logit_scale * similarity (Novack et al., CHiLS, ICML 2023, applied to
    every patch).

    Returns:
        (h, w, c) products, 0 for a class without members; over c they sum to at most 1.
    """
    import torch

    maps_hwcn = config.logit_scale * torch.einsum('hwd,cnd->hwcn', patches_hwd, descriptors_cnd)
    absent_c1 = ~members_cn[:, :1]
    names_hwc1 = softmax_of_all(maps_hwcn[..., :1].masked_fill(absent_c1, -torch.inf))
    outside_cn = ~taking_part(members_cn, config)
    subclasses_hwcn = softmax_of_all(maps_hwcn.masked_fill(outside_cn, -torch.inf))
    return names_hwc1[..., 0] * subclasses_hwcn.amax(dim=-1)


def taking_part(members_cn: torch.Tensor, config: FusionConfig) -> torch.Tensor:
    """Leave the class names out where `superclass` is off; a class without subclasses keeps its."""
    if config.superclass:
        return members_cn
    kept_cn = members_cn.clone()
    kept_cn[:, 0] &= ~members_cn[:, 1:].any(dim=-1)
    return kept_cn


def softmax_of_all(logits_hwcn: torch.Tensor) -> torch.Tensor:
    """Take the softmax over all names of all classes, (h, w, c, n)."""
    return logits_hwcn.flatten(2).softmax(dim=-1).unflatten(2, logits_hwcn.shape[2:])
