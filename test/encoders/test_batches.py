"""Inputs of one shape go through a tower together, and come back in their order."""

from __future__ import annotations

import pytest
import torch

from llmseg_ros.encoders.batches import run_in_batches


@pytest.mark.parametrize('at_once', [1, 2, 3, 100])
def test_each_input_gets_what_is_made_of_it(at_once: int) -> None:
    seen = []

    def tower(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(tuple(images.shape))
        return images * 2, images.flatten(1).sum(dim=1)

    shapes = [(1, 2, 3), (3, 2, 3), (2, 4, 1), (2, 2, 3)]
    inputs = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    for images, (twice, sums) in zip(inputs, run_in_batches(tower, inputs, at_once), strict=True):
        assert torch.equal(twice, images * 2)
        assert torch.equal(sums, images.flatten(1).sum(dim=1))
    assert max(shape[0] for shape in seen) == min(at_once, 6)
    assert len(seen) == -(-6 // at_once) + -(-2 // at_once)
    assert run_in_batches(tower, [], at_once) == []


def test_a_single_input_is_not_copied() -> None:
    image = torch.rand(1, 3, 4, 4)

    def tower(images: torch.Tensor) -> tuple[torch.Tensor]:
        assert images.data_ptr() == image.data_ptr()
        return (images,)

    ((same,),) = run_in_batches(tower, [image], 8)
    assert same.data_ptr() == image.data_ptr()
