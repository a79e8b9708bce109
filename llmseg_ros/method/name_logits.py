"""Names that compete for every pixel: their logits at any size, and the label each pixel gets.

As published for dense CLIP (Wang et al., SCLIP, ECCV 2024): the logits of every name are resized to
the image, THEN come the softmax over all names, the largest of a class's names and the threshold.
On the patch grid the order would favour background. As much as fits a cache is worked on at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmseg_ros.config import BackgroundConfig, FusionConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.fusion import subclass_weights, taking_part
from llmseg_ros.method.patches import PatchAxis, linear_runs, weights_at

if TYPE_CHECKING:
    import torch

VALUES_OF_A_ROW = 1 << 18  # worked on by a CPU: 1 MB, which its caches hold
VALUES_ON_A_GPU = 1 << 26
SHORTEST_RUN = 3  # rows that are worth a second exp
LEAST_EXPONENT = -80.0
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


class Best(NamedTuple):
    """What labels are made of at pixels: exp(logit) of names, which are less than 1.

    Attributes:
        words_ybx: of the background words.
        classes_ykx: of the best name of every candidate.
        total_yx: of all names, added up.
    """

    words_ybx: torch.Tensor
    classes_ykx: torch.Tensor
    total_yx: torch.Tensor


class Tile(NamedTuple):
    """A part of an image: what its labels are made of, with `chils` the names' own logits, too."""

    rows: slice
    columns: slice
    best: Best
    own_ylx: torch.Tensor | None = None


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


def cut_tiles(names: NameLogits, shape: Sequence[int]) -> Iterator[Tile]:
    """Yield what the labels of an image of a shape are made of, part by part."""
    height, width = shape
    rows_yh, columns_xw = (
        weights_at(axis, length) for axis, length in zip(names.axes, shape, strict=True)
    )
    count = max(1, names.names_hmw.shape[1])
    on_cpu = names.names_hmw.device.type == 'cpu'
    runs = linear_runs(names.axes[0], height) if on_cpu else [(0, height)]
    # of a CPU as much as its caches hold, of a GPU 256 MB
    step_x = min(width, max(1, VALUES_OF_A_ROW // count)) if on_cpu else width
    step_x = step_x // 16 * 16 or step_x  # in whole vectors
    step_y = height if on_cpu else max(1, VALUES_ON_A_GPU // (step_x * count))
    for left in range(0, width, step_x):
        columns = slice(left, min(left + step_x, width))
        spread = [
            maps_hmw @ on_device(columns_xw[columns].T, maps_hmw)
            for maps_hmw in (names.names_hmw, names.own_hlw)
            if maps_hmw is not None
        ]
        for first, last in runs:
            for top in range(first, last, step_y):
                rows = slice(top, min(top + step_y, last))
                # of a few patch rows alone, which are all that weigh here
                used = rows_yh[rows].any(axis=0).nonzero()[0].tolist()
                weights_yh = on_device(rows_yh[rows][:, used], names.names_hmw)
                names_hmx, *own_hlx = (take_rows(maps_hmx, used) for maps_hmx in spread)
                best = best_by_pixel(names, names_hmx, weights_yh)
                own = [weigh_rows(weights_yh, maps_hlx) for maps_hlx in own_hlx]
                yield Tile(rows, columns, best, *own)


def best_by_pixel(names: NameLogits, maps_hmx: torch.Tensor, weights_yh: torch.Tensor) -> Best:
    """Reduce the logits of all names to the best of every class, at rows of pixels.

    On a CPU the rows are those of linear_runs: logits change by the same from row to row, so that
    one exp of the first row and one of the change do for all, with a product a row.

    Args:
        names: whose logits.
        maps_hmx: (h, m, x) on rows of patches.
        weights_yh: what these weigh at the rows of pixels.
    """
    rows, columns = len(weights_yh), maps_hmx.shape[2]
    if maps_hmx.device.type != 'cpu' or rows < SHORTEST_RUN:
        return reduce_names(names, weigh_rows(weights_yh, maps_hmx).exp_())
    ends_2mx = weigh_rows(weights_yh[[0, -1]], maps_hmx)
    if ends_2mx.min() < LEAST_EXPONENT:  # whose exp would be lost
        return reduce_names(names, weigh_rows(weights_yh, maps_hmx).exp_())
    values_1mx = ends_2mx[:1].exp()
    factor_1mx = ((ends_2mx[1:] - ends_2mx[:1]) / (rows - 1)).exp_()
    found = Best(
        maps_hmx.new_empty(rows, names.words, columns),
        maps_hmx.new_empty(rows, len(names.valid_k), columns),
        maps_hmx.new_empty(rows, columns),
    )
    for row in range(rows):
        add_up(names, values_1mx, Best(*(part[row : row + 1] for part in found)))
        values_1mx *= factor_1mx
    return found


def reduce_names(names: NameLogits, values_ymx: torch.Tensor) -> Best:
    """Reduce exp(logit) of names, (y, m, x), to what labels are made of."""
    rows, _, columns = values_ymx.shape
    found = Best(
        values_ymx.new_empty(rows, names.words, columns),
        values_ymx.new_empty(rows, len(names.valid_k), columns),
        values_ymx.new_empty(rows, columns),
    )
    add_up(names, values_ymx, found)
    return found


def add_up(names: NameLogits, values_ymx: torch.Tensor, found: Best) -> None:
    """Write what exp(logit) of names, (y, m, x), come to."""
    import torch

    found.words_ybx[:] = values_ymx[:, : names.words]
    torch.sum(values_ymx, dim=1, out=found.total_yx)
    first, column = 0, names.words
    for classes, each in names.groups:
        part_ygnx = values_ymx[:, column : column + classes * each].unflatten(1, (classes, each))
        torch.amax(part_ygnx, dim=2, out=found.classes_ykx[:, first : first + classes])
        first, column = first + classes, column + classes * each


def take_rows(maps_hmx: torch.Tensor, used: Sequence[int]) -> torch.Tensor:
    """Return some rows of (h, m, x) maps."""
    import torch

    first, last = used[0], used[-1]
    if len(used) > last - first:
        return maps_hmx[first : last + 1]
    return torch.stack([maps_hmx[row] for row in used])


def weigh_rows(weights_yh: torch.Tensor, maps_hmx: torch.Tensor) -> torch.Tensor:
    """Return (y, m, x), the weighted sums of rows of patches."""
    return (weights_yh @ maps_hmx.flatten(1)).unflatten(1, maps_hmx.shape[1:])


def on_device(weights: object, like: torch.Tensor) -> torch.Tensor:
    """Return a numpy array as a tensor where another is, and of its type."""
    import torch

    tensor: torch.Tensor = torch.from_numpy(weights)  # type: ignore[arg-type]
    return tensor.to(like, non_blocking=True)


def label_logits(
    names: NameLogits,
    background: BackgroundConfig,
    best: Best,
    own_ylx: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the (l, y, x) label logits of pixels, of which a softmax is label probabilities.

    A class has the largest of its names' probabilities, so has background of its words'. By
    `probability` it is also where the best class is less likely than `background.probability`.

    Args:
        names: whose they are.
        background: name and probability.
        best: of these pixels.
        own_ylx: with `chils`, logits of the words and the candidates' own names.
    """
    import torch

    words_ybx, classes_ykx, total_yx = (part.clamp(min=LEAST_PROBABILITY).log_() for part in best)
    if own_ylx is not None:
        words_ybx = words_ybx + own_ylx[:, : names.words]
        classes_ykx = classes_ykx + own_ylx[:, names.words :]
        total_yx = total_yx + own_ylx.logsumexp(dim=1)
    classes_ykx = classes_ykx - total_yx[:, None]
    classes_ykx.masked_fill_(~names.valid_k[:, None], ABSENT)
    background_yx = torch.full_like(total_yx, ABSENT)
    if names.words:
        background_yx = words_ybx.amax(dim=1) - total_yx + TIE
    if background.name == 'probability':
        least = max(background.probability, LEAST_PROBABILITY)
        background_yx = background_yx.clamp(min=math.log(least))
    return torch.cat([background_yx[:, None], classes_ykx], dim=1).transpose(0, 1)


def labels_at(
    names: NameLogits,
    shape: Sequence[int],
    background: BackgroundConfig,
    labels_j: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the label logits of an image of a shape, (l, H, W), or of some labels, (j, H, W)."""
    import torch

    rows, row = [], []
    for tile in cut_tiles(names, shape):
        logits_lyx = label_logits(names, background, tile.best, tile.own_ylx)
        row.append(logits_lyx if labels_j is None else logits_lyx[labels_j])
        if tile.rows.stop == shape[0]:
            rows.append(torch.cat(row, dim=1))
            row = []
    return torch.cat(rows, dim=2)


def patch_labels(names: NameLogits, background: BackgroundConfig) -> torch.Tensor:
    """Return the label logits of the patches themselves, (l, h, w)."""
    best = reduce_names(names, names.names_hmw.exp())
    return label_logits(names, background, best, names.own_hlw)
