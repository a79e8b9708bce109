"""`llmseg replay` on a bag of photographs with the real model, against a plain loop."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import skimage.data
from rosbags.highlevel import AnyReader

from llmseg_ros.bags.reading import connections_of, opened_bag
from llmseg_ros.bags.replay import replay_frames
from llmseg_ros.bags.scores import ReplayScores
from llmseg_ros.bags.topics import message_types
from llmseg_ros.demo.received import read_received
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.segmenter import Segmenter

from ..helpers.bags import IMAGE, SECOND, STRING, image, string, write_bag
from ..helpers.commands import replay

CLASSES = ('cat', 'cup', 'rocket')


class Replayed(NamedTuple):
    """A bag, what replay made of it, and the frames in it."""

    bag: Path
    out: Path
    report: dict[str, Any]
    frames: list[np.ndarray]


@pytest.fixture(scope='module')
def replayed(fast_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Replay a bag of four frames and something else, into a new bag."""
    folder = tmp_path_factory.mktemp('replay')
    photographs = [skimage.data.chelsea(), skimage.data.chelsea(), skimage.data.coffee()]
    frames = [cv2.resize(p, (96, 64), interpolation=cv2.INTER_AREA) for p in photographs]
    messages = [('/note', STRING, string('begin'))]
    messages += [
        ('/camera', IMAGE, image(rgb, 'rgb8', stamp=(7 + i) * SECOND + 5))
        for i, rgb in enumerate(frames)
    ]
    bag = write_bag(folder / 'bag', messages)
    arguments = [bag, '--classes', ','.join(CLASSES), '--config', fast_config]
    arguments += ['--out', folder / 'out', '--report', folder, '--json', folder / 'copy.json']
    assert replay(*arguments) == 0
    text = (folder / 'report.json').read_text()
    assert text == (folder / 'copy.json').read_text()
    return Replayed(bag, folder / 'out', json.loads(text), frames)


def test_labels_equal_a_plain_loop(replayed: Replayed, fast_config: Path) -> None:
    segmenter = Segmenter.from_config(fast_config, CLASSES)
    received = read_received(replayed.out)
    assert sorted(received.labels) == [(7 + i) * SECOND + 5 for i in range(3)]
    last: Segmentation | None = None
    changed, shares = [], []
    for (stamp, labels), rgb in zip(sorted(received.labels.items()), replayed.frames, strict=True):
        result = segmenter.segment(rgb, previous=last)
        assert np.array_equal(labels, result.labels)
        assert received.masks[stamp] == [found.name for found in result.found]
        if last:
            changed.append(np.mean(result.labels != last.labels))
        shares.append(np.mean(result.labels == 1))
        last = result
    assert len(set(received.versions.values())) == 1
    assert received.names == {1: 'cat', 2: 'cup', 3: 'rocket'}
    assert replayed.report['changed_pixels'] == pytest.approx(np.mean(changed), abs=1e-6)
    assert replayed.report['class_share']['cat'] == pytest.approx(np.mean(shares), abs=1e-6)
    assert max(shares) > 0


def test_stages_that_overlap_change_nothing(
    replayed: Replayed, fast_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, 'overlaps', True)
    segmenter = Segmenter.from_config(fast_config, CLASSES)
    received = read_received(replayed.out)
    with opened_bag(replayed.bag) as bag:
        camera = connections_of(bag, '/camera', (IMAGE,))
        steps = list(replay_frames(bag, camera, connections_of(bag, '/note', (STRING,)), segmenter))
    assert [step.message.connection.topic for step in steps] == ['/note', *['/camera'] * 3]
    results = [(step.frame.stamp, step.result) for step in steps if step.frame and step.result]
    assert [stamp for stamp, _ in results] == sorted(received.labels)
    for stamp, result in results:
        assert np.array_equal(result.labels, received.labels[stamp])


def test_report(replayed: Replayed) -> None:
    report = replayed.report
    assert (report['dataset'], report['frames'], report['image_topic']) == ('bag', 3, '/camera')
    assert report['classes'] == ['background', *CLASSES]
    assert report['miou'] is None
    assert (report['mode'], report['complete']) == ('offline', True)
    assert 0 < report['seconds']['segmenting'] <= 2 * report['seconds']['wall']  # two may overlap
    assert set(report['timing_ms']) == {'encode', 'fuse', 'gate', 'refine', 'total'}
    assert {'config', 'versions', 'pixel_accuracy', 'class_iou'} <= set(report)


def test_the_old_messages_are_in_the_new_bag(replayed: Replayed) -> None:
    def contents(path: Path) -> list[tuple[str, str, int, bytes]]:
        with AnyReader([path]) as reader:
            return [(c.topic, c.msgtype, time, bytes(raw)) for c, time, raw in reader.messages()]

    new = contents(replayed.out)
    assert [m for m in new if not m[0].startswith('/seg/')] == contents(replayed.bag)
    results = [m[0] for m in new if m[0].startswith('/seg/')]
    assert sorted(results) == ['/seg/label_map', *['/seg/labels'] * 3, *['/seg/masks'] * 3]


def test_masks_are_where_the_labels_are(replayed: Replayed) -> None:
    received = read_received(replayed.out)
    types, count = message_types(), 0
    with AnyReader([replayed.out], default_typestore=types) as reader:
        for connection, _, raw in reader.messages():
            if connection.topic != '/seg/masks':
                continue
            array: Any = reader.deserialize(raw, connection.msgtype)
            stamp = array.header.stamp.sec * SECOND + array.header.stamp.nanosec
            assert array.header.frame_id == 'camera'
            for mask in array.masks:
                whole = np.zeros((array.height, array.width), np.bool_)
                x, y = mask.roi.x_offset, mask.roi.y_offset
                pixels = mask.mask.data.reshape(mask.roi.height, mask.roi.width)
                whole[y : y + mask.roi.height, x : x + mask.roi.width] = pixels == 255
                assert np.array_equal(whole, received.labels[stamp] == mask.class_id)
                assert whole.sum() == mask.area
                count += 1
    assert count


def test_true_labels_are_matched_by_stamp(
    replayed: Replayed, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [labels.copy() for _, labels in sorted(read_received(replayed.out).labels.items())]
    wrong = int(labels[0][0, 0] == 0)
    labels[0][0] = wrong  # a row of the first frame isn't what the segmenter says ...
    labels[0][1] = 255  # ... and one does not count
    messages = [
        ('/camera', IMAGE, image(rgb, 'rgb8', stamp=(1 + i) * SECOND))
        for i, rgb in enumerate(replayed.frames)
    ]
    messages += [  # in another order, none for the last frame
        ('/truth', IMAGE, image(labels[i], 'mono8', stamp=(1 + i) * SECOND)) for i in (1, 0)
    ]
    bag = write_bag(tmp_path / 'labelled', messages)
    arguments = [bag, '--labels', '/truth', '--config', fast_config]
    assert replay(*arguments, '--classes', ','.join(CLASSES), '--json', tmp_path / 'r.json') == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    assert (report['frames'], report['labelled_frames']) == (3, 2)
    original = sorted(read_received(replayed.out).labels.items())[0][1][0]
    mistakes = int(np.count_nonzero(original != wrong))
    assert mistakes > 0
    counted = 2 * 64 * 96 - 96
    assert report['pixel_accuracy'] == pytest.approx(1 - mistakes / counted, abs=1e-6)
    capsys.readouterr()
    highest = max(int(values[values < 255].max()) for values in labels[:2])
    assert highest >= 1
    assert replay(*arguments, '--classes', '') == 1
    assert f'has the id {highest}, the class list ends at 0' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('truth', 'message'),
    [
        (image(np.zeros((3, 4), np.uint8), 'mono8'), 'is 4x3, its frame 96x64'),
        (image(np.zeros((64, 96), np.uint8), 'mono8', stamp=9 * SECOND), 'no label image has the'),
        (image(np.zeros((64, 96, 3), np.uint8), 'rgb8'), "mono16 or 16SC1, not 'rgb8'"),
    ],
)
def test_true_labels_that_do_not_fit(
    replayed: Replayed,
    fast_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    truth: Any,
    message: str,
) -> None:
    bag = write_bag(
        tmp_path / 'bag',
        [('/camera', IMAGE, image(replayed.frames[0], 'rgb8')), ('/truth', IMAGE, truth)],
    )
    arguments = [bag, '--labels', '/truth', '--classes', '', '--config', fast_config]
    assert replay(*arguments, '--out', tmp_path / 'out') == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [bag]  # nothing half-written


def test_results_are_not_written_twice(
    replayed: Replayed, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [replayed.out, '--image', '/camera', '--classes', 'cat', '--config', fast_config]
    assert replay(*arguments, '--out', tmp_path / 'again') == 1
    assert 'the bag has a topic /seg/label_map already' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_reports_what_is_done(
    replayed: Replayed,
    fast_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    messages = [
        ('/camera', IMAGE, image(replayed.frames[0], 'rgb8', stamp=(1 + i) * SECOND))
        for i in range(40)
    ]
    bag = write_bag(tmp_path / 'bag', messages)
    count = ReplayScores.add

    def count_and_interrupt(scores: ReplayScores, *arguments: Any) -> None:
        count(scores, *arguments)
        if scores.frames == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ReplayScores, 'add', count_and_interrupt)
    arguments = [bag, '--classes', 'cat', '--config', fast_config, '--json', tmp_path / 'r.json']
    assert replay(*arguments, '--out', tmp_path / 'out') == 130
    report = json.loads((tmp_path / 'r.json').read_text())
    assert 3 <= report['frames'] < 40
    assert not report['complete']
    said = capsys.readouterr().err
    assert f'interrupted with {report["frames"]} frames done, {tmp_path / "out"} is not wr' in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'r.json']


def segmentation(labels: list[list[int]]) -> Segmentation:
    array = np.array(labels, np.uint16)
    return Segmentation(array, np.ones(array.shape, np.float32), (), 1, {'encode': 1.0})


def test_temporal_consistency_by_hand() -> None:
    scores = ReplayScores(['background', 'cat', 'cup'])
    scores.add(segmentation([[0, 0], [0, 1]]), None)
    scores.add(segmentation([[0, 2], [0, 1]]), np.array([[0, 1], [IGNORED, 1]], np.uint16))
    scores.add(segmentation([[2, 2], [0, 2]]), None)
    assert (scores.frames, scores.changed, scores.compared) == (3, 1 + 2, 4 + 4)
    assert scores.presence_changes_n.tolist() == [0, 1, 1]  # the cat goes, the cup comes
    assert scores.pixels_n.tolist() == [3 + 2 + 1, 1 + 1, 1 + 3]
    assert scores.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert scores.labelled == 1


def test_frames_of_12_bits_are_stretched_where_the_configuration_says_so(
    fast_config: Path, tmp_path: Path
) -> None:
    config = tmp_path / 'stretch.yaml'
    config.write_text(f'{fast_config.read_text()}\nimages: {{sixteen_bit: stretch}}\n')
    grey = cv2.resize(cv2.cvtColor(skimage.data.chelsea(), cv2.COLOR_RGB2GRAY), (96, 64))
    grey = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX)
    twelve = np.rint(grey / 255 * 4095).astype(np.uint16)
    labels = {}
    for encoding, pixels in (('mono8', grey), ('mono16', twelve)):
        bag = write_bag(tmp_path / encoding, [('/camera', IMAGE, image(pixels, encoding))])
        out = tmp_path / f'{encoding}_out'
        assert replay(bag, '--classes', 'cat', '--config', config, '--out', out) == 0
        labels[encoding] = list(read_received(out).labels.values())
    assert len(labels['mono8']) == 1
    np.testing.assert_array_equal(labels['mono16'], labels['mono8'])
