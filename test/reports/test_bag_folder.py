"""`llmseg replay` of a folder of bags, with the real model."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from llmseg_ros.bags.scores import ReplayScores, scores_from_record
from llmseg_ros.evaluation.metrics import class_iou
from llmseg_ros.reports import bag_folder
from llmseg_ros.reports.bag_folder import find_bags, is_folder_of_bags

from ..helpers.bags import (
    IMAGE,
    SECOND,
    STRING,
    image,
    string,
    write_bag,
    write_bags,
    write_ros1_bag,
)
from ..helpers.commands import replay

CLASSES = ('cat', 'cup', 'rocket')


@pytest.fixture(scope='module')
def bags(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bags with true labels, in a folder below one with bags that can't be used."""
    folder = tmp_path_factory.mktemp('bags')
    write_bags(photographs, folder / 'monday', 2)
    write_bag(folder / 'no <b>camera', [('/note', STRING, string('begin'))])
    whole = next((folder / 'monday' / 'bag0').glob('*.mcap')).read_bytes()
    (folder / 'cut.mcap').write_bytes(whole[:100])
    return folder


@pytest.fixture(scope='module')
def options(fast_config: Path) -> list[object]:
    return ['--classes', ','.join(CLASSES), '--config', fast_config, '--labels', '/truth']


@pytest.fixture(scope='module')
def reports(bags: Path, options: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('reports')
    assert replay(bags, *options, '--report', folder, '--json', folder / 'copy.json') == 1
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """Return what was counted over frames and not by the clock."""
    names = ('frames', 'labelled_frames', 'miou', 'pixel_accuracy', 'class_iou', 'class_share')
    return {name: report[name] for name in (*names, 'changed_pixels', 'presence_changes')}


def test_each_bag_has_the_report_it_has_alone(
    bags: Path, options: list[object], reports: Path, tmp_path: Path
) -> None:
    for bag in ('bag0', 'bag1'):
        assert replay(bags / 'monday' / bag, *options, '--report', tmp_path / bag) == 0
        alone, below = (read(f / bag / 'report.json') for f in (tmp_path, reports / 'monday'))
        assert set(alone) == set(below)
        assert (
            numbers(alone)
            == numbers(below)
            == numbers(read(reports / 'report.json')['bags'][f'monday/{bag}'])
        )
        assert sorted(p.name for p in (reports / 'monday' / bag).iterdir()) == [
            *('overlay.mp4', 'report.html', 'report.json', 'scores.json')
        ]


def test_the_sums_are_those_of_all_frames(reports: Path) -> None:
    report = read(reports / 'report.json')
    assert report == read(reports / 'copy.json')
    assert (report['frames'], report['labelled_frames'], report['complete']) == (6, 6, True)
    assert report['image_topic'] == '/camera'
    paths = sorted(reports.glob('monday/*/scores.json'))
    parts = [scores_from_record(report['classes'], read(path)['scores']) for path in paths]
    confusion = parts[0].confusion + parts[1].confusion
    ious = class_iou(confusion)
    assert list(report['class_iou'].values()) == pytest.approx(ious.tolist(), abs=1e-6)
    pixels = parts[0].pixels_n + parts[1].pixels_n
    assert report['class_share']['cat'] == pytest.approx(pixels[1] / pixels.sum(), abs=1e-6)
    assert 0.1 < report['class_share']['cat'] < 0.9
    totals = [value for part in parts for value in part.timings_ms['total']]
    assert len(totals) == 6
    assert report['timing_ms']['total']['p50'] == round(float(np.median(totals)), 2)


def test_bags_that_can_not_be_used_are_told(
    bags: Path, options: list[object], reports: Path, tmp_path: Path, capsys: Any
) -> None:
    problems = read(reports / 'report.json')['problems']
    assert sorted(problems) == ['cut.mcap', 'no <b>camera']
    assert 'no camera images' in problems['no <b>camera']
    page = (reports / 'report.html').read_text()
    assert '2 more bags can not be used' in page
    assert 'no &lt;b&gt;camera' in page
    assert 'href="./monday/bag0/report.html"' in page
    capsys.readouterr()
    assert replay(bags, *options, '--image', '/eye', '--report', tmp_path / 'r') == 1
    said = capsys.readouterr().err
    assert 'bag0: the bag has no topic /eye; it has /camera' in said
    assert said.splitlines()[-1] == f'llmseg: none of the 4 bags in {bags} can be used'
    assert not (tmp_path / 'r').exists()


def test_resuming_does_what_is_missing(
    bags: Path, options: list[object], reports: Path, tmp_path: Path, capsys: Any
) -> None:
    copy = shutil.copytree(reports, tmp_path / 'copy')
    (copy / 'monday' / 'bag1' / 'scores.json').unlink()
    kept = (copy / 'monday' / 'bag0' / 'report.html').stat().st_mtime_ns
    arguments = [bags, *options, '--report', copy, '--resume', '--no-video']
    assert replay(*arguments) == 1
    assert (copy / 'monday' / 'bag0' / 'report.html').stat().st_mtime_ns == kept
    assert numbers(read(copy / 'report.json')) == numbers(read(reports / 'report.json'))
    capsys.readouterr()
    assert replay(*arguments, '--classes', 'cat,dog,cup') == 1
    assert 'scores.json was made with other settings, classes or data' in capsys.readouterr().err
    (copy / 'monday' / 'bag0' / 'scores.json').write_text('{')
    assert replay(*arguments) == 1
    assert 'bag0/scores.json is damaged, remove it' in capsys.readouterr().err


def test_a_bag_that_fails_on_the_way_does_not_keep_the_others(
    photographs: Path, options: list[object], tmp_path: Path, capsys: Any
) -> None:
    bags = write_bags(photographs, tmp_path / 'bags', 2)
    rgb = skimage.data.chelsea()
    frame, wrong = image(rgb, 'rgb8'), image(np.full(rgb.shape[:2], 7, np.uint8), 'mono8')
    write_bag(bags / 'a', [('/camera', IMAGE, frame), ('/truth', IMAGE, wrong)])
    assert replay(bags, *options, '--report', tmp_path / 'r') == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == 'llmseg: a: a label image of /truth has the id 7, the class list ends at 3'
    assert said[-1] == 'llmseg: 1 of 3 bags can not be used, see above'
    report = read(tmp_path / 'r' / 'report.json')
    assert (sorted(report['bags']), list(report['problems'])) == (['bag0', 'bag1'], ['a'])
    assert list((tmp_path / 'r' / 'a').iterdir()) == []


def test_a_frame_that_can_not_be_used_costs_that_frame(
    photographs: Path, options: list[object], tmp_path: Path, capsys: Any
) -> None:
    bags = write_bags(photographs, tmp_path / 'bags', 2)
    rgb = skimage.data.chelsea()
    truth = ('/truth', IMAGE, image(np.zeros(rgb.shape[:2], np.uint8), 'mono8'))
    frames = [('/camera', IMAGE, image(rgb, 'rgb8', stamp)) for stamp in (SECOND, 2 * SECOND)]
    frames.append(('/camera', IMAGE, image(rgb, '32FC3', 3 * SECOND)))
    file = write_bag(bags / 'a', [truth, *frames]) / 'a.mcap'
    content = file.read_bytes()
    file.write_bytes(content[:-20])  # and its end is cut off
    arguments = [bags, *options, '--report', tmp_path / 'r', '--no-video']
    for resume in ([], ['--resume']):
        assert replay(*arguments, *resume) == 0
        assert 'rejected: 1 of 9 frames' in capsys.readouterr().out
        report = read(tmp_path / 'r' / 'report.json')
        assert (report['frames'], report['rejected_frames'], report['problems']) == (8, 1, {})
        (rejected,) = report['bags']['a']['rejections']
        assert (rejected['topic'], rejected['stamp']) == ('/camera', 3 * SECOND)
        assert "encoding '32FC3' is not supported" in rejected['reason']
    assert 'frames rejected' in (tmp_path / 'r' / 'report.html').read_text()
    page = (tmp_path / 'r' / 'a' / 'report.html').read_text()
    assert 'Messages that can not be used' in page
    assert '3.000000000' in page


def test_ctrl_c_keeps_the_bags_that_are_done(
    photographs: Path,
    options: list[object],
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bags = write_bags(photographs, tmp_path / 'bags', 3)
    replay_one = bag_folder.replay_one

    def replay_and_interrupt(task: Any, segmenter: Any, bag: str, *more: Any) -> Any:
        if bag == 'bag1':
            signal.raise_signal(signal.SIGINT)
        return replay_one(task, segmenter, bag, *more)

    monkeypatch.setattr(bag_folder, 'replay_one', replay_and_interrupt)
    arguments = [bags, *options, '--report', tmp_path / 'r', '--no-video']
    assert replay(*arguments) == 130
    assert 'interrupted with 1 of 3 bags done, --resume goes on' in capsys.readouterr().err
    report = read(tmp_path / 'r' / 'report.json')
    assert (list(report['bags']), report['complete']) == (['bag0'], False)
    monkeypatch.undo()
    assert replay(*arguments, '--resume') == 0
    assert read(tmp_path / 'r' / 'report.json')['complete']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'that needs --report DIR'),
        (['--report', 'r', '--mode', 'lockstep'], 'goes with --mode offline'),
        (['--report', 'r', '--out', 'o'], 'without --out'),
    ],
)
def test_what_does_not_go_with_a_folder(
    bags: Path, options: list[object], capsys: Any, arguments: list[str], message: str
) -> None:
    if 'lockstep' in arguments:
        pytest.importorskip('rclpy')
    assert replay(bags, *options, *arguments) == 2
    assert message in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('option', [['--resume'], ['--ray', 'local'], ['--ray-workers', '2']])
def test_what_does_not_go_with_a_bag(
    bags: Path, options: list[object], capsys: Any, option: list[str]
) -> None:
    assert replay(bags / 'monday' / 'bag0', *options, *option) == 2
    assert '--resume and --ray are for a folder of bags' in capsys.readouterr().err


def test_which_folders_are_folders_of_bags(bags: Path, tmp_path: Path) -> None:
    assert find_bags(bags) == ['cut.mcap', 'monday/bag0', 'monday/bag1', 'no <b>camera']
    assert is_folder_of_bags(bags)
    assert not is_folder_of_bags(bags / 'monday' / 'bag0')
    assert not is_folder_of_bags(bags / 'cut.mcap')
    one = tmp_path / 'one'  # a recording that was cut off before its metadata.yaml
    shutil.copytree(bags / 'monday' / 'bag0', one, ignore=lambda *_: ['metadata.yaml'])
    assert not is_folder_of_bags(one)
    write_ros1_bag(one / 'old.bag', np.zeros((4, 6, 3), np.uint8))
    (one / '.partial').mkdir()
    (one / '.partial' / 'x.mcap').touch()
    assert find_bags(one) == ['bag0.mcap', 'old.bag']
    assert is_folder_of_bags(one)
    assert not is_folder_of_bags(tmp_path / 'nothing')


def test_scores_survive_being_written() -> None:
    scores = ReplayScores(['background', 'cat'])
    other = scores_from_record(scores.names, json.loads(json.dumps(scores.to_record())))
    assert other.to_record() == scores.to_record()
    with pytest.raises(ValueError, match='reshape'):
        scores_from_record(['background'], scores.to_record())
