"""A frame that can't be used costs that frame; it is counted and named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from llmseg_ros.bags.reading import opened_bag
from llmseg_ros.bags.scores import MOST_NAMED

from ..helpers.bags import (
    COMPRESSED,
    IMAGE,
    SECOND,
    TYPES,
    Channel,
    compressed,
    contents,
    image,
    write_bag,
    write_mcap,
)
from ..helpers.commands import replay

RGB = cv2.resize(skimage.data.chelsea(), (96, 64), interpolation=cv2.INTER_AREA)
JPEG = cv2.imencode('.jpg', RGB[..., ::-1])[1].tobytes()


def cdr(message: Any) -> bytes:
    kind = COMPRESSED if hasattr(message, 'format') else IMAGE
    return bytes(TYPES.serialize_cdr(message, kind))


def frame(stamp: int) -> bytes:
    return cdr(image(RGB, 'rgb8', stamp))


EMPTY = dataclasses.replace(image(RGB[:1, :1], 'rgb8', 2 * SECOND), height=0, width=0)
BAD = {
    'cut off': (frame(2 * SECOND)[:1000], 'a message of /camera does not decode: '),
    'too short for a stamp': (b'\0\1\0\0\1', 'a message of /camera does not decode: '),
    'no bytes': (b'', 'a message of /camera does not decode: '),
    'noise': (bytes(range(256)) * 9, 'a message of /camera does not decode: '),
    'zero size': (cdr(EMPTY), 'the image is empty: 0 x 0 pixels'),
    'unknown encoding': (cdr(image(RGB, '32FC3', 2 * SECOND)), "encoding '32FC3' is not"),
    'wrong size': (cdr(image(RGB, 'rgb8', 2 * SECOND, width=97)), 'step 288 is less than'),
    'broken zstd': (b'\x28\xb5\x2f\xfd' + bytes(50), 'a message of /camera does not decode: '),
}


def report_of(bag: Path, config: Path, *options: object) -> dict[str, Any]:
    """Replay a bag; return report.json."""
    folder = bag.with_name('report')
    arguments = [bag, '--classes', 'cat,cup', '--config', config, '--report', folder, '--no-video']
    assert replay(*arguments, *options) == 0
    report: dict[str, Any] = json.loads((folder / 'report.json').read_text())
    return report


@pytest.mark.parametrize('place', [0, 1, 2])
@pytest.mark.parametrize(('raw', 'reason'), BAD.values(), ids=BAD)
def test_a_raw_frame_that_can_not_be_used(
    fast_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    raw: bytes,
    reason: str,
    place: int,
) -> None:
    raws = [frame(SECOND), frame(3 * SECOND)]
    raws.insert(place, raw)
    messages = [(0, (1 + i) * SECOND, raw) for i, raw in enumerate(raws)]
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], messages)
    report = report_of(bag, fast_config, '--out', tmp_path / 'out')
    assert (report['frames'], report['rejected_frames'], report['complete']) == (2, 1, True)
    (rejected,) = report['rejections']
    assert (rejected['topic'], rejected['recorded']) == ('/camera', (1 + place) * SECOND)
    assert reason in rejected['reason']
    said = capsys.readouterr().out
    assert 'rejected: 1 of 3 frames' in said
    assert reason in said
    page = (tmp_path / 'report' / 'report.html').read_text()
    assert 'frames rejected' in page
    assert 'Messages that can not be used' in page
    copied = [message for message in contents(tmp_path / 'out') if message[0] == '/camera']
    assert [message[-1] for message in copied] == raws  # the new bag has it as it was


@pytest.mark.parametrize('data', [b'', b'\xff\xd8nothing', JPEG[:-200]])
def test_a_compressed_frame_that_can_not_be_used(
    fast_config: Path, tmp_path: Path, data: bytes
) -> None:
    pictures = [JPEG, data, JPEG, JPEG]
    messages = [
        ('/camera', COMPRESSED, compressed(picture, (1 + i) * SECOND))
        for i, picture in enumerate(pictures)
    ]
    report = report_of(write_bag(tmp_path / 'bag', messages), fast_config)
    assert (report['frames'], report['rejected_frames']) == (3, 1)
    assert [rejected['stamp'] for rejected in report['rejections']] == [2 * SECOND]


@pytest.mark.parametrize(
    'stamps',
    [[2, 3, 3, 4], [5, 5, 5], [0, 0, 0], [9, 8, 7, 9], [2, 1, 2]],
    ids=['one twice', 'all the same', 'none', 'backwards', 'back and forth'],
)
def test_stamps_need_not_differ(fast_config: Path, tmp_path: Path, stamps: list[int]) -> None:
    messages = [('/camera', IMAGE, image(RGB, 'rgb8', stamp * SECOND)) for stamp in stamps]
    bag = write_bag(tmp_path / 'bag', messages)
    report = report_of(bag, fast_config, '--out', tmp_path / 'out', '--video')
    assert (report['frames'], report['rejected_frames']) == (len(stamps), 0)
    with opened_bag(tmp_path / 'out') as opened:
        labels = [c for c in opened.connections if c.topic == '/seg/labels']
        found = [opened.deserialize(m).header.stamp for m in opened.messages(labels)]
    recorded = range(1, len(stamps) + 1)
    expected = [stamp or time for stamp, time in zip(stamps, recorded, strict=True)]
    assert [stamp.sec for stamp in found] == expected


def test_with_labels_a_repeated_stamp_costs_the_frame(
    fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = image(np.zeros(RGB.shape[:2], np.uint8), 'mono8', 2 * SECOND)
    messages = [('/camera', IMAGE, image(RGB, 'rgb8', s * SECOND)) for s in (1, 2, 2, 4)]
    bag = write_bag(tmp_path / 'bag', [*messages, ('/truth', IMAGE, truth)])
    report = report_of(bag, fast_config, '--labels', '/truth')
    assert (report['frames'], report['rejected_frames'], report['labelled_frames']) == (3, 1, 1)
    assert 'two messages of /camera have the stamp 2000000000' in capsys.readouterr().out


def test_label_images_that_can_not_be_used(fast_config: Path, tmp_path: Path) -> None:
    def labels(second: int, size: tuple[int, int] = (64, 96)) -> bytes:
        return cdr(image(np.zeros(size, np.uint8), 'mono8', second * SECOND))

    messages = [(0, s * SECOND, frame(s * SECOND)) for s in (1, 2, 3, 4)]
    truths = [labels(1), labels(1), labels(2, (3, 4)), labels(3)[:500], labels(4), b'\0\1']
    messages += [(1, (1 + i) * SECOND, raw) for i, raw in enumerate(truths)]
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel(), Channel('/truth')], messages)
    report = report_of(bag, fast_config, '--labels', '/truth')
    assert (report['frames'], report['labelled_frames'], report['rejected_labels']) == (4, 2, 4)
    reasons = sorted(rejected['reason'] for rejected in report['rejections'])
    assert [reason.split(':')[0] for reason in reasons] == [
        'a message of /truth does not decode',
        'a message of /truth has 2 bytes',
        'the label image of /truth with stamp 2000000000 is 4x3, its frame 96x64',
        'two messages of /truth have the stamp 1000000000',
    ]


def test_a_report_does_not_grow_with_what_is_rejected(fast_config: Path, tmp_path: Path) -> None:
    bad = [(0, (2 + i) * SECOND, b'\0\1\0\0') for i in range(3 * MOST_NAMED)]
    messages = [(0, SECOND, frame(SECOND)), *bad]
    report = report_of(write_mcap(tmp_path / 'bag.mcap', [Channel()], messages), fast_config)
    assert (report['frames'], report['rejected_frames']) == (1, 3 * MOST_NAMED)
    assert len(report['rejections']) == MOST_NAMED
    page = (tmp_path / 'report' / 'report.html').read_text()
    assert 'The first 100 of 300.' in page


def test_what_is_missing_of_a_bag_is_in_its_report(
    fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [(0, s * SECOND, frame(s * SECOND)) for s in (1, 2, 3)]
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], messages, chunk_size=100)
    content = bag.read_bytes()
    bag.write_bytes(content[: len(content) * 9 // 10])
    report = report_of(bag, fast_config)
    (note,) = report['notes']
    assert 'bag.mcap is cut off' in note
    assert note in capsys.readouterr().out
    assert note in (tmp_path / 'report' / 'report.html').read_text()
