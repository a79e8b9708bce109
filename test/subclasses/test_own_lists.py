"""Class lists of single calls: ids, descriptions that are kept, and a language model in between."""

import time

import numpy as np
import pytest
from skimage import data

from llmseg_ros.config import ImageNetConfig, SegmenterConfig, SubclassesConfig
from llmseg_ros.own_lists import MOST_KEPT, NamesRefused
from llmseg_ros.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures('encoders_are_loaded_once')


@pytest.fixture
def segmenter(server, tmp_path):
    config = SegmenterConfig(
        imagenet=ImageNetConfig(model='lite0', short_sides=(64,)),
        subclasses=SubclassesConfig(base_url=server.url, store=str(tmp_path / 'store.sqlite3')),
    )
    segmenter = Segmenter(config, ['sofa', 'cup'])
    yield segmenter
    segmenter.close()


def test_the_list_in_force_stays_and_both_are_segmented_by(segmenter):
    in_force = segmenter.vocabulary
    own = segmenter.describe(['cat', 'cup'], [('cat', {'minimum_score': 0.01})])
    assert segmenter.vocabulary is in_force
    ids = {item.name: item.id for item in own.vocabulary.classes}
    assert ids['cup'] == in_force.classes[1].id
    assert ids['cat'] not in {item.id for item in in_force.classes}
    found = segmenter.segment(data.chelsea(), own=own)
    assert (found.labels == ids['cat']).any()
    assert found.version == 0
    update = segmenter.set_classes(['cat', 'cup'], [('cat', {'minimum_score': 0.01})])
    assert update.version == in_force.version + 1
    same = segmenter.segment(data.chelsea())
    np.testing.assert_array_equal(same.mask('cat'), found.mask('cat'))


def wait_for_answers(segmenter):
    until = time.monotonic() + 30
    while segmenter.asking.pending and time.monotonic() < until:
        time.sleep(0.01)
    assert not segmenter.asking.pending


def test_the_last_lists_stay_described(segmenter):
    lists = [['cat', f'cup{"s" * i}'] for i in range(MOST_KEPT + 1)]
    for names in lists:
        segmenter.describe(names)
        wait_for_answers(segmenter)  # which make a list another one
    first, *others = (segmenter.describe(names).vocabulary for names in lists)
    for names, kept in zip(lists[1:], others, strict=True):
        assert segmenter.describe(names).vocabulary is kept
    assert segmenter.describe(lists[0]).vocabulary is not first  # one list too many ago
    assert segmenter.describe(lists[-1], [('cat', {'never': ['dog']})]).vocabulary.never


def test_what_is_said_of_names_is_of_the_call_alone(segmenter):
    def said(*names):
        return [note for note in segmenter.describe(names).notes if 'language model' not in note]

    assert said('cat', 'Cat') == ["class name 'Cat' repeats 'cat': merged"]
    assert said('cat') == []
    (left_out,) = said('background', 'cat')
    assert 'id 0: left out' in left_out


def test_ids_given_to_other_names_since_are_taken_into_account(segmenter):
    (lamp,) = segmenter.describe(['lamp']).vocabulary.classes
    segmenter.set_classes(['vase'])
    assert segmenter.vocabulary.classes[0].id == lamp.id  # it was the first that is free
    (again,) = segmenter.describe(['lamp']).vocabulary.classes
    assert again.id == lamp.id + 1


def test_refused_names_and_rules_are_told_together(segmenter):
    with pytest.raises(NamesRefused) as caught:
        segmenter.describe(['cat', ''], [('dog', {}), ('cat', {'minimum_score': 2.0})])
    assert str(caught.value) == (
        "a class name is empty: refused; rule of 'dog': the list has no such class, refused; "
        "rule of 'cat': minimum_score is 2.0, expected 0 to 1"
    )


def test_the_language_model_is_asked_but_not_waited_for(segmenter, server, until):
    server.behave = lambda request: time.sleep(0.5)
    started = time.monotonic()
    own = segmenter.describe(['cat', 'gizmo'])
    assert time.monotonic() - started < 0.5
    assert own.vocabulary.classes[1].subclasses == ()
    assert own.notes == (
        "'gizmo': the language model is asked for subclasses, call again to use them",
    )
    until(lambda: segmenter.asking.pending == 0)
    later = segmenter.describe(['cat', 'gizmo'])
    assert later.notes == ()
    assert later.vocabulary.classes[1].subclasses
    assert server.asked == ['gizmo']
