"""English compounds: their last part tells the thing, the others only what kind."""

import pytest

from llmseg_ros.encoders.imagenet_names import (
    head_word,
    imagenet_names,
    names_only_modified_by,
    synonyms,
)


@pytest.mark.parametrize(
    ('name', 'head'),
    [
        ('Old English sheepdog', 'sheepdog'),
        ('merino sheep', 'sheep'),
        ('Wine Bottles', 'bottle'),
        ('child in a sweatshirt', 'child'),
        ("carpenter's kit", 'kit'),
        ('horse-cart', 'cart'),
        ('in', ''),
        ('...', ''),
        ('犬', '犬'),
    ],
)
def test_the_head_is_the_last_word_before_a_preposition(name, head):
    assert head_word(name) == head


@pytest.mark.parametrize(
    ('word', 'left_out', 'kept'),
    [
        ('sheep', 'Old English sheepdog', 'bighorn'),
        ('bird', 'birdhouse', 'hummingbird'),
        ('car', 'carousel', 'sports car'),
        ('horse', 'horse cart', 'sorrel'),
        ('dog', 'dogsled', 'Old English sheepdog'),
        ('book', 'bookshop', 'comic book'),
        ('cat', 'catamaran', 'tabby'),
    ],
)
def test_names_of_another_thing_are_left_out(word, left_out, kept):
    firsts = [synonyms(name)[0] for name in imagenet_names()]
    indices = names_only_modified_by(word)
    assert kept in firsts
    assert left_out in {firsts[index] for index in indices}
    assert kept not in {firsts[index] for index in indices}


def test_short_and_unknown_words_leave_nothing_out():
    assert names_only_modified_by('') == names_only_modified_by('ro') == []
    assert names_only_modified_by('zeppelin') == []


def test_no_name_leaves_itself_out():
    for index, name in enumerate(imagenet_names()):
        for synonym in synonyms(name):
            assert index not in names_only_modified_by(head_word(synonym))


def test_no_word_leaves_out_all_names():
    words = {head_word(synonym) for name in imagenet_names() for synonym in synonyms(name)}
    assert max(len(names_only_modified_by(word)) for word in words) < 100
