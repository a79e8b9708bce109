"""What holds for every verb: help, exit codes, sentences instead of tracebacks."""

from __future__ import annotations

import errno
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmseg_ros.cli.common import CommandError, parse_classes, printable
from llmseg_ros.cli.main import app, main, one_sentence
from llmseg_ros.config import ConfigError

HEAVY = (
    'cv2',
    'matplotlib',
    'numpy',
    'PIL',
    'rclpy',
    'rosbags',
    'skimage',
    'torch',
    'transformers',
)
VERBS = sorted(c.name or c.callback.__name__ for c in app.registered_commands if c.callback)


def test_help_is_quick() -> None:
    command = [sys.executable, '-m', 'llmseg_ros.cli.main', '--help']
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_commands_import_nothing_heavy() -> None:
    code = f'import sys, llmseg_ros.cli.main; print([m for m in {HEAVY} if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == '[]'


def test_every_verb_is_listed(llmseg: Callable[..., Any]) -> None:
    outcome = llmseg('--help')
    assert outcome.code == 0
    assert all(f'\n  {verb} ' in outcome.out for verb in VERBS)


@pytest.mark.parametrize('verb', VERBS)
def test_help_of_a_verb_has_an_example(llmseg: Callable[..., Any], verb: str) -> None:
    outcome = llmseg(verb, '--help')
    assert outcome.code == 0
    assert re.search(rf'Examples?:.*llmseg {verb}\b', outcome.out, re.DOTALL)


@pytest.mark.parametrize(
    'arguments',
    [
        ['no-such-verb'],
        ['segment'],
        ['segment', 'x.jpg'],
        ['segment', 'x.jpg', '--classes', 'cat', '--no-such-option'],
        ['bench', '--frames', '0'],
        ['demo', '--rate', 'fast'],
    ],
)
def test_wrong_usage_exits_2(llmseg: Callable[..., Any], arguments: list[str]) -> None:
    outcome = llmseg(*arguments)
    assert outcome.code == 2
    assert outcome.out == ''
    assert 'Traceback' not in outcome.err


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (CommandError('two\nlines'), 'two lines'),
        (ConfigError('gate.top_k is 0'), 'gate.top_k is 0'),
        (OSError(errno.ENOSPC, 'No space left on device'), 'No space left on device'),
        (PermissionError(errno.EACCES, 'Permission denied', '/x'), '/x: Permission denied'),
        (ModuleNotFoundError(name='torch'), 'the Python module torch is missing'),
        (MemoryError(), 'out of memory'),
        (KeyError('x'), "internal error, please report it: KeyError: 'x'"),
    ],
)
def test_errors_are_one_sentence(error: Exception, sentence: str) -> None:
    assert one_sentence(error).startswith(sentence)
    assert '\n' not in one_sentence(error)


def test_an_error_is_told_on_stderr_and_exits_1(llmseg: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / 'config.yaml'
    config.write_text('gate: {name: nonsense}')
    outcome = llmseg('bench', '--config', config)
    assert outcome.code == 1
    assert outcome.out == ''
    assert 'gate.name' in outcome.err.splitlines()[-1]
    assert 'Traceback' not in outcome.err


def test_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('LLMSEG_TRACEBACK', '1')
    with pytest.raises(SystemExit):
        main(['bench', '--config', 'no/such/file.yaml'])
    assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('value', 'names'),
    [
        ('cat, sofa', ['cat', ' sofa']),
        ('cat', ['cat']),
        ('', []),
        ('  ', []),
        ('x' * 5000, ['x' * 5000]),
        ('a\0b', ['a\0b']),
    ],
)
def test_parse_classes_from_text(value: str, names: list[str]) -> None:
    assert parse_classes(value) == names


@pytest.mark.parametrize(
    ('value', 'sentence'),
    [
        ('missing.yaml', 'class file missing.yaml does not exist'),
        ('MISSING.TXT', 'class file MISSING.TXT does not exist'),
        ('./classes', 'class file ./classes does not exist'),
        ('/no/such/names', 'class file /no/such/names does not exist'),
        ('~/no such names', 'class file ~/no such names does not exist'),
        ('cat, dog, names.json', 'does not exist'),
        ('../', 'class file ../ is a folder'),
    ],
)
def test_what_looks_like_a_path_is_no_class(value: str, sentence: str) -> None:
    with pytest.raises(CommandError) as refusal:
        parse_classes(value)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize('value', ['TV/monitor', 'St. Bernard', 'Dr.Pepper', 'and/or, a.m.'])
def test_names_with_dots_and_slashes_are_classes(value: str) -> None:
    assert parse_classes(value) == value.split(',')


def test_a_folder_of_a_class_name_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'cat').mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_classes('cat') == ['cat']


def test_the_background_of_a_class_file_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / 'labelmap.txt'
    path.write_text('# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\n')
    assert parse_classes(str(path)) == ['cat']


def test_a_shipped_class_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert 'person' in parse_classes('config/classes/voc.txt')


def test_parse_classes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'classes.txt'
    path.write_bytes('\ufeffcat\r\n\nwarm, soft sofa\n猫\n'.encode())
    assert parse_classes(str(path)) == ['cat', 'warm, soft sofa', '猫']


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [(None, 'does not exist'), (b'\xff\xfe\x00', 'not UTF-8'), (b'x' * 1_000_001, 'larger than')],
)
def test_parse_classes_refuses_a_bad_file(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / 'classes.txt'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=sentence):
        parse_classes(str(path))


def test_printable_escapes_what_steers_a_terminal() -> None:
    assert printable('cat\x1b[31m\n\udcff猫') == 'cat\\x1b[31m\\n\\udcff猫'
