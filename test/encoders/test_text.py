"""Text templates and the cache of text embeddings."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import torch

from llmseg_ros.config import ConfigError
from llmseg_ros.encoders.templates import average_templates, fill_templates, load_templates
from llmseg_ros.encoders.text_cache import BATCH, TextCache


@pytest.mark.parametrize(('source', 'count'), [('photo', 1), ('short', 7), ('imagenet', 80)])
def test_built_in_templates(source, count):
    if source != 'photo':
        pytest.importorskip('open_clip')
    templates = load_templates(source)
    assert len(set(templates)) == count
    assert all(template.count('{}') == 1 for template in templates)


def test_templates_of_a_file(tmp_path):
    path = tmp_path / 'mine.txt'
    path.write_text('a robot sees a {}.\n\n{}\n', encoding='utf-8')
    assert load_templates(str(path)) == ('a robot sees a {}.', '{}')


@pytest.mark.parametrize('content', ['', 'a photo', '{} and {}', '\n', '{}\n' * 1001, b'\xff{}'])
def test_bad_template_files_are_refused(tmp_path, content):
    path = tmp_path / 'bad.txt'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match='templates'):
        load_templates(str(path))


def test_an_absent_template_file_is_refused():
    with pytest.raises(ConfigError, match='expected imagenet, short, photo or a text file'):
        load_templates('imagenat')


def test_names_with_braces_are_left_alone():
    texts = fill_templates(['a {}.', 'the {}'], ['{0}', '{name!r}'])
    assert texts == ['a {0}.', 'the {0}', 'a {name!r}.', 'the {name!r}']


def test_every_text_is_normalised_before_and_after_the_mean():
    texts = torch.tensor([[10.0, 0], [0, 0.1], [0, 5], [0, 5]])
    half = 0.5**0.5
    torch.testing.assert_close(
        average_templates(texts, 2), torch.tensor([[half, half], [0.0, 1.0]])
    )


class Counter:
    """An encoder of texts that remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, names):
        self.asked.extend(names)
        return torch.tensor([[float(len(name)), 0.1] for name in names])


def test_every_name_is_encoded_once_for_all_processes():
    counter = Counter()
    first = TextCache('model', ['a {}']).encode(['cat', 'cow', 'cat'], counter)
    assert counter.asked == ['cat', 'cow']
    again = TextCache('model', ['a {}']).encode(['horse', 'cow'], counter)
    assert counter.asked == ['cat', 'cow', 'horse']
    assert torch.equal(first[1], again[1])
    assert again[0].tolist() == [5.0, pytest.approx(0.1)]


@pytest.mark.parametrize(
    ('model', 'templates'), [('other', ['a {}']), ('model', ['the {}']), ('model', ['a {}', '{}'])]
)
def test_embeddings_of_another_model_or_template_are_not_taken(model, templates):
    counter = Counter()
    TextCache('model', ['a {}']).encode(['cat'], counter)
    TextCache(model, templates).encode(['cat'], counter)
    assert counter.asked == ['cat', 'cat']


def test_many_names_are_encoded_in_batches():
    sizes = []
    names = [f'name {i}' for i in range(2 * BATCH + 3)]
    cache = TextCache('model', ['{}'])
    found = cache.encode(names, lambda batch: sizes.append(len(batch)) or Counter()(batch))
    assert sizes == [BATCH, BATCH, 3]
    assert found[:, 0].tolist() == [float(len(name)) for name in names]


@pytest.mark.parametrize('content', [b'', b'not a database at all, and long enough to tell' * 40])
def test_a_damaged_cache_costs_time_only(cache, content, caplog):
    cache.mkdir()
    (cache / 'text.sqlite').write_bytes(content)
    found = TextCache('model', ['{}']).encode(['cat'], Counter())
    assert found[0, 0] == 3
    assert bool(caplog.records) == bool(content)


def test_a_cache_folder_that_cannot_be_made_costs_time_only(cache, caplog):
    cache.write_text('a file where the folder should be')
    names = [f'name {i}' for i in range(2 * BATCH)]
    found = TextCache('model', ['{}']).encode(names, Counter())
    assert found[:, 0].tolist() == [float(len(name)) for name in names]
    assert caplog.text.count('not cached') == 1  # not once a batch


def test_a_cut_embedding_is_encoded_again(cache, caplog):
    TextCache('model', ['{}']).encode(['cat', 'dogs'], Counter())
    with sqlite3.connect(cache / 'text.sqlite') as connection:
        connection.execute("UPDATE text SET vector = x'00000000' WHERE rowid = 1")
    found = TextCache('model', ['{}']).encode(['cat', 'dogs'], Counter())
    assert found[:, 0].tolist() == [3, 4]
    assert 'differ in width' in caplog.text


def test_several_threads_may_write():
    results = []

    def work(number):
        names = [f'{number % 2} {i}' for i in range(20)]
        results.append(TextCache('model', ['{}']).encode(names, Counter()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(torch.equal(result, results[0]) for result in results)
