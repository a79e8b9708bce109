"""Background by threshold on maps worked out by hand."""

import torch

from llmseg_ros.background import ABSENT, label_logits
from llmseg_ros.config import BackgroundConfig

CONFIG = BackgroundConfig(threshold=0.25, scale=10.0)


def test_maps_are_shares_of_the_strongest_candidate():
    maps = torch.tensor([[[2.0, 0.4]], [[-1.0, 1.0]], [[8.0, 8.0]]])
    logits = label_logits(maps, torch.tensor([True, True, False]), CONFIG)
    expected = [[[2.5, 2.5]], [[10.0, 2.0]], [[0.0, 5.0]], [[ABSENT, ABSENT]]]
    torch.testing.assert_close(logits, torch.tensor(expected))
    assert logits.argmax(dim=0).tolist() == [[1, 2]]


def test_no_valid_candidate_and_no_positive_value_are_background():
    maps = torch.tensor([[[2.0]], [[-1.0]]])
    for valid in ([False, False], [False, True]):
        logits = label_logits(maps, torch.tensor(valid), CONFIG)
        assert logits.isfinite().all()
        assert logits.argmax(dim=0).tolist() == [[0]]
