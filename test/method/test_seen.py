"""Things that tell of a class stand beside its names, in the images that show them."""

import torch

from llmseg_ros.method.presence import Candidates
from llmseg_ros.method.rivals import Things
from llmseg_ros.method.seen import MOST_SEEN, add_seen_things

THINGS = torch.eye(8)
NAMES = torch.ones(2, 1, 8)
MEMBERS = torch.ones(2, 1, dtype=torch.bool)
EVIDENCE = torch.tensor([0.1, 0.5, 0.2, 0.0, 0.05, 0.03, 0.02, 0.1])
MEMBERSHIP = torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]])


def seen(by_others, valid=(True, True)):
    by_others_c = None if by_others is None else torch.tensor(by_others)
    things = Things(THINGS, MEMBERSHIP, MEMBERSHIP == 0, by_others_c)
    candidates = Candidates(torch.tensor([1, 0]), torch.tensor(valid))
    rows_knd, valid_kn = add_seen_things(NAMES, MEMBERS, EVIDENCE, things, candidates)
    return [
        [tuple(row.nonzero()[:, 0].tolist()) for row in rows[valid]]
        for rows, valid in zip(rows_knd[:, 1:], valid_kn[:, 1:], strict=True)
    ]


def test_the_things_an_image_shows_most_come_beside_the_names():
    assert seen([True, False]) == [[], [(1,), (2,), (0,)]]
    assert seen([False, True]) == [[(7,), (4,), (5,), (6,)], []]


def test_no_more_than_five():
    things = Things(THINGS, torch.ones(1, 8), torch.zeros(1, 8).bool(), torch.tensor([True]))
    candidates = Candidates(torch.tensor([0]), torch.tensor([True]))
    rows_knd, _ = add_seen_things(NAMES[:1], MEMBERS[:1], EVIDENCE, things, candidates)
    assert rows_knd.shape == (1, 1 + MOST_SEEN, 8)


def test_a_class_that_did_not_pass_has_none():
    assert seen([True, True], (True, False))[1] == []


def test_other_classes_keep_their_names():
    assert seen(None) == [[], []]
