import logging
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from llmseg_ros.subclasses.parse import PARSER_VERSION
from llmseg_ros.subclasses.store import Answer, Question, Store, StoreError, default_store_path

CAT = Question('cat', 'few-shot-1', 10, 'm')
ANSWER = Answer('1. tabby', 1700000000.5)


def never():
    return False


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'store' / 'subclasses.sqlite3'


def test_answer_survives_closing(path):
    store = Store(path)
    assert store.find(CAT) is None
    store.put(CAT, ANSWER)
    store.close()
    again = Store(path)
    assert again.find(CAT) == ANSWER
    assert again.find(CAT).parser == PARSER_VERSION
    with sqlite3.connect(path) as db:
        assert db.execute('PRAGMA journal_mode').fetchone() == ('wal',)


@pytest.mark.parametrize(
    'other',
    [
        Question('dog', 'few-shot-1', 10, 'm'),
        Question('cat', 'zero-shot-1', 10, 'm'),
        Question('cat', 'few-shot-1', 5, 'm'),
        Question('cat', 'few-shot-1', 10, 'n'),
    ],
)
def test_every_part_of_the_question_counts(path, other):
    store = Store(path)
    store.put(CAT, ANSWER)
    assert store.find(other) is None
    store.put(other, Answer('x', 1.0))
    assert store.find(CAT) == ANSWER
    assert len(store.all()) == 2


def test_later_answer_replaces_and_delete_forgets(path):
    store = Store(path)
    store.put(CAT, ANSWER)
    store.put(CAT, Answer('new', 2.0))
    assert store.all() == {CAT: Answer('new', 2.0)}
    assert store.delete([CAT, Question('dog', 'p', 1, 'm')]) == 1
    assert store.all() == {}


def test_text_is_data(path):
    store = Store(path)
    question = Question("'; DROP TABLE answers; --", '%s{0}', 1, '"')
    store.put(question, Answer('\x00 "\' \U0001f408', 1.0))
    assert store.find(question) == Answer('\x00 "\' \U0001f408', 1.0)


def test_two_open_stores_see_each_other(path):
    first, second = Store(path), Store(path)
    first.put(CAT, ANSWER)
    assert second.find(CAT) == ANSWER


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        ({'ROS_HOME': '/r', 'XDG_DATA_HOME': '/x'}, '/r/llmseg_ros/subclasses.sqlite3'),
        ({'XDG_DATA_HOME': '/x'}, '/x/llmseg_ros/subclasses.sqlite3'),
        ({'HOME': '/h'}, '/h/.local/share/llmseg_ros/subclasses.sqlite3'),
    ],
)
def test_default_path(monkeypatch, variables, expected):
    for name in ('ROS_HOME', 'XDG_DATA_HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_store_path() == Path(expected)


def test_newer_version_is_refused_and_left_alone(path):
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute('PRAGMA user_version = 2')
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match='has version 2, this llmseg_ros reads 1: upgrade'):
        Store(path)
    assert path.read_bytes() == before


def test_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / 'places.sqlite'
    with sqlite3.connect(path) as db:
        db.execute('CREATE TABLE bookmarks (url TEXT)')
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match='another program'):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize('garbage', [b'', b'no database', b'SQLite format 3\x00' + b'\xff' * 5000])
def test_damaged_file_is_set_aside_and_rebuilt(path, garbage, caplog):
    path.parent.mkdir()
    path.write_bytes(garbage)
    store = Store(path)
    store.put(CAT, ANSWER)
    assert Store(path).find(CAT) == ANSWER
    aside = [file for file in path.parent.iterdir() if '.damaged-' in file.name]
    if garbage:
        assert [file.read_bytes() for file in aside if file.name[-4:] not in ('-wal', '-shm')] == [
            garbage
        ]
        assert 'was damaged' in caplog.text
    else:
        assert aside == []


def test_what_is_readable_of_a_damaged_store_is_saved(path):
    store = Store(path)
    for i in range(60):
        store.put(Question(f'class {i:03}', 'p', 10, 'm'), Answer('tabby ' * 400, float(i)))
    store.close()
    with path.open('r+b') as file:
        file.seek(path.stat().st_size - 8 * 4096)
        file.write(os.urandom(4096))
    again = Store(path)
    assert 10 < len(again.all()) <= 60
    assert all(answer.text == 'tabby ' * 400 for answer in again.all().values())
    assert any('.damaged-' in file.name for file in path.parent.iterdir())


def test_damage_while_open_costs_no_new_answer(path):
    store = Store(path)
    store.put(CAT, ANSWER)
    for suffix in ('', '-wal', '-shm'):
        file = Path(f'{path}{suffix}')
        file.write_bytes(b'\xff' * max(file.stat().st_size, 4096))
    dog = Question('dog', 'p', 10, 'm')
    store.put(dog, ANSWER)
    assert store.find(dog) == ANSWER


def in_child(work, user=None):
    """Run a function in a forked process, without root's powers; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if user is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            work()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('filled', [True, False])
def test_read_only_place_is_read_and_the_rest_kept_in_memory(filled):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'subclasses.sqlite3'
        if filled:
            store = Store(path)
            store.put(CAT, ANSWER)
            store.close()
        for file in Path(folder).iterdir():
            file.chmod(0o444)
        Path(folder).chmod(0o555)
        dog = Question('dog', 'p', 10, 'm')

        def work():
            warnings = []
            handler = logging.Handler()
            handler.emit = lambda record: warnings.append(record.getMessage())
            logging.getLogger('llmseg_ros.subclasses.store').addHandler(handler)
            store = Store(path)
            assert store.find(CAT) == (ANSWER if filled else None)
            with store.claim(dog, never):
                store.put(dog, ANSWER)
            assert store.find(dog) == ANSWER
            assert dog in store.all()
            assert len(warnings) == 1
            assert 'kept in memory' in warnings[0]

        assert in_child(work, user=65534) == 0
        Path(folder).chmod(0o755)


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_full_disk_keeps_answers_in_memory(path):
    Store(path).close()

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.dont_write_bytecode = True  # a compiled file cut short would stay
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
        store = Store(path)
        questions = [Question(f'class {i}', 'p', 10, 'm') for i in range(60)]
        for question in questions:
            store.put(question, Answer('tabby ' * 1000, 1.0))
        assert all(store.find(question) is not None for question in questions)
        assert set(store.all()) == set(questions)

    assert in_child(work) == 0
    written = Store(path).all()
    assert 0 < len(written) < 60


def test_folder_that_can_not_be_made(tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    store = Store(tmp_path / 'file' / 'store.sqlite3')
    store.put(CAT, ANSWER)
    assert store.find(CAT) == ANSWER
    assert 'kept in memory' in caplog.text


def test_claim_is_held_by_one_at_a_time(path):
    stores = [Store(path), Store(path)]
    inside, most, turns = [], [], []

    def work(store):
        for _ in range(3):
            with store.claim(CAT, never):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.005)
                inside.pop()
                turns.append(1)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(turns) == 12
    assert not list(path.parent.glob('*.lock'))


def test_different_questions_are_claimed_side_by_side(path):
    store = Store(path)
    with store.claim(CAT, never), store.claim(Question('dog', 'p', 1, 'm'), never):
        pass


def test_waiting_for_a_claim_can_be_given_up(path):
    store = Store(path)
    end = time.monotonic() + 0.2
    with store.claim(CAT, never), Store(path).claim(CAT, lambda: time.monotonic() > end):
        assert time.monotonic() > end


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_claim_of_a_killed_process_is_free(path):
    Store(path).close()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with Store(path).claim(CAT, never):
            os.write(writing, b'x')
            time.sleep(60)
        os._exit(0)
    assert os.read(reading, 1) == b'x'
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 5
    with Store(path).claim(CAT, lambda: time.monotonic() > end):
        assert time.monotonic() < end


def test_kill_at_any_moment_loses_no_answer(path):
    done = subprocess.run(
        [sys.executable, __file__, str(path), '50'], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    kept = Store(path).all()
    rounds = {question.class_key.split()[0] for question in kept}
    assert len(kept) >= int(done.stdout) >= len(rounds) - 25
    assert len(rounds) >= 25  # at least half of the 50 were killed while writing, not before
    assert not any('.damaged-' in file.name for file in path.parent.iterdir())


def kill_writers(path, rounds):
    """Kill a process that fills the store, again and again; print how many answers it reported."""
    reported = set()
    for number in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            store = Store(path)
            for i in range(1_000_000):
                store.put(Question(f'{number} {i}', 'p', 10, 'm'), Answer('tabby ' * 20, 1.0))
                os.write(writing, f'{number} {i}\n'.encode())
        os.close(writing)
        with os.fdopen(reading) as lines:
            if number % 2:  # else it may be opening the store yet
                reported.add(lines.readline().strip())
            time.sleep(random.uniform(0.0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            reported |= {line.strip() for line in lines if line.endswith('\n')}
        found = {question.class_key for question in Store(path).all()}
        assert reported <= found, reported - found
    print(len(reported))


if __name__ == '__main__':
    kill_writers(Path(sys.argv[1]), int(sys.argv[2]))
