"""Names that compete for every pixel: their logits at any size, and the label each pixel gets.

As published for dense CLIP (Wang et al., SCLIP, ECCV 2024): the logits of every name are resized to
the image, THEN come the softmax over all names, the largest of a class's names and the threshold.
On the patch grid the order would favour background. A few million values are worked on at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.config import BackgroundConfig, FusionConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.fusion import subclass_weights, taking_part
from llmseg_ros.method.patches import PatchAxis, weights_at

if TYPE_CHECKING:
    import torch

VALUES_AT_ONCE = 1 << 22  # of the CPU: 16 MB, which its caches help with; of a GPU 16 times as many
LEAST_PROBABILITY = 1e-30
TIE = 1e-6  # a word with the text of a class wins over it as published, whatever the rounding


@dataclass(frozen=True, eq=False)
class NameLogits:
    """Logits of all names, and of each class's own name where that counts for itself.

    Attributes:
        names_hmw: on the patches; first the background words, then the names of the candidates.
        words: number of background words.
        groups: (candidates, names of each) of the names that follow.
        valid_k: (k,) bool, False for a candidate that didn't pass: its names have no say.
        axes: where the patches lie.
        own_hlw: with `chils`, of the words and of the candidates' own names.
    """

    names_hmw: torch.Tensor
    words: int
    groups: tuple[tuple[int, int], ...]
    valid_k: torch.Tensor
    axes: tuple[PatchAxis, PatchAxis]
    own_hlw: torch.Tensor | None = None


class ClassGroup(NamedTuple):
    """The (g, n, d) descriptors of some candidates, own names first, and which aren't padding."""

    descriptors_gnd: torch.Tensor
    members_gn: torch.Tensor


class Tile(NamedTuple):
    """A part of an image: (l, rows, columns) label logits, background first."""

    rows: slice
    columns: slice
    logits_lyx: torch.Tensor


def compare_names(
    patches_hwd: torch.Tensor,
    pooled_d: torch.Tensor,
    groups: Sequence[ClassGroup],
    valid_k: torch.Tensor,
    words_bd: torch.Tensor,
    axes: tuple[PatchAxis, PatchAxis],
    config: FusionConfig,
) -> NameLogits:
    """Compare patches with all names: logit_scale * similarity.

    `paper`, `reference` and `mean` leave one fused name a class, with `max` each stands for itself,
    and so with `chils`, where the class's own name counts beside (Novack et al., ICML 2023).

    Args:
        patches_hwd: (h, w, d), of length 1 unless their encoder says that the length counts.
        pooled_d: (d,), of length 1.
        groups: of the candidates, group after group.
        valid_k: (k,) bool, False for a candidate that didn't pass.
        words_bd: (b, d) of background words, b 0 where there are none.
        axes: where the patches lie.
        config: the fusion.
    """
    import torch

    members = [taking_part(group.members_gn, config) for group in groups]
    descriptors = [group.descriptors_gnd for group in groups]
    if config.name not in ('max', 'chils'):
        weights = [
            subclass_weights(rows_gnd, members_gn, pooled_d, config).nan_to_num()
            for rows_gnd, members_gn in zip(descriptors, members, strict=True)
        ]
        descriptors = [
            torch.einsum('gn,gnd->gd', weights_gn, rows_gnd)[:, None]
            for weights_gn, rows_gnd in zip(weights, descriptors, strict=True)
        ]
        members = [members_gn.any(dim=1, keepdim=True) for members_gn in members]
    rows_md = torch.cat([words_bd, *(rows_gnd.flatten(0, 1) for rows_gnd in descriptors)])
    taking_m = torch.cat([members_gn.flatten() for members_gn in members])
    own_hlw = None
    if config.name == 'chils':
        own_ld = torch.cat([words_bd, *(group.descriptors_gnd[:, 0] for group in groups)])
        own_hlw = scaled_products(own_ld, patches_hwd, valid_k, config)
    return NameLogits(
        scaled_products(rows_md, patches_hwd, taking_m, config),
        len(words_bd),
        tuple(tuple(members_gn.shape) for members_gn in members),
        valid_k,
        axes,
        own_hlw,
    )


def scaled_products(
    rows_md: torch.Tensor, patches_hwd: torch.Tensor, taking_m: torch.Tensor, config: FusionConfig
) -> torch.Tensor:
    """Return the (h, m, w) logits of names, the largest at each patch 0.

    What is taken off all names alike changes no softmax, and interpolates like them.

    Args:
        rows_md: (m, d) descriptors, those of words first.
        patches_hwd: (h, w, d).
        taking_m: bool of the last names, False for those that take no part.
        config: for the scale.
    """
    logits_hmw = config.logit_scale * (rows_md @ patches_hwd.transpose(1, 2))
    logits_hmw[:, len(rows_md) - len(taking_m) :].masked_fill_(~taking_m[:, None], ABSENT)
    return logits_hmw - logits_hmw.amax(dim=1, keepdim=True)


def label_tiles(
    names: NameLogits, shape: Sequence[int], background: BackgroundConfig
) -> Iterator[Tile]:
    """Yield the label logits of an image of a shape, part by part.

    A softmax over the labels of a pixel gives label probabilities.
    """
    height, width = shape
    rows_yh, columns_xw = (
        weights_at(axis, length) for axis, length in zip(names.axes, shape, strict=True)
    )
    patch_rows, count, _ = names.names_hmw.shape
    at_once = VALUES_AT_ONCE * (1 if names.names_hmw.device.type == 'cpu' else 16)
    step_x = min(width, max(1, at_once // (patch_rows * max(1, count))))
    step_y = min(height, max(1, at_once // (step_x * max(1, count))))
    for left in range(0, width, step_x):
        columns = slice(left, min(left + step_x, width))
        spread = [
            maps_hmw @ on_device(columns_xw[columns].T, maps_hmw)
            for maps_hmw in (names.names_hmw, names.own_hlw)
            if maps_hmw is not None
        ]
        for top in range(0, height, step_y):
            rows = slice(top, min(top + step_y, height))
            # of a few patch rows alone, which are all that weigh here
            used = rows_yh[rows].any(axis=0).nonzero()[0].tolist()
            weights_yh = on_device(rows_yh[rows][:, used], names.names_hmw)
            parts = [weigh_rows(weights_yh, maps_hmx, used) for maps_hmx in spread]
            yield Tile(rows, columns, label_logits(names, background, *parts))


def weigh_rows(
    weights_yh: torch.Tensor, maps_hmx: torch.Tensor, used: Sequence[int]
) -> torch.Tensor:
    """Return (y, m, x), the weighted sums of some rows of patches."""
    import torch

    first, last = used[0], used[-1]
    chosen = maps_hmx[first : last + 1]
    if len(used) <= last - first:
        chosen = torch.stack([maps_hmx[row] for row in used])
    return (weights_yh @ chosen.flatten(1)).unflatten(1, maps_hmx.shape[1:])


def on_device(weights: object, like: torch.Tensor) -> torch.Tensor:
    """Return a numpy array as a tensor where another is, and of its type."""
    import torch

    tensor: torch.Tensor = torch.from_numpy(weights)  # type: ignore[arg-type]
    return tensor.to(like, non_blocking=True)


def label_logits(
    names: NameLogits,
    background: BackgroundConfig,
    names_ymx: torch.Tensor,
    own_ylx: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the (l, y, x) label logits of pixels whose logits of names are given.

    A class has the largest of its names' probabilities, so has background of its words'. By
    `probability` it is also where the best class is less likely than `background.probability`.

    Args:
        names: whose they are.
        background: name and probability.
        names_ymx: logits; overwritten.
        own_ylx: with `chils`, those of the words and the candidates' own names.
    """
    import torch

    words = names.words
    best = [] if own_ylx is None else [own_ylx[:, words:]]
    classes_ykx = class_maxima(names_ymx[:, words:], names.groups)
    words_ybx = names_ymx[:, :words].clone()
    total_yx = names_ymx.exp_().sum(dim=1).clamp(min=LEAST_PROBABILITY).log_()
    if own_ylx is not None:
        words_ybx += own_ylx[:, :words]
        classes_ykx = classes_ykx + best[0]
        total_yx = total_yx + own_ylx.logsumexp(dim=1)
    classes_ykx -= total_yx[:, None]
    classes_ykx = classes_ykx.masked_fill_(~names.valid_k[:, None], ABSENT)
    background_yx = torch.full_like(total_yx, ABSENT)
    if words:
        background_yx = words_ybx.amax(dim=1) - total_yx + TIE
    if background.name == 'probability':
        background_yx = background_yx.clamp(
            min=math.log(max(background.probability, LEAST_PROBABILITY))
        )
    return torch.cat([background_yx[:, None], classes_ykx], dim=1).transpose(0, 1)


def class_maxima(names_ymx: torch.Tensor, groups: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return (y, k, x), the largest of the values of every class's names."""
    import torch

    sizes = [classes * names for classes, names in groups]
    return torch.cat(
        [
            part_ymx.unflatten(1, group).amax(dim=2)
            for part_ymx, group in zip(names_ymx.split(sizes, dim=1), groups, strict=True)
        ],
        dim=1,
    )


def labels_at(
    names: NameLogits,
    shape: Sequence[int],
    background: BackgroundConfig,
    labels_j: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the label logits of an image of a shape, (l, H, W), or of some labels, (j, H, W)."""
    import torch

    rows, row = [], []
    for tile in label_tiles(names, shape, background):
        logits_jyx = tile.logits_lyx if labels_j is None else tile.logits_lyx[labels_j]
        row.append(logits_jyx)
        if tile.rows.stop == shape[0]:
            rows.append(torch.cat(row, dim=1))
            row = []
    return torch.cat(rows, dim=2)


def patch_labels(names: NameLogits, background: BackgroundConfig) -> torch.Tensor:
    """Return the label logits of the patches themselves, (l, h, w)."""
    return label_logits(names, background, names.names_hmw.clone(), names.own_hlw)
