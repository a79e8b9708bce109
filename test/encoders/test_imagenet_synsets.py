"""What is a kind of what, against WordNet as it is known and as the package brings it."""

import subprocess
import sys
from pathlib import Path

import pytest
from timm.data import ImageNetInfo

from llmseg_ros.classes import name_key
from llmseg_ros.encoders.imagenet_names import imagenet_names, synonyms
from llmseg_ros.encoders.imagenet_synsets import PARTS_TABLE, TABLE, closures, parts

WORDNET = Path('/usr/share/wordnet')  # of the Debian package wordnet-base
SCRIPT = Path(__file__).resolve().parents[2] / 'scripts' / 'make_wordnet_table.py'


def firsts(members) -> set[str]:
    return {synonyms(imagenet_names()[index])[0] for index in members}


def test_the_table_begins_with_the_1000_in_class_order():
    info = ImageNetInfo()
    lines = TABLE.read_text(encoding='utf-8').splitlines()
    ids = [line.split('\t')[0] for line in lines]
    assert ids[:1000] == [info.index_to_label_name(index) for index in range(1000)]
    assert len(set(ids)) == len(ids) == 1860
    assert all(above in ids for line in lines for above in line.split('\t')[1].split())


def test_every_imagenet_name_is_of_its_own_kind():
    for index, name in enumerate(imagenet_names()):
        for synonym in synonyms(name):
            assert any(index in members for members in closures(synonym)), synonym


@pytest.mark.parametrize(
    ('name', 'count', 'some', 'not_of_it'),
    [
        ('dog', 118, {'beagle', 'Mexican hairless'}, 'dingo'),
        ('bird', 59, {'hen', 'king penguin', 'ostrich'}, 'birdhouse'),
        ('car', 10, {'minivan', 'beach wagon', 'cab'}, 'freight car'),
        ('horse', 1, {'sorrel'}, 'hippopotamus'),
        ('chair', 4, {'barber chair', 'folding chair', 'throne'}, 'studio couch'),
        ('person', 3, {'ballplayer', 'groom', 'scuba diver'}, 'suit'),
    ],
)
def test_the_first_sense_has_the_names_known_for_it(name, count, some, not_of_it):
    members = closures(name)[0]
    assert len(members) == count
    assert some <= firsts(members)
    assert not_of_it not in firsts(members)


def test_all_senses_are_there_the_usual_one_first():
    first, second = closures('table')[:2]
    assert 'desk' in firsts(first)
    assert firsts(second) == {'dining table'}
    assert firsts(closures('crane')[0] | closures('crane')[1]) == {'crane'}


@pytest.mark.parametrize(
    ('name', 'same'),
    [
        ('Dogs', 'dog'),
        ('  dining   TABLE ', 'dining table'),
        ('wolves', 'wolf'),
        ('mice', 'mouse'),
        ('geese', 'goose'),
        ('buses', 'bus'),
        ('articles of clothing', 'article of clothing'),
    ],
)
def test_a_plural_is_looked_up_as_its_singular(name, same):
    assert closures(name) == closures(same) != []


@pytest.mark.parametrize('name', ['zeppelin flight', 'ß', '', '#', 'dog#1', 'n02084071', '犬'])
def test_a_name_wordnet_lacks_has_no_members(name):
    assert closures(name) == []


def test_names_in_the_table_are_keys():
    """A name that a lookup could not spell would never be found."""
    fields = (line.split('\t')[2] for line in TABLE.read_text(encoding='utf-8').splitlines())
    names = {part.rpartition('#')[0] for field in fields for part in field.split('|')}
    assert {name_key(name) for name in names} == names


@pytest.mark.skipif(not WORDNET.exists(), reason='needs the Debian package wordnet-base')
def test_the_script_makes_the_same_table(tmp_path):
    subprocess.run([sys.executable, SCRIPT, WORDNET, tmp_path], check=True)
    for table in (TABLE, PARTS_TABLE):
        assert (tmp_path / table.name).read_bytes() == table.read_bytes()


@pytest.mark.parametrize(
    ('name', 'some', 'none'),
    [
        ('car', {'wheel', 'windshield', 'bumper', 'car door', 'cylinder'}, 'road'),
        ('Sports  Cars', {'wheel'}, 'road'),
        ('cat', {'tail', 'paw', 'head'}, 'sofa'),
        ('person', {'hand', 'face', 'head', 'hair', 'eye'}, 'hat'),
        ('chair', {'leg', 'back', 'seat'}, 'table'),
        ('flurb', set(), 'wheel'),
    ],
)
def test_parts_are_those_of_the_kind_too(name, some, none):
    assert some <= parts(name)
    assert none not in parts(name)
