"""Where `llmseg evaluate` takes subclasses from."""

import json
import socket

import numpy as np
import pytest
import skimage.data
from PIL import Image

from llmseg_ros.cli.main import main
from llmseg_ros.subclasses.store import default_store_path

pytestmark = pytest.mark.usefixtures('encoders_are_loaded_once')

NOBODY = 'http://127.0.0.1:9/v1'


@pytest.fixture
def evaluate(fast_config, tmp_path, capsys):
    """Run `llmseg evaluate` on a cat under a name that only the language model understands."""
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    rgb = skimage.data.chelsea()
    labels = np.zeros(rgb.shape[:2], np.uint8)
    labels[20:-20, 60:-60] = 2
    Image.fromarray(rgb).save(tmp_path / 'images' / 'a.png')
    Image.fromarray(labels).save(tmp_path / 'labels' / 'a.png')
    (tmp_path / 'classes.txt').write_text('background\ndog\nzub\nquib\n')

    def run(*arguments, url=''):
        common = ['--root', tmp_path, '--config', fast_config(url), '--json', tmp_path / 'j']
        with pytest.raises(SystemExit) as left:
            main(['evaluate', *map(str, common), *arguments])
        error = capsys.readouterr().err
        if left.value.code:
            return left.value.code, error, None
        report = json.loads((tmp_path / 'j').read_text())
        return 0, error, report

    return run


@pytest.fixture
def server(server):
    """A language model that knows what a zub is."""
    names = {'zub': ['tabby cat', 'tiger cat', 'Egyptian cat'], 'quib': ['volcano', 'geyser']}

    def behave(request):
        body = json.loads(request.data)
        beside = {'contrasts': ['lawn']}
        found = {'subclasses': names[server.class_name(body)]}
        return server.answer(json.dumps(beside if server.is_contrasts(body) else found))

    server.behave = behave
    return server


def numbers(report):
    """Return what does not depend on when and how the subclasses were found."""
    return {key: value for key, value in report.items() if key not in ('timing_ms', 'config')}


def test_answers_are_waited_for_once_and_kept(evaluate, server, monkeypatch):
    """A second run needs no server; the store alone gives the same, without any network."""
    code, _, first = evaluate('--subclasses', 'llm', url=server.url)
    assert code == 0
    assert sorted(server.asked) == sorted(server.asked_contrasts) == ['quib', 'zub']
    code, _, again = evaluate('--subclasses', 'llm', url=NOBODY)
    assert code == 0
    monkeypatch.setattr(socket.socket, 'connect', lambda *_: pytest.fail('network touched'))
    code, _, from_store = evaluate('--subclasses', 'store', url=NOBODY)
    assert code == 0
    assert len(server.requests) == 4
    assert numbers(first) == numbers(again) == numbers(from_store)
    assert first['class_iou']['zub'] > 0.3


def test_a_model_that_is_set_is_asked_before_the_first_image(evaluate, server):
    """Else answers would come in the middle, and two runs would differ."""
    code, _, report = evaluate(url=server.url)
    assert code == 0
    assert sorted(server.asked) == ['quib', 'zub']
    assert report['class_iou']['zub'] > 0.3


def test_sources_can_be_compared(evaluate, server, tmp_path):
    code, _, report = evaluate('--ablate', 'subclasses=none,packs,store,llm', url=server.url)
    assert code == 0
    ious = {run['name']: run['class_iou']['zub'] for run in report['runs']}
    assert list(ious) == [f'subclasses={source}' for source in ('none', 'packs', 'store', 'llm')]
    assert ious['subclasses=llm'] > ious['subclasses=packs'] == ious['subclasses=none']


@pytest.mark.parametrize('source', ['configured', 'llm'])
def test_a_server_that_is_down_ends_in_one_sentence(evaluate, tmp_path, source):
    report = tmp_path / 'report'
    code, error, _ = evaluate('--subclasses', source, '--report', str(report), url=NOBODY)
    assert code == 1
    assert '127.0.0.1:9 can not be reached' in error
    assert '--subclasses store does without it' in error
    assert error.count('\n') == 1
    assert not list(report.iterdir())


def test_no_model_is_set(evaluate, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    code, error, _ = evaluate('--subclasses', 'llm')
    assert code == 1
    assert 'no language model is set: give subclasses.base_url' in error


@pytest.mark.parametrize('source', ['none', 'packs', 'store'])
def test_others_touch_no_network(evaluate, monkeypatch, source):
    monkeypatch.setattr(socket.socket, 'connect', lambda *_: pytest.fail('network touched'))
    code, _, _ = evaluate('--subclasses', source, url=NOBODY)
    assert code == 0
    assert not default_store_path().exists()
