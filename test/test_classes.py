"""Class names and ids: bad names refused, good ones kept, ids never reused."""

import threading

import pytest

from llmseg_ros.classes import MAX_CLASSES, ClassRegistry, clean_name, clean_names


@pytest.mark.parametrize(
    ('name', 'cleaned'),
    [('cat', 'cat'), ('  potted   plant\t', 'potted plant'), ('TV', 'TV'), ('猫', '猫')],
)
def test_clean_name(name, cleaned):
    assert clean_name(name) == cleaned


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('', 'empty'),
        (' \t ', 'empty'),
        ('x' * 65, '65 characters'),
        ('a\x00b', 'control characters'),
        ('a\nb', 'control characters'),
        ('a\u202eb', 'control characters'),
    ],
)
def test_bad_names_are_refused(name, reason):
    with pytest.raises(ValueError, match=reason):
        clean_name(name)


def test_the_rest_of_a_list_with_bad_names_is_accepted():
    names, messages = clean_names(['cat', '', 'CAT ', 'dog', 'x' * 99, 'potted  plant'])
    assert names == ['cat', 'dog', 'potted plant']
    assert [message.rsplit(': ', 1)[1] for message in messages] == ['refused', 'merged', 'refused']


@pytest.mark.parametrize('name', ['background', 'Background', '_background_', '__background__'])
def test_the_background_is_no_class(name):
    names, messages = clean_names([name, 'cat'])
    assert names == ['cat']
    assert messages == [f'class name {name!r} is what no class covers, id 0: left out']


def test_a_list_has_a_limit():
    names, messages = clean_names(f'class {i}' for i in range(MAX_CLASSES + 2))
    assert len(names) == MAX_CLASSES
    assert len(messages) == 2


def test_an_id_is_never_given_to_another_name():
    registry = ClassRegistry()
    first = registry.update(['cat', 'dog'])
    second = registry.update(['sofa', 'dog'])
    third = registry.update(['Cat'])
    assert [(c.id, c.name) for c in first.classes] == [(1, 'cat'), (2, 'dog')]
    assert [(c.id, c.name) for c in second.classes] == [(3, 'sofa'), (2, 'dog')]
    assert [(c.id, c.name) for c in third.classes] == [(1, 'cat')]


def test_the_version_rises_only_with_a_change():
    registry = ClassRegistry()
    versions = [registry.update(names).version for names in (['a'], ['a'], ['b'], ['b', 'B'], [])]
    assert versions == [1, 1, 2, 2, 3]
    assert registry.current.classes == ()


def test_updates_from_threads_share_ids():
    registry = ClassRegistry()
    names = [f'class {i}' for i in range(50)]
    threads = [threading.Thread(target=registry.update, args=(names,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.id for entry in registry.current.classes] == list(range(1, 51))
    assert registry.current.version == 1


def test_a_list_aside_takes_no_ids():
    registry = ClassRegistry()
    in_force = registry.update(['cat', 'dog'])
    aside = registry.aside(['lamp', 'DOG', 'vase', 'lamp', ''])
    assert [(entry.id, entry.name) for entry in aside.classes] == [
        (3, 'lamp'),
        (2, 'dog'),
        (4, 'vase'),
    ]
    assert aside.version == 0
    assert len(aside.messages) == 2
    assert registry.current == in_force
    assert registry.update(['vase']).classes[0].id == 3
