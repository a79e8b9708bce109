"""report.html without a browser: what it says, that it needs nothing else, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from llmseg_ros.bags.frames import Frame
from llmseg_ros.config import EncoderConfig, SegmenterConfig
from llmseg_ros.evaluation.evaluate import ImageScores
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.evaluation.variants import make_variants, with_setting
from llmseg_ros.reports import tables
from llmseg_ros.reports.charts import MAX_BARS, histogram, timeline
from llmseg_ros.reports.confusion import confused_pairs, confusion_table
from llmseg_ros.reports.evaluation_page import (
    configured_variant,
    evaluation_page,
    write_up_evaluation,
)
from llmseg_ros.reports.pictures import (
    NOT_COUNTED,
    WRONG,
    ReplayRecorder,
    error_map,
    make_shot,
    worst_and_best,
)
from llmseg_ros.reports.report import evaluation_report

from ..helpers.bags import IMAGE, image, write_bag
from ..helpers.commands import llmseg
from .pages import (
    HOSTILE,
    QUOTED,
    SECOND,
    make_dataset,
    make_evaluation_page,
    make_replay_page,
    make_scores,
    moving_square,
    score,
    segmentation,
)

NAN = float('nan')
ABLATED = {'fusion': ('paper', 'max'), 'refine': ('none', 'pamr')}


class Page(HTMLParser):
    """Elements with their attributes, text, ids and what is linked to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ''
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or '') for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


@pytest.fixture(scope='module')
def evaluated() -> str:
    return make_evaluation_page(('cat', HOSTILE, QUOTED), ABLATED)


@pytest.fixture(scope='module')
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp('replay')
    return make_replay_page(folder, (HOSTILE, QUOTED), with_truth=True), folder


def test_names_stay_text(evaluated: str, replayed: tuple[str, Path]) -> None:
    for html in (evaluated, replayed[0]):
        page = Page(html)
        assert page.tags.count('script') == 1
        assert not [name for name, _ in page.attributes if name.startswith('on')]
        assert page.text.count(HOSTILE) > 2
        assert QUOTED in page.text
        assert '49' not in page.text.partition('{{ 7')[2][:12]  # no template in a template
    assert f'Evaluation on set {HOSTILE}' in Page(evaluated).text


def test_nothing_is_loaded_from_elsewhere(evaluated: str, replayed: tuple[str, Path]) -> None:
    for html, folder in ((evaluated, Path()), replayed):
        page = Page(html)
        ids = page.values('id')
        assert len(ids) == len(set(ids))
        for target in page.values('src', 'href'):
            if target.startswith('#'):
                assert target[1:] in ids
            elif not target.startswith('data:image/'):
                assert target == 'overlay.mp4'
                assert (folder / target).is_file()
        assert 'link' not in page.tags
        assert 'url(' not in html
        assert '@import' not in html


def test_numbers_by_hand() -> None:
    dataset = make_dataset(['cat', 'cup'], 'hand')
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint16)
    labels = np.array([[0, 0, 1, 1], [0, 2, 1, 2]], np.uint16)
    # background 3 of 4, cat 3 of 4, cup 0 of 2: mIoU 50 %; the second image is all right
    variants = make_variants(SegmenterConfig(), {})
    scores = [
        ImageScores('first', (score(truth, labels, 3, 30),)),
        ImageScores('second', (score(truth, truth, 3, 10),)),
    ]
    summary = evaluation_report(dataset, variants, 'encoder', scores)
    confusion = np.array(summary['confusion']['pixels'])
    # cat's scores are those of its pixels: 0.25 and 0.5 where it is shown both times
    assert summary['class_presence_ap'] == {'cat': 1.0, 'cup': None}
    presence_ap = summary['class_presence_ap']
    rows = tables.class_table(dataset.names, 0, confusion, presence_ap).rows
    shown = [[cell.text for cell in row] for row in rows]
    assert shown == [
        ['background', '87.5 %', '87.5 %', '100.0 %', tables.NONE, '50.0 %', '43.8 %'],
        ['cat', '87.5 %', '87.5 %', '100.0 %', '100.0 %', '50.0 %', '43.8 %'],
        ['cup', '0.0 %', tables.NONE, '0.0 %', tables.NONE, '0.0 %', '12.5 %'],
    ]
    pairs = confused_pairs(dataset.names, confusion).rows
    assert [[cell.text for cell in row] for row in pairs] == [
        ['background', 'cup', '1', '12.5 %'],
        ['cat', 'cup', '1', '12.5 %'],
    ]
    matrix = confusion_table(dataset.names, confusion)
    assert matrix is not None
    assert [[cell.text for cell in row] for row in matrix.rows] == [
        ['background', '88', '', '12'],
        ['cat', '', '88', '12'],
    ]
    assert matrix.rows[0][3].title == 'truth background, labelled cup: 12.5 %, 1 pixels'
    page = Page(evaluation_page(summary, dataset, scores, [], [], variants[0].name))
    assert 'first: 50.0 %' in page.text
    assert 'second: 100.0 %' in page.text
    assert 'first: 31.0 ms' in page.text
    assert '2 and background' in page.text
    assert '58.3 %' in page.text  # mIoU of both
    assert 'Not all images' in page.text  # the dataset has no samples at all


def run_of(name: str, miou: float | None, total: float) -> dict[str, object]:
    keys = (
        'boundary_iou',
        'pixel_accuracy',
        'mean_accuracy',
        'frequency_weighted_iou',
        'presence_ap',
    )
    return {
        'name': name,
        'miou': miou,
        **dict.fromkeys(keys, 0.5),
        'timing_ms': {'total': {'p50': total, 'p95': total}},
    }


def test_differences_between_runs() -> None:
    runs = [
        run_of('fusion=paper refine=none', 0.40, 10),
        run_of('fusion=paper refine=crf', 0.4567, 20),
        run_of('fusion=max refine=none', None, 30),
    ]
    table = tables.run_table(runs, 'fusion=paper refine=none')
    assert table.columns[:6] == ('fusion', 'refine', 'mark', 'mIoU', 'to best', 'to configured')
    none = tables.NONE
    assert [[cell.text for cell in row[:6]] for row in table.rows] == [
        ['paper', 'none', 'configured', '40.0 %', f'{tables.MINUS}5.67', '0.00'],
        ['paper', 'crf', 'best', '45.7 %', '0.00', '+5.67'],
        ['max', 'none', '', none, none, none],
    ]


def test_the_configured_run_is_found() -> None:
    config = with_setting(with_setting(SegmenterConfig(), 'fusion', 'max'), 'refine', 'pamr')
    variants = make_variants(config, {**ABLATED, 'subclasses': ('none', 'packs')})
    name = configured_variant(variants, config).name
    assert name == 'fusion=max refine=pamr subclasses=packs'


@pytest.mark.parametrize(('count', 'is_large'), [(5, False), (60, True), (171, True)])
def test_confusion_of_many_classes(count: int, is_large: bool) -> None:
    html = make_evaluation_page([f'class {index}' for index in range(count)], {})
    assert ('<figure class="large-matrix">' in html) == is_large
    assert ('class="scroll matrix' in html) != is_large
    assert 'Most confused' in html
    assert len(html) < 4_000_000


def test_histogram_by_hand() -> None:
    chart = histogram('title', [1.0] * 6 + [2.0, 3.0, 6.0], lambda value: f'{value:.0f} ms')
    assert [bar.height for bar in chart.bars] == pytest.approx([1, 1 / 6, 1 / 6, 0, 1 / 6])
    assert chart.x_ticks == ('1 ms', '6 ms')
    assert chart.y_ticks == ('0', '6')
    assert chart.bars[0].title == '1 ms to 2 ms: 6'


@pytest.mark.parametrize('values', [[5.0], [0.0, 0.0], [3.0] * 100])
def test_histogram_of_equal_values(values: Sequence[float]) -> None:
    chart = histogram('title', values, str)
    assert max(bar.height for bar in chart.bars) == 1


def test_timeline_draws_every_value_or_groups_of_them() -> None:
    chart = timeline('title', [1.0, NAN, 4.0], ['a', 'b', 'c'], str)
    assert [bar.height for bar in chart.bars] == [0.25, 0, 1]
    assert chart.bars[2].title == 'c: 4.0'
    values = [1.0] * 1000
    values[501] = 9.0
    long = timeline('title', values, [f'image {i}' for i in range(1000)], str)
    assert len(long.bars) == MAX_BARS
    assert sum(bar.width for bar in long.bars) == pytest.approx(1)
    (slow,) = [bar for bar in long.bars if bar.peak == 1]
    assert slow.height == pytest.approx(1 / 9)
    assert slow.title == '501 to 504: median 1.0, highest image 501: 9.0'


@pytest.mark.parametrize(
    ('ious', 'worst', 'best'),
    [
        ([], [], []),
        ([0.5], [0], []),
        ([0.9, 0.1, 0.5], [1, 2], [0]),
        ([NAN, 0.3, 0.2], [2], [1]),
        ([0.1 * i for i in range(10)], [0, 1, 2, 3], [9, 8, 7, 6]),
    ],
)
def test_worst_and_best(ious: list[float], worst: list[int], best: list[int]) -> None:
    assert worst_and_best(ious) == (worst, best)


def test_error_map_by_hand() -> None:
    rgb = np.full((1, 3, 3), 100, np.uint8)
    truth = np.array([[1, 1, IGNORED]], np.uint16)
    labels = np.array([[1, 0, 0]], np.uint16)
    assert error_map(rgb, labels, truth).tolist() == [[[50] * 3, list(WRONG), list(NOT_COUNTED)]]


def test_pictures_are_made_small() -> None:
    rgb = np.zeros((600, 960, 3), np.uint8)
    shot = make_shot('name', '', rgb, np.full((600, 960), 3, np.uint16))
    assert shot.rgb.shape == (300, 480, 3)
    assert shot.labels.shape == (300, 480)
    assert shot.ids() == [3]
    assert [title for title, _ in shot.pictures()] == ['image', 'overlay']
    thin = make_shot('name', '', np.zeros((1, 2000, 3), np.uint8), np.zeros((1, 2000), np.uint16))
    assert thin.rgb.shape == (1, 480, 3)


def test_frames_worth_a_look() -> None:
    recorder = ReplayRecorder(['background', 'cat'], 12, None)
    for index in range(12):
        rgb, labels = moving_square(index if index != 5 else 20)  # it jumps there, and back
        truth = np.zeros_like(labels) if index == 9 else labels
        frame = Frame(index * SECOND, None, rgb)
        recorder.add(frame, segmentation(labels, {'encode': 1.0}), truth)
    assert [shot.name for shot in recorder.top('changed')][:2] == [
        'frame 6, 5.00 s',
        'frame 7, 6.00 s',
    ]
    assert recorder.top('worst')[0].name == 'frame 10, 9.00 s'
    assert [shot.name[:7] for shot in recorder.top('best')] == [
        f'frame {number}' for number in (1, 2, 3, 4)
    ]
    assert [int(shot.name.split(',')[0][6:]) for shot in recorder.spread] == [1, 3, 5, 7, 9, 12]
    assert np.isnan(recorder.changed[0])
    assert recorder.changed[6] == recorder.changed[5]


LIVE = {
    'frames_in': 9,
    'frames_out': 7,
    'frames_dropped': 2,
    'node': {'frames': {'received': 8, 'dropped': 1}, 'stages_ms': {}},
    'wall_clock': {
        'latency_ms': {'p50': 20.25, 'p95': 31.0, 'max': 1234.5},
        'out_hz': 9.876,
        'jitter_ms': None,
    },
    'bag_clock': {'age_ms': {'p50': 40.0, 'p95': 41.0, 'max': 42.0}},
}


def test_a_replay_into_the_node(tmp_path: Path) -> None:
    html = make_replay_page(tmp_path, ('cat',), mode='realtime', live=LIVE, complete=False)
    assert 'mode realtime. Interrupted before the end of the bag.' in html
    assert '<video' not in html
    counts = [[cell.text for cell in row] for row in tables.count_table(LIVE).rows]
    assert counts == [
        ['frames in', '9'],
        ['frames out', '7'],
        ['frames dropped', '2'],
        ['received by the node', '8'],
        ['dropped by the node', '1'],
        ['frames out per second', '9.88'],
    ]
    clocks = [[cell.text for cell in row] for row in tables.clock_table(LIVE).rows]
    assert clocks == [
        ['latency', 'wall clock', '20.2', '31.0', '1,234.5'],
        ['age', 'bag clock', '40.0', '41.0', '42.0'],
    ]


def test_without_the_model_there_are_no_pictures() -> None:
    config = SegmenterConfig(EncoderConfig('open_clip'))
    scored = make_scores(['cat'], {}, 3, config)
    known = {config.subclasses: {}}
    html = write_up_evaluation(
        scored.dataset, scored.variants, known, config, scored.summary, scored.scores
    )
    assert 'the model is not on this machine' in html
    assert 'Worst images' not in html
    assert tables.percent(scored.summary['miou']) in html


def test_evaluate_writes_the_page(photographs: Path, fast_config: Path, tmp_path: Path) -> None:
    arguments = ['evaluate', '--root', photographs, '--config', fast_config, '--report', tmp_path]
    assert llmseg(*arguments, '--ablate', 'fusion', '--refine', 'none') == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'report.html', 'report.json', 'images.jsonl'}
    page = Page((tmp_path / 'report.html').read_text())
    report = json.loads((tmp_path / 'report.json').read_text())
    best = max(report['runs'], key=lambda run: run['miou'])
    assert f'about the best of them: {best["name"]}.' in page.text
    assert tables.percent(best['miou']) in page.text
    assert page.values('alt') == [
        f'{title} of {name}'
        for name in worst_first(best, tmp_path)
        for title in ('image', 'truth', 'prediction', 'error')
    ] + ['']


def worst_first(run: dict[str, object], folder: Path) -> list[str]:
    """Return the names of three images in the order of the page: two worst, one best."""
    lines = (folder / 'images.jsonl').read_text().splitlines()
    index = [v['name'] for v in json.loads(lines[0])['variants']].index(run['name'])
    ious = {}
    for line in map(json.loads, lines[1:]):
        confusion = np.zeros((4, 4))
        for truth, predicted, pixels in line['runs'][index]['cells']:
            confusion[truth, predicted] = pixels
        union = confusion.sum(0) + confusion.sum(1) - np.diagonal(confusion)
        ious[line['id']] = np.mean((np.diagonal(confusion) / np.maximum(union, 1))[union > 0])
    return sorted(ious, key=lambda name: ious[name])


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    rgb = cv2.resize(skimage.data.chelsea(), (96, 64), interpolation=cv2.INTER_AREA)
    frames = [('/camera', IMAGE, image(rgb, 'rgb8', stamp=(1 + i) * SECOND)) for i in range(3)]
    return write_bag(tmp_path / 'bag', frames)


def test_replay_writes_page_and_video(bag: Path, fast_config: Path, tmp_path: Path) -> None:
    arguments = ['replay', bag, '--classes', 'cat, cup, cat', '--config', fast_config]
    assert llmseg(*arguments, '--report', tmp_path / 'with') == 0
    names = {path.name for path in (tmp_path / 'with').iterdir()}
    assert names == {'report.html', 'report.json', 'overlay.mp4'}
    page = Page((tmp_path / 'with' / 'report.html').read_text())
    assert 'Replay of bag' in page.text
    assert 'overlay.mp4' in page.values('src')
    assert 'overlay of frame 1, 0.00 s' in page.values('alt')
    assert llmseg(*arguments, '--report', tmp_path / 'without', '--no-video') == 0
    names = {path.name for path in (tmp_path / 'without').iterdir()}
    assert names == {'report.html', 'report.json'}
    assert 'overlay.mp4' not in (tmp_path / 'without' / 'report.html').read_text()


@pytest.mark.parametrize('name', ['report.html', 'report.json', 'overlay.mp4'])
def test_what_can_not_be_written_is_one_sentence(
    bag: Path, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / 'report' / name / 'taken').mkdir(parents=True)
    arguments = ['replay', bag, '--classes', 'cat', '--config', fast_config]
    assert llmseg(*arguments, '--report', tmp_path / 'report') == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert 'Is a directory' in line
    left = {path.name for path in (tmp_path / 'report').iterdir()}
    assert not [other for other in left if other.startswith('.')]
    assert ('report.html' in left) == (name == 'report.html')
