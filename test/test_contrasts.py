"""What is near a class or taken for it, on real photographs with real weights."""

import dataclasses

import numpy as np
import pytest
import skimage.data

from llmseg_ros.config import BackgroundConfig, ImageNetConfig, RefineConfig, SegmenterConfig
from llmseg_ros.contrasts import check_contrasts
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.subclasses.contrasts import MOST_CONTRASTS
from llmseg_ros.subclasses.resolver import Subclasses

CONFIG = SegmenterConfig(imagenet=ImageNetConfig(model='lite0'), refine=RefineConfig('none'))
OFF = dataclasses.replace(CONFIG, background=BackgroundConfig(contrasts=False))


@pytest.fixture(scope='module')
def seg():
    return Segmenter(CONFIG)


@pytest.fixture(scope='module')
def without(seg):
    return Segmenter(OFF, encoder=seg.encoder)


def test_a_cat_is_no_dog_when_only_dogs_are_asked_for(seg, without):
    cat = skimage.data.chelsea()
    without.set_classes(['dog'])
    assert without.segment(cat).mask('dog').mean() > 0.03
    seg.set_classes(['dog'])
    found = seg.segment(cat)
    assert not found.labels.any()
    assert [item.name for item in found.classes] == ['dog']
    assert 'cat' in seg.vocabulary.classes[0].contrasts


@pytest.mark.parametrize('names', [['cat'], ['cat', 'dog', 'sofa'], ['cup', 'table']])
@pytest.mark.parametrize('photo', ['chelsea', 'coffee'])
def test_what_is_there_stays_as_it_was(seg, without, names, photo):
    rgb = getattr(skimage.data, photo)()
    for one in (seg, without):
        one.set_classes(names)
    assert seg.vocabulary.contrasts is not None
    assert without.vocabulary.contrasts is None
    assert np.array_equal(seg.segment(rgb).labels, without.segment(rgb).labels)


def test_no_contrast_is_a_requested_class_or_a_name_of_one(seg):
    seg.set_classes(['cat', 'couch'])
    contrasts = seg.vocabulary.classes[0].contrasts
    assert 'sofa' not in contrasts
    assert {'floor', 'blanket', 'dog', 'pillow', 'carpet'} <= {*contrasts}
    seg.set_classes(['cat', 'dog'], [('dog', {'also': ['Pillow'], 'never': ['carpets']})])
    contrasts = seg.vocabulary.classes[0].contrasts
    assert not {'dog', 'pillow', 'carpet'} & {*contrasts}
    assert {'floor', 'blanket', 'sofa'} <= {*contrasts}


def test_what_a_requested_class_is_a_kind_of_is_no_contrast(seg):
    seg.set_classes(['dog', 'Kitten'])
    assert 'cat' not in seg.vocabulary.classes[0].contrasts
    assert 'wolf' in seg.vocabulary.classes[0].contrasts
    seg.set_classes(['dog'])
    assert 'cat' in seg.vocabulary.classes[0].contrasts


def test_ids_are_kept_and_contrasts_follow_the_list(seg):
    first = seg.set_classes(['boat', 'dock'])
    assert 'dock' not in seg.vocabulary.classes[0].contrasts
    seg.set_classes(['boat'])
    assert 'dock' in seg.vocabulary.classes[0].contrasts
    assert seg.set_classes(['boat', 'dock']).classes == first.classes


def test_a_long_list_has_few_contrasts_of_each_class_beside_the_classes_themselves():
    names = [f'class{i}' for i in range(100)]
    found = {
        name: Subclasses((*names[:20], *(f'thing{name}x{i}' for i in range(10))), 'pack')
        for name in names
    }
    checked = check_contrasts(found, {name: (name,) for name in names}, None)
    assert {len(one.kept) for one in checked.values()} == {2, 3}
    assert sum(len(one.kept) for one in checked.values()) == MOST_CONTRASTS
    reasons = [drop.reason for drop in checked['class7'].dropped]
    assert reasons.count("is the requested class 'class0'") == 1
    assert reasons.count(f'is beyond {MOST_CONTRASTS} contrasts of a class list') in (7, 8)
