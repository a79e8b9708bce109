"""Rules of a class file in every verb that takes one: a class with an area nothing has is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from llmseg_ros.cli.live import local_session, named_source

from ..helpers.bags import IMAGE, SECOND, image, write_bag
from ..helpers.room import CAMERA, circle, write_room

NEVER = 10_000_000  # pixels
RULES = f'- {{name: cat, minimum_area: {NEVER}}}\n- {{name: cup, minimum_score: 0, also: [mug]}}\n'
IN_REPORT = {'minimum_area': NEVER}

pytestmark = pytest.mark.usefixtures('encoders_are_loaded_once')


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / 'classes.yaml'
    path.write_text(RULES)
    return path


def report_of(llmseg: Any, classes: object, out: Path, *command: object) -> dict[str, Any]:
    done = llmseg(*command, '--classes', classes, '--json', out / 'numbers.json')
    assert done.code == 0, done.err
    assert 'are not used here' not in done.err
    report: dict[str, Any] = json.loads((out / 'numbers.json').read_text())
    return report


@pytest.mark.parametrize(
    ('options', 'score'),
    [
        ((), 'class_iou'),
        (('--single',), 'class_single_iou'),
        (('--boxes',), 'class_pointing_accuracy'),
    ],
    ids=['labels', 'single', 'boxes'],
)
def test_evaluate(
    llmseg: Any,
    photographs: Path,
    fast_config: Path,
    rules: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    score: str,
) -> None:
    root = photographs
    if options == ('--boxes',):
        root = tmp_path / 'boxed'
        (root / 'boxes').mkdir(parents=True)
        (root / 'images').symlink_to(photographs / 'images')
        for name in ('cat', 'cup', 'rocket'):
            (root / 'boxes' / f'{name}.txt').write_text(f'{name} 0 0 9999 9999\n')
    command = ('evaluate', '--root', root, '--config', fast_config, '--refine', 'none', *options)
    without = report_of(llmseg, 'cat, cup', tmp_path, *command)
    given = report_of(llmseg, rules, tmp_path, *command)
    assert without[score]['cat'] > 0
    assert given[score]['cat'] == 0
    assert given['rules']['cat'].items() >= IN_REPORT.items()
    assert 'rules' not in without


def test_scores_of_other_rules_are_not_gone_on_from(
    llmseg: Any, photographs: Path, fast_config: Path, rules: Path, tmp_path: Path
) -> None:
    command = ('evaluate', '--root', photographs, '--config', fast_config, '--refine', 'none')
    options = ('--classes', rules, '--report', tmp_path / 'report')
    assert llmseg(*command, *options).code == 0
    assert llmseg(*command, *options, '--resume').code == 0
    rules.write_text(RULES.replace(str(NEVER), '3'))
    refused = llmseg(*command, *options, '--resume')
    assert refused.code == 1
    assert 'was made with other settings' in refused.err


def test_rules_in_the_class_file_of_a_dataset_are_refused(
    llmseg: Any, photographs: Path, tmp_path: Path
) -> None:
    for name in ('images', 'labels'):
        (tmp_path / name).symlink_to(photographs / name)
    (tmp_path / 'classes.txt').write_text('- background\n- {name: cat, minimum_area: 3}\n')
    refused = llmseg('evaluate', '--root', tmp_path)
    assert refused.code == 1
    assert 'has rules of classes, and says what label values mean: give the rules' in refused.err


def test_replay(llmseg: Any, fast_config: Path, rules: Path, tmp_path: Path) -> None:
    cat = skimage.data.chelsea()
    bags = tmp_path / 'bags'
    for name in ('one', 'two'):
        write_bag(bags / name, [('/eye', IMAGE, image(cat, 'rgb8', stamp=7 * SECOND))])
    one = ('replay', bags / 'one', '--config', fast_config)
    assert report_of(llmseg, 'cat, cup', tmp_path, *one)['class_share']['cat'] > 0
    report = report_of(llmseg, rules, tmp_path, *one)
    assert report['class_share']['cat'] == 0
    assert report['rules']['cat'].items() >= IN_REPORT.items()

    every = (
        'replay',
        bags,
        '--config',
        fast_config,
        '--no-video',
        '--report',
        tmp_path / 'reports',
    )
    report = report_of(llmseg, rules, tmp_path, *every)
    assert (report['frames'], report['class_share']['cat']) == (2, 0)
    assert report['rules'] == {
        'cat': IN_REPORT,
        'cup': {'minimum_score': 0, 'also': ['mug']},
    }
    assert report_of(llmseg, rules, tmp_path, *every, '--resume')['frames'] == 2
    rules.write_text(RULES.replace(str(NEVER), '3'))
    refused = llmseg(*every, '--classes', rules, '--resume')
    assert refused.code == 1


def test_map(llmseg: Any, fast_config: Path, rules: Path, tmp_path: Path) -> None:
    room = write_room(tmp_path / 'room', circle(2))
    for path in (room / 'color').iterdir():
        Image.fromarray(skimage.data.chelsea()).resize((CAMERA.width, CAMERA.height)).save(path)
    command = ('map', room, '--config', fast_config, '--out', tmp_path / 'map', '--voxel', 0.2)
    assert report_of(llmseg, 'cat, cup', tmp_path, *command)['class_share']['cat'] > 0
    report = report_of(llmseg, rules, tmp_path, *command)
    assert report['class_share']['cat'] == 0
    assert report['rules']['cat'].items() >= IN_REPORT.items()


def test_live(fast_config: Path, rules: Path, tmp_path: Path) -> None:
    path = tmp_path / 'cat.png'
    Image.fromarray(skimage.data.chelsea()).save(path)
    source = named_source(str(path), fast_config, '')
    session = local_session(source, str(rules), fast_config, is_demo=False)
    in_force = session._segmenter.vocabulary.rules
    assert {key: rule.minimum_area for key, rule in in_force.items()} == {'cat': NEVER, 'cup': 0}
    assert session.set_classes(['dog', 'Cat']) == ()  # as the page does
    in_force = session._segmenter.vocabulary.rules
    assert {key: rule.minimum_area for key, rule in in_force.items()} == {'cat': NEVER}
    session.set_classes(['cat'], [('cat', {'minimum_area': 5})])
    assert session._segmenter.vocabulary.rules['cat'].minimum_area == 5
    session.close()


@pytest.mark.parametrize(
    'command',
    [
        ('evaluate', '--root', '{photographs}'),
        ('replay', '{bag}'),
        ('map', '{room}', '--out', '{out}'),
        ('live', '{picture}'),
    ],
    ids=lambda command: command[0],
)
def test_a_rule_that_can_not_be_used_is_refused_before_anything_is_done(
    llmseg: Any, photographs: Path, rules: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    rules.write_text('- {name: cat, minimum_score: 3}')
    bag, room, out = tmp_path / 'bag', tmp_path / 'room', tmp_path / 'out'
    if command[0] == 'replay':
        write_bag(bag, [('/eye', IMAGE, image(skimage.data.chelsea(), 'rgb8', stamp=SECOND))])
    paths = {'photographs': photographs, 'bag': bag, 'room': room, 'out': out}
    paths['picture'] = photographs / 'images' / 'cat.png'
    given = [text.format(**paths) for text in command]
    refused = llmseg(*given, '--classes', rules)
    assert refused.code == 1
    assert "rule of 'cat': minimum_score is 3, expected 0 to 1" in refused.err
    assert not out.exists()


def test_verbs_without_use_for_rules_take_the_names(
    llmseg: Any, rules: Path, tmp_path: Path
) -> None:
    space = tmp_path / 'space.yaml'
    done = llmseg('classes', 'export', rules, '--hydra', '--out', space)
    assert (done.code, space.exists()) == (0, True)
    assert 'the rules of its classes are not used here' in done.err
    table = tmp_path / 'table.json'
    done = llmseg('subclasses', rules, '--offline', '--json', table)
    assert done.code == 0, done.err
    assert [row['name'] for row in json.loads(table.read_text())] == ['cat', 'cup']
    assert 'the rules of its classes are not used here' in done.err
