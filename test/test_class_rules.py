"""Rules of single classes: what is refused, and what each part does to a photograph."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import skimage.data

from llmseg_ros.candidates import candidate_maps
from llmseg_ros.class_rules import ClassRule, clean_rules

CAT = skimage.data.chelsea()


@pytest.mark.parametrize(
    ('parts', 'sentence'),
    [
        ({'minimum_score': 7.0}, "rule of 'cat': minimum_score is 7.0, expected 0 to 1"),
        ({'minimum_score': float('nan')}, "rule of 'cat': minimum_score is nan, expected 0 to 1"),
        ({'minimum_score': True}, "rule of 'cat': minimum_score is True, expected 0 to 1"),
        ({'minimum_area': -1}, 'minimum_area is -1, expected a number of pixels from 0 on'),
        ({'minimum_area': 0.5}, 'minimum_area is 0.5, expected a number of pixels from 0 on'),
        ({'also': 'kitten'}, "also is 'kitten', expected a list of names"),
        ({'also': [1]}, 'also is [1], expected a list of names'),
        ({'never': ['\a']}, "never: class name '\\x07' has control characters: refused"),
        ({'never': ['Cat']}, "never has 'Cat', a name of the class itself, refused"),
        ({'also': ['kitten'], 'never': ['kitten']}, "never has 'kitten', a name of the class"),
        ({'never': ['sofa']}, "never has 'sofa', a class of the list that competes already"),
        ({'never': [f'n{i}' for i in range(33)]}, "never: 'n32' is beyond 32 names: refused"),
    ],
)
def test_a_bad_part_is_refused_in_a_sentence(parts: dict[str, Any], sentence: str) -> None:
    cleaned = clean_rules([('cat', {'minimum_area': 9, **parts})], ['cat', 'sofa'])
    assert len(cleaned.messages) == 1
    assert sentence in cleaned.messages[0]
    if 'minimum_area' not in parts:
        assert cleaned.rules['cat'].minimum_area == 9  # the rest is in force


def test_rules_of_no_class_and_second_rules_are_refused() -> None:
    cleaned = clean_rules([('dog', {}), ('CAT', {'minimum_area': 1}), ('cat', {})], ['Cat'])
    assert cleaned.messages == [
        "rule of 'dog': the list has no such class, refused",
        "rule of 'cat': the class has a rule already, refused",
    ]
    assert cleaned.rules == {'cat': ClassRule(minimum_area=1)}


@pytest.fixture(scope='module')
def seg() -> Any:
    from llmseg_ros.config_files import load_config
    from llmseg_ros.files import shipped_path
    from llmseg_ros.segmenter import Segmenter

    config = load_config(shipped_path('config/offline.yaml'))
    fast = dataclasses.replace(config.imagenet, model='lite0', short_sides=(160,))
    return Segmenter(dataclasses.replace(config, imagenet=fast), ['cat', 'sofa'])


def found(seg: Any, *rules: tuple[str, dict[str, Any]], names: tuple[str, ...] = ('cat',)) -> Any:
    seg.set_classes(names, rules)
    return seg.segment(CAT)


def test_minimum_score_takes_a_class_out_of_the_image(seg: Any) -> None:
    plain = found(seg)
    (cat,) = plain.found
    assert found(seg, ('cat', {'minimum_score': cat.score - 0.01})).mask('cat').any()
    above = found(seg, ('Cat', {'minimum_score': min(1.0, cat.score + 0.01)}))
    assert not above.labels.any()
    assert above.classes[0].score == pytest.approx(cat.score)


def test_minimum_area_makes_background_of_what_is_smaller(seg: Any) -> None:
    plain = found(seg)
    area = plain.found[0].area
    same = found(seg, ('cat', {'minimum_area': area}))
    assert np.array_equal(same.labels, plain.labels)
    without = found(seg, ('cat', {'minimum_area': area + 1}))
    assert not without.labels.any()
    assert without.classes[0].area == 0
    was_cat = plain.mask('cat')
    assert np.allclose(without.confidence[was_cat], 1 - plain.confidence[was_cat])
    assert np.array_equal(without.confidence[~was_cat], plain.confidence[~was_cat])


def test_other_names_stand_for_a_class(seg: Any) -> None:
    alone = found(seg, names=('floofer',))
    helped = found(seg, ('floofer', {'also': ['tabby cat', 'kitten']}), names=('floofer',))
    (item,) = seg.vocabulary.classes
    assert item.subclasses == ('tabby cat', 'kitten')
    assert helped.classes[0].score > alone.classes[0].score
    assert helped.mask('floofer').mean() > 0.2


def test_what_a_name_wins_that_it_must_not_be_is_background(seg: Any) -> None:
    cup = skimage.data.coffee()
    assert seg.set_classes(['cup']).classes[0].name == 'cup'
    assert seg.segment(cup).mask('cup').mean() > 0.3
    seg.set_classes(['cup', 'saucer', 'espresso'])
    as_classes = seg.segment(cup)
    seg.set_classes(['cup'], [('cup', {'never': ['saucer', 'espresso']})])
    never = seg.segment(cup)
    assert [result.name for result in never.classes] == ['cup']
    assert [item.name for item in seg.vocabulary.never] == ['saucer', 'espresso']
    assert np.array_equal(never.mask('cup'), as_classes.mask('cup'))
    assert not never.labels[~as_classes.mask('cup')].any()
    assert never.mask('cup').mean() < 0.1


def test_a_name_that_no_class_may_be_is_background_in_the_maps_too(seg: Any) -> None:
    cup = skimage.data.coffee()
    seg.set_classes(['cup', 'saucer', 'espresso'])
    as_classes = candidate_maps(seg.find(cup))
    seg.set_classes(['cup'], [('cup', {'never': ['saucer', 'espresso']})])
    maps = candidate_maps(seg.find(cup))
    assert maps is not None
    assert as_classes is not None
    cup_id = seg.vocabulary.classes[0].id
    is_cup = as_classes.ids == cup_id
    assert as_classes.probabilities_khw[~is_cup][1:].max() > 0.5  # the others win somewhere
    assert maps.ids.tolist() == [0, cup_id]
    background_hw, cup_hw = maps.probabilities_khw
    assert cup_hw == pytest.approx(as_classes.probabilities_khw[is_cup][0], abs=1e-5)
    assert background_hw == pytest.approx(
        as_classes.probabilities_khw[~is_cup].sum(axis=0), abs=1e-5
    )


def test_a_least_score_of_one_class_asks_nothing_of_another(seg: Any) -> None:
    seg.set_classes(['cat', 'sofa'], [('cat', {'minimum_score': 0.5})])
    least_c = seg.vocabulary.minimum_scores_c
    assert least_c.tolist() == [0.5, -np.inf]  # scores may be below 0
    seg.set_classes(['cat'])
    assert seg.vocabulary.minimum_scores_c is None


def test_the_version_rises_with_rules_and_only_with_them(seg: Any) -> None:
    versions = [
        seg.set_classes(['cat'], rules).version
        for rules in ([], [], [('cat', {'minimum_area': 5})], [('cat', {'minimum_area': 5})], [])
    ]
    assert versions[0] == versions[1]
    assert versions[2] == versions[3] == versions[1] + 1
    assert versions[4] == versions[3] + 1
    assert seg.vocabulary.rules == {}
