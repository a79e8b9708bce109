import logging
import subprocess
import sys
import threading
import time

import pytest

from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses import background
from llmseg_ros.subclasses.llm import LlmError
from llmseg_ros.subclasses.packs import PackError
from llmseg_ros.subclasses.prompts import PromptError
from llmseg_ros.subclasses.resolver import Resolver, Subclasses
from llmseg_ros.subclasses.store import Answer, StoreError, default_store_path

REDS = ('red zub', 'green zub', 'blue zub')


@pytest.fixture
def make(server):
    resolvers = []

    def build(**settings):
        config = SubclassesConfig(**{'base_url': server.url, 'timeout': 5.0, **settings})
        resolvers.append(Resolver(config))
        return resolvers[-1]

    yield build
    for resolver in resolvers:
        resolver.close()


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('classes: {dog: {subclasses: [my dog]}, gnu: {subclasses: []}}')
    return str(path)


def test_order_is_own_file_packs_store_name(make, server, own_file):
    resolver = make(file=own_file)
    resolver.store.put(resolver.question('dog'), Answer('1. stored dog\n2. x dog', 1.0))
    resolver.store.put(resolver.question('cat'), Answer('1. stored cat\n2. x cat', 1.0))
    resolver.store.put(resolver.question('zub'), Answer('1. stored zub\n2. x zub', 1.0))
    assert resolver.resolve('Dog') == Subclasses(('my dog',), 'pack')
    assert resolver.resolve('gnu') == Subclasses((), 'pack')
    assert 'tabby cat' in resolver.resolve('cat').names
    assert resolver.resolve('ZUB') == Subclasses(('stored zub', 'x zub'), 'store', 1.0)
    assert resolver.resolve('flux capacitor') == Subclasses((), 'name')
    assert server.requests == []


def test_packs_can_be_left_out(make, server):
    resolver = make(packs=False)
    assert resolver.resolve('dog') == Subclasses((), 'name')
    assert resolver.ask('dog').source == 'llm'


def test_asked_once_ever(make, server):
    first = make()
    assert first.ask('zub').names == REDS
    assert first.ask(' Zub ').names == REDS
    assert first.resolve('zub').source == 'llm'
    assert first.requests == 1
    first.close()
    second = make()
    assert second.resolve('zub').names == second.ask('zub').names == REDS
    assert second.resolve('zub').source == 'store'
    assert server.asked == ['zub']


def test_refresh_asks_again(make, server):
    resolver = make()
    resolver.ask('zub')
    server.behave = lambda request: server.answer('1. new zub\n2. other zub')
    assert resolver.ask('zub').names == REDS
    assert resolver.ask('zub', refresh=True).names == ('new zub', 'other zub')
    assert make().resolve('zub').names == ('new zub', 'other zub')


def test_another_prompt_n_or_model_is_another_question(make, server, tmp_path):
    (tmp_path / 'mine.txt').write_text('Name {n} subclasses of {class}:')
    make().ask('zub')
    make(prompt='zero-shot').ask('zub')
    make(n=2).ask('zub')
    make(model='other').ask('zub')
    assert make(prompt=str(tmp_path / 'mine.txt')).ask('zub').names == REDS
    (tmp_path / 'mine.txt').write_text('Give {n} subclasses of {class}:')
    make(prompt=str(tmp_path / 'mine.txt')).ask('zub')
    assert server.asked == ['zub'] * 6
    assert server.requests[-1]['messages'][0]['content'] == 'Give 10 subclasses of zub:'


def test_answer_without_names_is_kept_for_a_day(make, server, monkeypatch):
    server.behave = lambda request: server.answer("I'm sorry, I can't help with that.")
    resolver = make()
    assert resolver.ask('zub') == resolver.ask('zub') == Subclasses((), 'name')
    assert len(server.requests) == 1
    question = resolver.question('zub')
    old = resolver.store.find(question)
    resolver.store.put(question, Answer(old.text, old.asked_at - 90_000))
    server.behave = lambda request: None
    assert resolver.ask('zub').names == REDS


def test_failed_request_leaves_nothing_in_the_store(make, server):
    server.behave = lambda request: server.status(401)
    resolver = make()
    with pytest.raises(LlmError):
        resolver.ask('zub')
    assert resolver.store.all() == {}


def test_without_a_language_model_nothing_is_asked_or_written(make, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    resolver = make(base_url='')
    assert resolver.resolve_all(['zub'], pytest.fail) == {'zub': Subclasses((), 'name')}
    with pytest.raises(LlmError, match='put a key into OPENAI_API_KEY'):
        resolver.ask('zub')
    assert not default_store_path().parent.exists()


def test_store_is_read_without_a_language_model(make, monkeypatch):
    make().ask('zub')
    monkeypatch.delenv('OPENAI_API_KEY')
    assert make(base_url='').resolve('zub').names == REDS


@pytest.mark.parametrize(
    ('settings', 'error'),
    [
        ({'file': 'missing.yaml'}, PackError),
        ({'prompt': 'missing.txt'}, PromptError),
        ({'base_url': 'nonsense'}, LlmError),
    ],
)
def test_bad_settings_are_refused(make, settings, error):
    with pytest.raises(error):
        make(**settings)


def test_newer_store_is_refused(make, tmp_path):
    resolver = make(store=str(tmp_path / 's.sqlite3'))
    resolver.store._db.execute('PRAGMA user_version = 9')
    with pytest.raises(StoreError, match='version 9'):
        make(store=str(tmp_path / 's.sqlite3'))


def test_answers_arrive_in_the_background(make, server, until):
    release = threading.Event()
    server.behave = lambda request: release.wait(20) and None
    resolver = make(timeout=30.0)
    ready = {}
    started = time.monotonic()
    known = resolver.resolve_all(['cat', 'zub', 'gub'], ready.__setitem__)
    assert time.monotonic() - started < 1.0
    assert known['cat'].source == 'pack'
    assert known['zub'] == known['gub'] == Subclasses((), 'name')
    assert resolver.resolve('zub').source == 'name'
    assert resolver.status.pending == 2
    release.set()
    until(lambda: len(ready) == 2)
    assert ready['zub'].names == REDS == resolver.resolve('zub').names
    assert ready['zub'].source == resolver.resolve('zub').source == 'llm'
    resolver.resolve_all(['cat', 'zub', 'gub'], ready.__setitem__)
    assert sorted(server.asked) == ['gub', 'zub']


def test_many_classes_take_a_quarter_of_their_time(make, server, until):
    server.behave = lambda request: time.sleep(0.5)
    resolver = make()
    names = [f'class {i}' for i in range(16)]
    ready = {}
    resolver.ask('zub')  # loads what the client needs
    started = time.monotonic()
    resolver.resolve_all(names, ready.__setitem__)
    until(lambda: len(ready) == 16)
    assert time.monotonic() - started < 0.5 * 16 / 4 + 5.0
    assert server.most_at_once == 4
    assert sorted(server.asked) == sorted([*names, 'zub'])


def test_server_that_comes_back_is_used(make, server, until, monkeypatch):
    monkeypatch.setattr(background, 'FIRST_PAUSE', 0.05)
    monkeypatch.setattr(background, 'LONGEST_PAUSE', 0.1)
    server.behave = lambda request: server.status(503, **{'Retry-After': '0.01'})
    resolver = make()
    ready = {}
    resolver.resolve_all(['zub', 'gub'], ready.__setitem__)
    until(lambda: 'failed (503)' in resolver.status.problem and len(server.requests) > 8)
    assert resolver.status.pending == 2
    server.behave = lambda request: None
    until(lambda: len(ready) == 2)
    assert resolver.status.problem == ''


ASK = """
import sys
from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.resolver import Resolver
resolver = Resolver(SubclassesConfig(base_url=sys.argv[1]))
for name in sys.argv[2:]:
    print(*resolver.ask(name).names, sep=',')
"""


def test_three_processes_ask_once_between_them_over_two_runs(server):
    server.behave = lambda request: time.sleep(0.3)
    names = ['zub', 'gub', 'nub']
    for _ in range(2):
        processes = [
            subprocess.Popen(
                [sys.executable, '-c', ASK, server.url, *names[i:], *names[:i]],
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(3)
        ]
        for i, process in enumerate(processes):
            lines = process.communicate(timeout=200)[0].splitlines()
            assert process.returncode == 0
            assert lines == [f'red {n},green {n},blue {n}' for n in [*names[i:], *names[:i]]]
    assert sorted(server.asked) == sorted(names)


def test_two_resolvers_of_one_process_ask_once(make, server, until):
    server.behave = lambda request: time.sleep(0.1)
    names = [f'class {i}' for i in range(8)]
    ready = [{}, {}]
    for resolver, answers in zip([make(), make()], ready, strict=True):
        resolver.resolve_all(names, answers.__setitem__)
    until(lambda: len(ready[0]) == len(ready[1]) == 8)
    assert sorted(server.asked) == names


def test_key_is_not_in_the_store_or_a_log(make, server, environment, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    server.behave = lambda request: server.answer(f'1. tabby\n2. {environment}')
    resolver = make(store=str(tmp_path / 's.sqlite3'))
    resolver.ask('zub')
    resolver.close()
    assert environment not in caplog.text
    for file in tmp_path.glob('s.sqlite3*'):
        assert environment.encode() not in file.read_bytes()
