"""Several images at once against each alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmseg_ros.encoders.base import Encoder


def encode_both_ways(
    encoder: Encoder, rgbs: Sequence[NDArray[np.uint8]], spied: str
) -> tuple[list[int], list[int]]:
    """Compare; return the lengths of the batches that the tower got of all, and of each alone.

    Args:
        encoder: to use.
        rgbs: images.
        spied: name of the encoder's attribute that is called with a batch, its first tensor of
            four axes.
    """
    tower: Callable[..., Any] = getattr(encoder, spied)
    batches: list[int] = []

    def spy(*arguments: Any) -> Any:
        batches.append(next(len(x) for x in arguments if torch.is_tensor(x) and x.ndim == 4))
        return tower(*arguments)

    setattr(encoder, spied, spy)
    try:
        with torch.inference_mode():
            together = encoder.encode_images(rgbs)
            of_all = batches.copy()
            batches.clear()
            alone = [encoder.encode_image(rgb) for rgb in rgbs]
    finally:
        setattr(encoder, spied, tower)
    assert len(together) == len(rgbs)
    for one, other in zip(together, alone, strict=True):
        assert (one.axes, one.keep_length) == (other.axes, other.keep_length)
        for name in ('patches_hwd', 'pooled_d', 'evidence_e', 'input_3hw'):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for one, other in itertools.pairwise(together):
        assert not torch.equal(one.pooled_d, other.pooled_d)  # of other images
    return of_all, batches
