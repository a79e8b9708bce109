"""Images through a tower in batches, where they are of one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

IMAGES_AT_ONCE = 8  # at most, so that their maps find room in the memory of a small GPU


def run_in_batches(
    tower: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    inputs: Sequence[torch.Tensor],
    at_once: int,
) -> list[tuple[torch.Tensor, ...]]:
    """Run a tower on several inputs, side by side where they are of one shape.

    Args:
        tower: from (b, ...) to tensors of the same length.
        inputs: (n, ...) each, of any n.
        at_once: the largest b.

    Returns:
        What the tower makes of each input, in their order.
    """
    alike: dict[torch.Size, list[int]] = {}
    for index, images in enumerate(inputs):
        alike.setdefault(images.shape[1:], []).append(index)
    outputs: dict[int, tuple[torch.Tensor, ...]] = {}
    for indices in alike.values():
        parts = [tower(part) for part in _join([inputs[i] for i in indices]).split(at_once)]
        counts = [len(inputs[i]) for i in indices]
        whole = (_join(same).split(counts) for same in zip(*parts, strict=True))
        outputs.update(zip(indices, zip(*whole, strict=True), strict=True))
    return [outputs[index] for index in range(len(inputs))]


def _join(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put (n, ...) tensors behind one another; a single one without a copy."""
    import torch

    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
