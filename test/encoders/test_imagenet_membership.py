"""Membership worked out by hand from rows of resemblance."""

import pytest
import torch

from llmseg_ros.encoders.base import ClassNames
from llmseg_ros.encoders.imagenet_membership import membership, memberships
from llmseg_ros.encoders.imagenet_names import imagenet_names, synonyms

INDEX = {part: index for index, name in enumerate(imagenet_names()) for part in synonyms(name)}


def rows(*resemblances):
    """Return rows that resemble some ImageNet names by so much and the last one by the rest."""
    made = torch.zeros(len(resemblances), 1000)
    for row, resemblance in zip(made, resemblances, strict=True):
        for name, value in resemblance.items():
            row[INDEX[name]] = value
        row[999] += 1 - row.sum()
    return made


def members(item, *resemblances):
    row = membership(item, rows(*resemblances))
    assert set(row.tolist()) <= {0.0, 1.0}
    return {synonyms(imagenet_names()[index])[0] for index in row.nonzero()[:, 0]}


def test_a_sense_that_is_resembled_brings_all_below_it():
    found = members(ClassNames('cat'), {'tabby': 0.1})
    assert found == {
        *('tabby', 'tiger cat', 'Persian cat', 'Siamese cat', 'Egyptian cat', 'cougar', 'lynx')
    }


def test_a_sense_that_is_not_meant_brings_nothing():
    assert members(ClassNames('monitor'), {'monitor': 0.5}) == {'monitor'}
    assert members(ClassNames('monitor'), {'Komodo dragon': 0.5}) == {'Komodo dragon'}


def test_resemblance_is_the_mean_over_name_and_subclasses():
    item = ClassNames('companion', subclasses=('cat',))
    assert 'lynx' in members(item, {'tabby': 0.2}, {})
    unlike = rows({'tabby': 0.19}, {})
    torch.testing.assert_close(membership(item, unlike), unlike.mean(dim=0))


def test_where_no_sense_is_resembled_the_usual_one_is_meant():
    assert members(ClassNames('horse'), {'hippopotamus': 0.5}) == {'sorrel'}
    assert members(ClassNames('monitor'), {}) == {'monitor'}
    assert members(ClassNames('steed', ('horse',)), {}) == {'sorrel'}


def test_subclasses_and_aliases_bring_what_is_below_them():
    terrier = ClassNames('pet', subclasses=('terrier',))
    assert 'Airedale' in members(terrier, {}, {'Airedale': 0.2})
    alias = ClassNames('tvmonitor', aliases=('television',))
    assert members(alias, {'television': 0.3}) == {'television'}


def test_a_name_without_kinds_has_what_it_resembles():
    row = rows({'zebra': 0.7})
    torch.testing.assert_close(membership(ClassNames('okapi-like thing'), row), row[0])


@pytest.mark.parametrize('item', [ClassNames('person'), ClassNames('people', ('person',))])
def test_a_garment_implies_a_wearer(item):
    found = members(item, {'groom': 0.05})
    assert {'suit', 'jersey', 'bikini', 'kimono', 'groom'} <= found


def test_classes_are_told_apart_by_their_counts():
    cat, pet = ClassNames('cat'), ClassNames('pet', ('companion',), ('dog', 'terrier'))
    made = rows({'tabby': 1}, {}, {'beagle': 0.4}, {})
    both = memberships([cat, pet], made)
    torch.testing.assert_close(both[0], membership(cat, made[:1]))
    torch.testing.assert_close(both[1], membership(pet, made[1:]))
