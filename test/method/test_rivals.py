"""Rivals against their formula written out in loops."""

import torch

from llmseg_ros.config import BackgroundConfig
from llmseg_ros.method.background import label_logits
from llmseg_ros.method.presence import Candidates
from llmseg_ros.method.rivals import MOST_RIVALS, contrast_map, relate_things, rival_map


def unit_rows(count, width, seed):
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def test_members_and_their_near_synonyms_are_no_rivals():
    angles = torch.deg2rad(torch.tensor([0.0, 60, 80, 90]))
    descriptors = torch.stack([angles.cos(), angles.sin()], dim=-1)
    membership = torch.tensor([[1.0, 0, 0, 0], [0.5, 0, 0, 0.02], [0, 0, 0, 0]])
    things = relate_things(membership, descriptors, torch.zeros(3, 1, 2))
    # cosines to the first 1, 0.5, 0.17, 0; halved where it is half a member
    assert things.rivals_ce.tolist() == [
        [False, False, True, True],
        [False, True, True, False],
        [True, True, True, True],
    ]


def test_what_a_name_is_described_like_is_no_rival():
    angles = torch.deg2rad(torch.tensor([0.0, 50, 70]))
    descriptors = torch.stack([angles.cos(), angles.sin()], dim=-1)
    names = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    things = relate_things(torch.zeros(2, 3), descriptors, names)
    # cosines to the name 1, 0.64, 0.34
    assert things.rivals_ce.tolist() == [[False, False, True], [True, True, True]]


def test_rival_map_in_loops():
    things = relate_things(
        (unit_rows(3, 40, 0) > 0.25).float(), unit_rows(40, 24, 1), torch.zeros(3, 1, 24)
    )
    patches = torch.randn(4, 5, 24, generator=torch.Generator().manual_seed(2))
    evidence = torch.rand(40, generator=torch.Generator().manual_seed(3))
    scores = torch.tensor([0.3, 0.9, 0.5])
    candidates = Candidates(torch.tensor([1, 2, 0]), torch.tensor([True, True, False]))
    found = rival_map(patches, evidence, scores, things, candidates, 0.7)
    rivals = [k for k in range(40) if all(things.rivals_ce[c, k] for c in (1, 2))]
    assert MOST_RIVALS < len(rivals) < 40
    strongest = sorted(rivals, key=lambda k: -evidence[k])[:MOST_RIVALS]
    for y in range(4):
        for x in range(5):
            values = [
                min(1.0, float(evidence[k]) / 0.9) * float(patches[y, x] @ things.descriptors_ed[k])
                for k in strongest
            ]
            assert abs(float(found[y, x]) - 0.7 * max(0.0, *values)) < 1e-5


def test_without_rivals_in_the_image_nothing_competes():
    things = relate_things(torch.ones(1, 5), unit_rows(5, 8, 4), torch.zeros(1, 1, 8))
    candidates = Candidates(torch.tensor([0]), torch.tensor([True]))
    found = rival_map(torch.ones(2, 2, 8), torch.ones(5), torch.ones(1), things, candidates, 1.0)
    assert found.tolist() == [[0, 0], [0, 0]]


def test_background_is_where_a_rival_is_above_the_threshold():
    maps = torch.tensor([[[2.0, 1.0, 0.2]], [[9.0, 9.0, 9.0]]])
    valid = torch.tensor([True, False])
    rivals = torch.tensor([[1.0, 1.6, 0.0]])
    config = BackgroundConfig(scale=10, threshold=0.25)
    logits = label_logits(maps, valid, config, rivals)
    torch.testing.assert_close(logits[0], torch.tensor([[5.0, 8.0, 2.5]]))
    torch.testing.assert_close(logits[1], torch.tensor([[10.0, 5.0, 1.0]]))
    assert logits.argmax(dim=0).tolist() == [[1, 0, 0]]


def test_contrast_map_in_loops():
    patches, contrasts = torch.randn(3, 4, 8), unit_rows(5, 8, 7)
    found = contrast_map(patches, contrasts)
    for y in range(3):
        for x in range(4):
            values = [float(patches[y, x] @ row) for row in contrasts]
            assert abs(float(found[y, x]) - max(0.0, *values)) < 1e-6
