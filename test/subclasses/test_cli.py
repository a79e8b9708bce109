import json
import os
import socket
import subprocess
import sys
from typing import NamedTuple

import pytest

from llmseg_ros.cli.main import main
from llmseg_ros.subclasses.packs import curated_packs, load_pack
from llmseg_ros.subclasses.store import default_store_path


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run `llmseg subclasses` in this process."""

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(['subclasses', *map(str, arguments)])
        captured = capsys.readouterr()
        return Run(left.value.code or 0, captured.out, captured.err)

    return call


def rows(out):
    """Split the table into cells by class name."""
    return {line.split('  ')[0].strip(): line for line in out.splitlines()[1:]}


def test_pack_without_a_network(run, monkeypatch):
    monkeypatch.setattr(socket.socket, 'connect', lambda *_: pytest.fail('network touched'))
    done = run('dog', 'zub', '--offline', '--no-filter')
    assert done.code == 0
    assert 'Chihuahua' in rows(done.out)['dog']
    assert 'pack' in rows(done.out)['dog']
    assert rows(done.out)['zub'].split() == ['zub', '-', '-', 'name', '-']
    assert not default_store_path().parent.exists()


def test_without_a_language_model_it_says_what_to_do(run, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    done = run('zub', '--no-filter')
    assert done.code == 0
    assert 'no subclasses of zub: set a language model' in done.err


def test_a_named_server_is_asked_even_for_what_packs_know(run, server):
    done = run('cat', '--base-url', server.url, '--no-filter')
    assert done.code == 0
    assert 'red cat, green cat, blue cat' in rows(done.out)['cat']
    assert 'llm' in rows(done.out)['cat']
    done = run('cat', '--base-url', server.url, '--no-filter')
    assert 'store' in rows(done.out)['cat']
    done = run('cat', '--base-url', server.url, '--no-filter', '--refresh')
    assert 'llm' in rows(done.out)['cat']
    assert server.asked == ['cat', 'cat']


def test_configured_server_is_asked_only_for_what_packs_lack(run, server, monkeypatch):
    monkeypatch.setenv('OPENAI_BASE_URL', server.url)
    done = run('cat', 'zub', '--no-filter')
    assert 'pack' in rows(done.out)['cat']
    assert 'llm' in rows(done.out)['zub']
    assert server.asked == ['zub']


def test_prompt_n_and_model_reach_the_server(run, server, tmp_path):
    (tmp_path / 'mine.txt').write_text('Give {n} subclasses of {class}:')
    done = run(
        'zub', '--base-url', server.url, '--prompt', tmp_path / 'mine.txt', '--n', 2,
        '--model', 'mine', '--no-filter',
    )  # fmt: skip
    (body,) = server.requests
    assert body['messages'][0]['content'] == 'Give 2 subclasses of zub:'
    assert body['model'] == 'mine'
    assert 'red zub, green zub ' in done.out


def test_failure_is_a_sentence_and_the_others_are_shown(run, server, environment):
    server.behave = lambda request: server.status(401) if b'zub' in request.data else None
    done = run('gub', 'zub', '--base-url', server.url, '--no-filter')
    assert done.code == 1
    assert 'red gub' in done.out
    assert 'zub: the language model at' in done.err
    assert 'refuses the key (401)' in done.err
    assert environment not in done.out + done.err


@pytest.mark.parametrize(
    ('arguments', 'code', 'message'),
    [
        ([], 2, 'name at least one class'),
        (['--offline', '--export', 'x.yaml'], 2, 'name at least one class'),
        (['\x07', '--offline'], 2, 'control characters'),
        (['cat', '--n', '0'], 2, '--n'),
        (['cat', '--prompt', 'none.txt'], 1, 'neither few-shot nor zero-shot nor a UTF-8 text'),
        (['cat', '--base-url', 'nonsense'], 1, 'write it like http://'),
        (['--import', 'none.yaml'], 1, 'No such file'),
    ],
)
def test_wrong_usage(run, arguments, code, message):
    done = run(*arguments)
    assert done.code == code
    assert message in done.err
    assert 'Traceback' not in done.err


def test_filter_drops_with_a_reason(run, server, tmp_path):
    pytest.importorskip('torch')
    server.behave = lambda request: server.answer(
        'beagle, Persian cat, Chihuahua, dogs, chihuahua, golden retriever, school bus, pug'
    )
    done = run(
        'dog', 'cat', '--base-url', server.url, '--json', tmp_path / 'out.json',
        '--export', tmp_path / 'out.yaml',
    )  # fmt: skip
    assert done.code == 0, done.err
    dog, _ = json.loads((tmp_path / 'out.json').read_text())
    assert dog['kept'] == ['beagle', 'Chihuahua', 'golden retriever', 'pug']
    reasons = {drop['name']: drop['reason'] for drop in dog['dropped']}
    assert reasons['Persian cat'].startswith("is nearer to 'cat'")
    assert reasons['dogs'] == 'repeats the class name'
    assert reasons['school bus'].startswith('is ')
    assert dog['source'] == 'llm'
    assert dog['asked_at'] > 1.7e9
    assert load_pack(tmp_path / 'out.yaml').find('dog') == tuple(dog['kept'])


def test_what_is_shown_of_packs_is_what_the_segmenter_takes(run, monkeypatch, tmp_path):
    monkeypatch.delenv('OPENAI_API_KEY')
    names = ['cow', 'orange', 'sheep', 'laptop']
    monkeypatch.setattr(
        'llmseg_ros.encoders.create_encoder', lambda config: pytest.fail('nothing is compared')
    )
    done = run(*names, '--json', tmp_path / 'out.json', '--export', tmp_path / 'own.yaml')
    assert done.code == 0, done.err
    assert [row['dropped'] for row in json.loads((tmp_path / 'out.json').read_text())] == [[]] * 4
    for name in ('cow', 'sheep'):
        exported = load_pack(tmp_path / 'own.yaml').find(name)
        assert exported == curated_packs()[2].find(name)
        assert {'white ox', 'ram'} & set(exported)


def test_a_subclass_that_the_filter_drops_is_no_reason_to_drop_a_contrast(run, server, tmp_path):
    pytest.importorskip('torch')
    server.behave = lambda request: server.answer('beagle, pug, collie, lamp post')
    config = tmp_path / 'config.yaml'
    config.write_text('imagenet: {model: lite0}\nsubclasses: {packs: false, model: m}')
    server_options = ['--base-url', server.url, '--config', config]
    assert run('dog', *server_options, '--no-filter').code == 0
    done = ' '.join(run('dog', *server_options, '--contrasts').out.split())
    assert 'dog lamp post ' in done  # far from a dog, so no subclass
    assert "beagle: stands for 'dog'" in done


def test_import_then_offline_then_prune(run, server, tmp_path):
    (tmp_path / 'own.yaml').write_text(
        'classes: {zub: {aliases: [zubby], subclasses: [big zub, small zub]}}'
    )
    store = ['--store', tmp_path / 's.sqlite3', '--no-filter']
    done = run('--import', tmp_path / 'own.yaml', *store)
    assert (done.code, done.out) == (0, '')
    assert '1 classes put into' in done.err
    done = run('zub', 'Zubby', '--offline', *store)
    for name in ('zub', 'Zubby'):
        assert 'big zub, small zub' in rows(done.out)[name]
        assert 'store' in rows(done.out)[name]
    done = run('--prune', *store)
    assert '0 of 2 answers forgotten' in done.err
    done = run('--prune', '--n', 3, *store)
    assert '2 of 2 answers forgotten' in done.err
    done = run('zub', '--offline', *store)
    assert rows(done.out)['zub'].split() == ['zub', '-', '-', 'name', '-']


def test_names_can_not_steer_the_terminal(run, server):
    server.behave = lambda request: server.answer('["[red]zub[/red]", "big zub", "\\u001b[31m x"]')
    done = run('zub [bold]', '--base-url', server.url, '--no-filter')
    assert 'zub [bold]' in done.out
    assert '\x1b' not in done.out


def test_command_as_users_run_it(server):
    done = subprocess.run(
        [sys.executable, '-m', 'llmseg_ros.cli.main', 'subclasses', 'cat', '--no-filter',
         '--base-url', server.url],
        env={**os.environ, 'OPENAI_API_KEY': 'anything'},
        capture_output=True,
        text=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'red cat, green cat, blue cat' in done.stdout
    assert server.asked == ['cat']


def test_names_are_split_at_commas(run):
    done = run('dog, cat', 'mug', '--offline', '--no-filter')
    assert list(rows(done.out)) == ['dog', 'cat', 'mug']


def test_no_answer_is_a_sentence_and_kept_nowhere(run, server, tmp_path):
    server.behave = lambda request: server.reply('', 'length')
    target = tmp_path / 'out.yaml'
    done = run('zub', '--base-url', server.url, '--no-filter', '--export', target)
    assert done.code == 1
    assert 'zub: the language model at' in done.err
    assert 'gave an answer that was cut off before it began (the length limit)' in done.err
    assert not target.exists()
    server.behave = lambda request: None
    done = run('zub', '--base-url', server.url, '--no-filter')
    assert done.code == 0
    assert 'red zub' in done.out


def test_answer_without_a_name_is_shown(run, server):
    server.behave = lambda request: server.answer('I am sorry,\nno zubs here.')
    done = run('zub', '--base-url', server.url, '--no-filter')
    assert done.code == 0
    assert 'zub: no name in what the language model answered: I am sorry, no zubs' in done.err


def test_export_never_overwrites_unless_told(run, server, tmp_path):
    target = tmp_path / 'out.yaml'
    target.write_text('mine')
    done = run('zub', '--base-url', server.url, '--no-filter', '--export', target)
    assert done.code == 1
    assert 'exists: name another file, or overwrite it with --force' in done.err
    assert target.read_text() == 'mine'
    assert server.requests == []
    done = run('zub', '--base-url', server.url, '--no-filter', '--export', target, '--force')
    assert done.code == 0
    assert load_pack(target).find('zub') == ('red zub', 'green zub', 'blue zub')


def test_export_names_the_source_of_every_list(run, server, tmp_path, monkeypatch):
    monkeypatch.setenv('OPENAI_BASE_URL', server.url)
    server.behave = lambda request: server.answer('sorry') if b'nix' in request.data else None
    own, target = tmp_path / 'own.yaml', tmp_path / 'out.yaml'
    own.write_text('origin: by hand\nclasses: {gub: {subclasses: [big gub]}}')
    config = tmp_path / 'config.yaml'
    config.write_text('subclasses: {model: the-model}\n')
    arguments = ['--config', config, '--no-filter']
    assert run('--import', own, *arguments).code == 0
    done = run('cat', 'gub', 'zub', 'nix', *arguments, '--export', target)
    assert done.code == 0, done.err
    assert 'without nix: no subclasses' in done.err
    pack = load_pack(target)
    assert list(pack.classes) == ['cat', 'gub', 'zub']
    assert pack.origins['cat'].startswith('voc.yaml: ')
    assert pack.origins['gub'].startswith('own.yaml: by hand, imported 2')
    assert pack.origins['zub'].startswith('language model the-model, prompt few-shot, 2')
    assert 'language model' not in pack.origin
    again = tmp_path / 'again.yaml'
    config.write_text(f'subclasses: {{file: {target}}}\n')
    assert run('zub', *arguments, '--export', again).code == 0
    assert load_pack(again).origins['zub'].startswith('out.yaml: language model the-model')


@pytest.mark.parametrize(
    ('arguments', 'code', 'message'),
    [
        (['cat', '--refresh', '--offline'], 2, '--offline forbids'),
        (['cat', '--force'], 2, '--force is for --export'),
        (['zub', '--offline', '--export', 'none.yaml'], 1, 'is not written: no subclasses of zub'),
        (['cat', '--offline', '--export', '/proc/x.yaml'], 1, 'can not be written'),
    ],
)
def test_export_and_refresh_used_wrongly(run, arguments, code, message):
    done = run(*arguments, '--no-filter')
    assert done.code == code
    assert message in done.err.replace('\n', ' ')
    assert 'Traceback' not in done.err


def test_contrasts_are_shown_like_subclasses(run, server, tmp_path, monkeypatch):
    monkeypatch.setenv('OPENAI_BASE_URL', server.url)
    done = run('boat', 'zub', '--contrasts', '--no-filter', '--json', tmp_path / 'out.json')
    assert done.code == 0, done.err
    boat, zub = json.loads((tmp_path / 'out.json').read_text())
    assert 'dock' in boat['kept']
    assert boat['source'] == 'pack'
    assert zub['kept'] == ['wall', 'zub stand', 'window']
    assert zub['source'] == 'llm'
    assert server.asked == []
    assert server.asked_contrasts == ['zub']
    done = run('zub', 'wall', '--contrasts', '--no-filter')
    assert rows(done.out)['zub'].split()[1:3] == ['zub', 'stand,']
    assert "wall: is the requested class 'wall'" in done.out
    assert 'store' in rows(done.out)['zub']
    run('boat', '--contrasts', '--refresh', '--no-filter')
    assert server.asked_contrasts == ['zub', 'wall', 'boat']


def test_contrasts_are_filtered_by_meaning(run, server):
    pytest.importorskip('torch')
    server.behave = lambda request: server.answer('wheel, taxi, road, sedan')
    done = run('car', '--contrasts', '--base-url', server.url)
    assert done.code == 0, done.err
    assert rows(done.out)['car'].split()[:2] == ['car', 'road']
    for reason in ("wheel: is a part of 'car'", "taxi: is a kind of 'car'"):
        assert reason in ' '.join(done.out.split())


def test_contrasts_go_into_the_store_and_stay_there(run, tmp_path, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    own = tmp_path / 'own.yaml'
    own.write_text(
        'classes:\n  zub: {subclasses: [big zub], contrasts: [quay, pier]}\n'
        '  gub: {subclasses: [big gub]}\n'
    )
    assert run('--import', own).code == 0
    assert '0 of 3 answers forgotten' in run('--prune').err
    done = run('zub', 'gub', '--contrasts', '--no-filter')
    assert rows(done.out)['zub'].split()[:3] == ['zub', 'quay,', 'pier']
    assert 'no contrasts of gub: set a language model' in done.err
    assert '3 of 3 answers forgotten' in run('--prune', '--n', 3).err


def test_empty_lists_go_into_the_store_as_such_and_long_ones_are_cut_aloud(
    run, server, tmp_path, monkeypatch
):
    monkeypatch.setenv('OPENAI_BASE_URL', server.url)
    own = tmp_path / 'own.yaml'
    own.write_text(
        'classes:\n  zub: {aliases: [zubby], subclasses: [], contrasts: [quay, pier, rock]}\n'
        '  gub: {subclasses: [big gub], contrasts: []}\n'
    )
    done = run('--import', own, '--n', 2)
    assert done.err.count('are left out') == 1
    assert 'zub: 1 contrasts are left out, repeated or more than --n 2' in done.err
    assert '0 of 6 answers forgotten' in run('--prune', '--n', 2).err
    done = run('zub', 'gub', '--n', 2, '--no-filter', '--json', tmp_path / 'out.json')
    assert [row['kept'] for row in json.loads((tmp_path / 'out.json').read_text())] == [
        [], ['big gub']
    ]  # fmt: skip
    done = run('zub', 'gub', '--contrasts', '--n', 2, '--no-filter')
    assert rows(done.out)['zub'].split()[1:3] == ['quay,', 'pier']
    assert rows(done.out)['gub'].split()[1:4] == ['-', '-', 'store']
    assert server.requests == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--prompt', 'zero-shot'], '--prompt is for subclasses, without --contrasts'),
        (['--export', 'x.yaml'], '--export is for subclasses, without --contrasts'),
    ],
)
def test_contrasts_used_wrongly(run, arguments, message):
    done = run('cat', '--contrasts', '--offline', *arguments)
    assert done.code == 2
    assert message in ' '.join(done.err.split())
