"""LoDA pooling on hand-computed tokens."""

from __future__ import annotations

import pytest
import torch

from llmseg_ros.encoders.loda import loda_pool

TOKENS = torch.tensor([[[1.0, 9], [4, -2], [3, 0], [2, 5]]])


@pytest.mark.parametrize(
    ('k', 'expected'),
    [(1, [4.0, 9]), (2, [3.5, 7]), (3, [3.0, 14 / 3]), (4, [2.5, 3]), (99, [2.5, 3])],
)
def test_the_k_strongest_of_each_channel_are_averaged(k, expected):
    torch.testing.assert_close(loda_pool(TOKENS, k), torch.tensor([expected]))


@pytest.mark.parametrize(
    ('mask', 'k', 'expected'),
    [
        ([True, False, True, False], 1, [3.0, 9]),
        ([True, False, True, False], 2, [2.0, 4.5]),
        ([True, False, True, False], 3, [2.0, 4.5]),  # never more than there are
        ([False, True, False, False], 5, [4.0, -2]),
        ([False, False, False, False], 2, [0.0, 0]),
    ],
)
def test_masked_tokens_do_not_count(mask, k, expected):
    found = loda_pool(TOKENS, k, torch.tensor([mask]))
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_a_row_does_not_depend_on_the_others():
    both = torch.cat([TOKENS, TOKENS + 100])
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    found = loda_pool(both, 3, mask)
    torch.testing.assert_close(found[0], loda_pool(TOKENS, 3)[0])
    torch.testing.assert_close(found[1], torch.tensor([101.0, 109]))


@pytest.mark.parametrize(('k', 'tokens'), [(0, 4), (-1, 4), (1, 0)])
def test_nothing_to_pool_is_refused(k, tokens):
    with pytest.raises(ValueError, match='LoDA needs'):
        loda_pool(TOKENS[:, :tokens], k)
