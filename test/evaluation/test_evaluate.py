"""`llmseg evaluate` on real photographs with the real model, against a plain loop."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from llmseg_ros.cli.common import progress
from llmseg_ros.config_files import load_config
from llmseg_ros.evaluation.datasets import Dataset, folder_dataset
from llmseg_ros.evaluation.evaluate import MOST_UNSCORED, Evaluator, score_images
from llmseg_ros.evaluation.variants import ABLATED, find_subclasses, make_variants, with_setting
from llmseg_ros.reports.report import truth_warnings
from llmseg_ros.segmenter import Segmenter

from ..helpers.commands import evaluate
from ..helpers.disk import room_for


def make_evaluator(dataset: Dataset, config: Path, *axes: str) -> Evaluator:
    variants = make_variants(load_config(config), {axis: ABLATED[axis] for axis in axes})
    return Evaluator(dataset, variants, find_subclasses(variants, dataset.classes, progress))


@pytest.fixture(scope='module')
def ablated(
    photographs: Path, fast_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The report of an ablation over fusion and subclasses."""
    out = tmp_path_factory.mktemp('report')
    arguments = ['--root', photographs, '--config', fast_config, '--refine', 'none']
    arguments += ['--ablate', 'fusion,subclasses', '--report', out, '--json', out / 'copy.json']
    assert evaluate(*arguments) == 0
    text = (out / 'report.json').read_text()
    assert (out / 'copy.json').read_text() == text
    report: dict[str, Any] = json.loads(text)
    return report


def test_report_of_an_ablation(ablated: dict[str, Any]) -> None:
    assert (ablated['images'], ablated['complete']) == (3, True)
    assert ablated['classes'] == ['background', 'cat', 'cup', 'rocket']
    names = [run['name'] for run in ablated['runs']]
    assert names[:2] == ['fusion=paper subclasses=none', 'fusion=paper subclasses=packs']
    assert len(set(names)) == len(names) == 2 * len(ABLATED['fusion'])
    for run in ablated['runs']:
        assert set(run) >= {
            *('dataset', 'images', 'classes', 'miou', 'pixel_accuracy', 'class_iou'),
            *('presence_ap', 'class_presence_ap'),
            *('timing_ms', 'config', 'versions'),
        }
        assert set(run['timing_ms']) == {'encode', 'fuse', 'gate', 'refine', 'total'}
        assert run['timing_ms']['encode'] == ablated['runs'][0]['timing_ms']['encode']
        assert run['config']['refine']['name'] == 'none'


@pytest.mark.parametrize('name', ['fusion=max subclasses=packs', 'fusion=mean subclasses=none'])
def test_ablation_equals_a_plain_loop(
    ablated: dict[str, Any], photographs: Path, fast_config: Path, name: str
) -> None:
    config = load_config(fast_config)
    for setting in ('refine=none', *name.split()):
        config = with_setting(config, *setting.split('='))
    classes = (photographs / 'classes.txt').read_text().split()[1:]
    segmenter = Segmenter(config, classes)
    truths, predictions, scores, shown = [], [], [], []
    for path in sorted((photographs / 'images').iterdir()):
        truth = np.asarray(Image.open(photographs / 'labels' / path.name))
        truths.append(truth[truth != 255])
        result = segmenter.segment(np.asarray(Image.open(path)))
        predictions.append(result.labels[truth != 255])
        scores += [found.score for found in result.classes]
        shown += [bool((truth == index).any()) for index in range(1, 4)]
    expected = sklearn.metrics.confusion_matrix(
        np.concatenate(truths), np.concatenate(predictions), labels=range(4)
    )
    run = next(run for run in ablated['runs'] if run['name'] == name)
    assert run['confusion']['pixels'] == expected.tolist()
    iou_n = np.diagonal(expected) / (expected.sum(0) + expected.sum(1) - np.diagonal(expected))
    assert run['class_iou']['cat'] == pytest.approx(iou_n[1], abs=1e-6)
    assert run['miou'] == pytest.approx(iou_n.mean(), abs=1e-6)
    expected_ap = sklearn.metrics.average_precision_score(shown, scores)
    assert run['presence_ap'] == pytest.approx(expected_ap, abs=1e-6)


def test_stages_that_overlap_change_no_score(
    photographs: Path, fast_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = folder_dataset(photographs)
    evaluator = make_evaluator(dataset, fast_config, 'refine')
    in_turns = list(score_images(evaluator, dataset.samples))
    monkeypatch.setattr(Segmenter, 'overlaps', True)
    side_by_side = list(score_images(evaluator, dataset.samples))
    for one, other in zip(in_turns, side_by_side, strict=True):
        assert one.id == other.id
        for run, same in zip(one.runs, other.runs, strict=True):
            assert np.array_equal(run.cells_k3, same.cells_k3)
            assert np.array_equal(run.presence_c, same.presence_c)


def test_every_image_is_encoded_once(
    photographs: Path, fast_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make_evaluator(folder_dataset(photographs), fast_config, 'refine', 'subclasses')
    encode, encoded = evaluator.encoder.encode_image, []

    def encode_and_count(rgb: np.ndarray) -> Any:
        encoded.append(rgb.shape)
        return encode(rgb)

    monkeypatch.setattr(evaluator.encoder, 'encode_image', encode_and_count)
    scores = list(score_images(evaluator, evaluator.dataset.samples))
    assert [image.id for image in scores] == ['cat', 'cup', 'rocket']
    assert {len(image.runs) for image in scores} == {2 * len(ABLATED['refine'])}
    assert len(encoded) == 3


def test_classes_and_images_can_be_chosen(
    photographs: Path, fast_config: Path, tmp_path: Path
) -> None:
    (tmp_path / 'ids.txt').write_text('rocket\ncat\n')
    arguments = ['--root', photographs, '--config', fast_config, '--classes', 'rocket, cat']
    arguments += ['--ids', tmp_path / 'ids.txt', '--limit', '1', '--json', tmp_path / 'a.json']
    assert evaluate(*arguments) == 0
    report = json.loads((tmp_path / 'a.json').read_text())
    assert report['classes'] == ['background', 'rocket', 'cat']
    assert report['images'] == 1
    assert report['class_iou']['rocket'] is None or report['class_iou']['rocket'] == 0
    truth_pixels = np.array(report['confusion']['pixels']).sum(axis=1)
    assert truth_pixels[1] == 0  # the first image is the cat's
    assert truth_pixels[2] > 0


@pytest.mark.parametrize(
    ('arguments', 'code', 'message'),
    [
        (['--ablate', 'fusion,gate'], 2, '--ablate takes fusion, refine, subclasses, not gate'),
        (['--ablate', 'fusion', '--fusion', 'max'], 2, 'leave out --fusion'),
        (['--ablate', 'refine=crf,sharp'], 2, '--ablate refine takes crf, crf_binary, pamr, none'),
        (['--fusion', 'sum'], 2, '--fusion takes paper, reference, mean, max'),
        (['--shard', '3/2', '--report', 'r'], 2, '--shard takes I/N with I from 1 to N, not 3/2'),
        (['--dataset', 'voc', '--ignore', '0'], 2, 'are for --dataset folder'),
        (['--dataset', 'voc'], 1, 'val.txt with the image names of PASCAL VOC 2012'),
        (['--shard', '1/2'], 2, '--resume and --shard need --report DIR'),
        (['--single', '--ablate', 'fusion'], 2, '--single goes with --json, the dataset and'),
        (['--single', '--report', 'r'], 2, '--single goes with --json, the dataset and'),
        (['--encoder', 'dino'], 2, '--encoder takes imagenet, open_clip, simseg'),
        (['--classes', 'cat,dog'], 1, "has no class 'dog'; it has cat, cup, rocket"),
        (['--ids', 'missing.txt'], 1, 'expected missing.txt with image names'),
        (['--report', '/dev/null/r'], 1, '/dev/null/r can not be written: Not a directory'),
        (['--root', 'missing'], 1, 'expected missing/classes.txt with class names'),
    ],
)
def test_wrong_use(
    photographs: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    assert evaluate('--root', photographs, *arguments) == code
    assert message in ' '.join(capsys.readouterr().err.split())


def numbers(path: Path) -> dict[str, Any]:
    """Return a report without its timings."""
    report: dict[str, Any] = json.loads(path.read_text())
    del report['timing_ms']
    return report


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(
    photographs: Path, fast_config: Path, tmp_path: Path
) -> None:
    predict, segmented = Evaluator.predict, []

    def predict_until_ctrl_c(*arguments: Any) -> Any:
        segmented.append(arguments)
        if len(segmented) == 3:
            raise KeyboardInterrupt
        return predict(*arguments)

    arguments = ['--root', photographs, '--config', fast_config]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, 'predict', predict_until_ctrl_c)
        assert evaluate(*arguments, '--report', tmp_path / 'cut') == 130
        cut = json.loads((tmp_path / 'cut' / 'report.json').read_text())
        assert (cut['images'], cut['complete']) == (2, False)
        with (tmp_path / 'cut' / 'images.jsonl').open('a') as file:
            file.write('{"id": "rocket", "ru')  # as a power cut leaves it
        assert evaluate(*arguments, '--report', tmp_path / 'cut', '--resume') == 0
        assert len(segmented) == 3 + 2 + 1 + 3  # the pages show two images, then three
    assert evaluate(*arguments, '--report', tmp_path / 'whole') == 0
    whole = numbers(tmp_path / 'whole' / 'report.json')
    assert numbers(tmp_path / 'cut' / 'report.json') == whole
    assert whole['complete']


def test_shards_add_up(
    photographs: Path, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['--root', photographs, '--config', fast_config, '--refine', 'none']
    assert evaluate(*arguments, '--json', tmp_path / 'whole.json') == 0
    arguments += ['--report', tmp_path]
    assert evaluate(*arguments, '--shard', '1/2') == 0
    assert not (tmp_path / 'report.json').exists()
    assert evaluate(*arguments, '--shard', '2/2') == 0
    records = [(tmp_path / f'images-{i}of2.jsonl').read_text().splitlines() for i in (1, 2)]
    assert [len(lines) for lines in records] == [1 + 2, 1 + 1]
    assert evaluate(*arguments, '--resume') == 0
    assert len((tmp_path / 'images.jsonl').read_text().splitlines()) == 1  # nothing was left to do
    assert numbers(tmp_path / 'report.json') == numbers(tmp_path / 'whole.json')
    capsys.readouterr()
    assert evaluate(*arguments, '--resume', '--classes', 'cat') == 1
    assert 'was made with other settings' in capsys.readouterr().err


@pytest.fixture
def own_photographs(photographs: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(photographs, tmp_path / 'photographs'))


def damage(root: Path) -> None:
    path = root / 'images' / 'rocket.png'
    path.write_bytes(path.read_bytes()[:5000])


def shrink_labels(root: Path) -> None:
    Image.new('L', (9, 9)).save(root / 'labels' / 'rocket.png')


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (damage, 'rocket.png: the image does not open: image file is truncated'),
        (shrink_labels, 'rocket.png is 9x9, its image 640x427'),
        (
            lambda root: (root / 'classes.txt').write_text('background\ncat\ncup'),
            'rocket.png has the value 3, which is no class of photographs and not ignored',
        ),
        (
            lambda root: (root / 'labels' / 'rocket.png').unlink(),
            '1 of 3 images have no label image, the first is',
        ),
    ],
)
def test_bad_data_ends_in_one_sentence_and_keeps_what_is_scored(
    own_photographs: Path,
    fast_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    spoil(own_photographs)
    out = tmp_path / 'out'
    arguments = ['--root', own_photographs, '--config', fast_config, '--refine', 'none']
    assert evaluate(*arguments, '--report', out) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert {path.name for path in out.glob('*')} <= {'images.jsonl'}
    if (out / 'images.jsonl').exists():  # else the data was refused before the first image
        lines = (out / 'images.jsonl').read_text().splitlines()
        assert [json.loads(line)['id'] for line in lines[1:]] == ['cat', 'cup']


def test_a_full_disk_leaves_nothing_half_written(
    photographs: Path, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['--root', photographs, '--config', fast_config, '--refine', 'none']
    assert evaluate(*arguments, '--report', tmp_path / 'whole') == 0
    whole = (tmp_path / 'whole' / 'images.jsonl').read_text().splitlines(keepends=True)
    out = tmp_path / 'out'
    capsys.readouterr()

    def run_with_room_for(size: int, *more: object) -> str:
        with room_for(size):
            assert evaluate(*arguments, '--report', out, *more) == 1
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        assert not list(out.glob('report*'))
        assert not list(out.glob('.*'))
        return error

    assert 'images.jsonl can not be written: File too large' in run_with_room_for(100)
    assert not (out / 'images.jsonl').exists()
    room = len(''.join(whole[:-1])) + 50  # a part of the third image
    assert '--resume goes on from what is there' in run_with_room_for(room)
    lines = (out / 'images.jsonl').read_text().splitlines()
    assert [json.loads(line).get('id') for line in lines] == [None, 'cat', 'cup']
    room = len(''.join(whole)) + 200  # all records, but no report
    error = run_with_room_for(room, '--resume')
    assert re.search(r'out/report\.\w+ can not be written: File too large', error)
    assert evaluate(*arguments, '--report', out, '--resume') == 0
    assert numbers(out / 'report.json') == numbers(tmp_path / 'whole' / 'report.json')


def test_segmenting_is_a_few_images_ahead_of_scoring(
    photographs: Path, fast_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make_evaluator(folder_dataset(photographs), fast_config)
    predict, score, segmented = evaluator.predict, evaluator.score, []

    def predict_and_count(*arguments: Any) -> Any:
        segmented.append(arguments)
        return predict(*arguments)

    def score_slowly(*arguments: Any) -> Any:
        time.sleep(0.1)
        return score(*arguments)

    monkeypatch.setattr(evaluator, 'predict', predict_and_count)
    monkeypatch.setattr(evaluator, 'score', score_slowly)
    samples = 4 * evaluator.dataset.samples
    ahead, ids = [], []
    for image in score_images(evaluator, samples, workers=1):
        ids.append(image.id)
        ahead.append(len(segmented) - len(ids))
    assert ids == [sample.id for sample in samples]
    assert 1 <= max(ahead) <= MOST_UNSCORED


def test_an_error_in_scoring_comes_out_after_what_is_scored(
    photographs: Path, fast_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make_evaluator(folder_dataset(photographs), fast_config)
    score, ids = evaluator.score, []

    def score_but_cups(image_id: str, *arguments: Any) -> Any:
        if image_id == 'cup':
            raise ValueError('no cups')
        return score(image_id, *arguments)

    monkeypatch.setattr(evaluator, 'score', score_but_cups)
    with pytest.raises(ValueError, match='no cups'):
        ids.extend(image.id for image in score_images(evaluator, evaluator.dataset.samples))
    assert ids[0] == 'cat'
    assert 'cup' not in ids


def test_a_score_over_ignored_truth_is_told(
    photographs: Path, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask drawn with 0 and 255, and what the sentence advises."""
    root = tmp_path / 'drawn'
    shutil.copytree(photographs, root)
    for path in (root / 'images').iterdir():
        if path.stem != 'cat':
            path.unlink()
    labels = np.asarray(Image.open(root / 'labels' / 'cat.png'))
    Image.fromarray(np.where(labels == 1, 255, 0).astype(np.uint8)).save(root / 'labels/cat.png')
    (root / 'classes.txt').write_text('background\ncat\n')
    arguments = ['--root', root, '--config', fast_config, '--report', tmp_path / 'report']
    assert evaluate(*arguments) == 0
    sentence = '1 of 1 classes have no pixel in the labels (cat), and 25.'
    assert sentence in capsys.readouterr().err
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert 0.25 < report['ignored_share'] < 0.26
    assert report['class_iou']['cat'] in (None, 0)
    assert sentence in (tmp_path / 'report' / 'report.html').read_text()

    assert evaluate('--root', root, '--config', fast_config, '--ignore', '254') == 1
    assert 'has the value 255, which is no class' in capsys.readouterr().err
    (root / 'classes.txt').write_text('0 background\n255 cat\n')
    assert evaluate('--root', root, '--config', fast_config) == 1
    assert "has 'cat' for the value 255, which does not count" in capsys.readouterr().err
    arguments = ['--root', root, '--config', fast_config, '--ignore', '254']
    assert evaluate(*arguments, '--json', tmp_path / 'b.json') == 0
    assert 'no pixel' not in capsys.readouterr().err
    report = json.loads((tmp_path / 'b.json').read_text())
    assert report['warnings'] == []
    assert np.array(report['confusion']['pixels'])[1].sum() == (labels == 1).sum()


@pytest.mark.parametrize(
    ('truth', 'ignored', 'told'),
    [
        ([0, 0], 1, True),  # no class at all, however little is ignored
        ([0, 0], 0, False),
        ([5, 0], 60, True),
        ([5, 0], 5, False),  # the borders of PASCAL VOC
        ([5, 5], 60, False),
    ],
)
def test_truth_warnings(truth: list[int], ignored: int, told: bool) -> None:
    found = truth_warnings(('cat', 'cup'), np.array(truth), ignored, 100)
    assert bool(found) == told
