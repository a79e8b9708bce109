"""Bags `llmseg replay` can't use, and full disks: a sentence each, and nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from rosbags.rosbag2 import StoragePlugin, Writer

from ..helpers.bags import (
    COMPRESSED,
    IMAGE,
    SECOND,
    STRING,
    TYPES,
    compressed,
    image,
    string,
    write_bag,
)
from ..helpers.commands import replay
from ..helpers.disk import room_for

RGB = cv2.resize(skimage.data.chelsea(), (96, 64), interpolation=cv2.INTER_AREA)
Messages = list[tuple[str, str, Any]]


def frames(count: int) -> Messages:
    return [('/camera', IMAGE, image(RGB, 'rgb8', (1 + i) * SECOND)) for i in range(count)]


def truncated(path: Path) -> Path:
    """Write a bag and cut off the second half of its file."""
    file = write_bag(path, frames(20), StoragePlugin.SQLITE3) / f'{path.name}.db3'
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return path


def with_silent_camera(path: Path) -> Path:
    """Write a bag whose camera was there, but sent nothing."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection('/camera', IMAGE, typestore=TYPES)
        text = writer.add_connection('/text', STRING, typestore=TYPES)
        writer.write(text, SECOND, TYPES.serialize_cdr(string('hello'), STRING))
    return path


def with_cut_messages(path: Path) -> Path:
    """Write a bag with images whose messages end too early."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection('/camera', IMAGE, typestore=TYPES)
        raw = bytes(TYPES.serialize_cdr(image(RGB, 'rgb8'), IMAGE))
        writer.write(camera, SECOND, raw[:1000])
        writer.write(camera, 2 * SECOND, raw[:9])
    return path


def with_labels(label: np.ndarray, topic: str = '/truth') -> Callable[[Path], Path]:
    message = (topic, IMAGE, image(label, 'mono8'))
    return lambda path: write_bag(path, [*frames(2), message])


TOPICS = r'has /camera \(sensor_msgs/msg/Image\), /text \(std_msgs/msg/String\)'
NOTE = ('/text', STRING, string('hello'))
LABELLED = ['--labels', '/truth']
SMALL, WRONG = np.zeros((3, 4), np.uint8), np.full((64, 96), 7, np.uint8)


@pytest.mark.parametrize(
    ('make', 'options', 'message'),
    [
        (truncated, [], '(is no bag that can be read|is cut off or damaged)'),
        (lambda path: write_bag(path, []), [], 'has no messages'),
        (lambda path: write_bag(path, [NOTE]), [], r'has no camera images; it has /text \(std'),
        (with_silent_camera, [], r'has no camera images; it has /camera \(sensor_msgs/msg/Image\)'),
        (with_silent_camera, ['--image', '/camera'], 'topic /camera has no messages'),
        (
            lambda path: write_bag(path, [*frames(1), NOTE]),
            ['--image', '/nose'],
            f'has no topic /nose; it {TOPICS}',
        ),
        (
            lambda path: write_bag(path, [*frames(1), NOTE]),
            ['--image', '/text'],
            f'/text is of type {STRING}, expected {IMAGE} or {COMPRESSED}; the bag {TOPICS}',
        ),
        (
            lambda path: write_bag(path, [*frames(1), NOTE]),
            ['--labels', '/text'],
            f'/text is of type {STRING}, expected {IMAGE}; the bag {TOPICS}',
        ),
        (with_labels(SMALL), LABELLED, 'with stamp 1000000000 is 4x3, its frame 96x64'),
        (with_labels(WRONG), LABELLED, 'of /truth has the id 7, the class list ends at 2'),
        (
            lambda path: write_bag(path, [('/c', COMPRESSED, compressed(b'\xff\xd8nothing'))]),
            [],
            'none of the 1 frames can be used: .* is no readable JPEG or PNG',
        ),
        (with_cut_messages, [], 'none of the 2 frames can be used: a message of /camera does not'),
    ],
)
def test_bad_bags(
    fast_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    options: list[str],
    message: str,
) -> None:
    bag = make(tmp_path / 'bag')
    arguments = [bag, '--classes', 'cat,cup', '--config', fast_config, *options]
    assert replay(*arguments, '--out', tmp_path / 'out', '--report', tmp_path / 'report') == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'report']
    assert list((tmp_path / 'report').iterdir()) == []


def test_a_report_folder_that_can_not_be_written(
    fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / 'bag', frames(1))
    (tmp_path / 'file').touch()
    arguments = [bag, '--classes', 'cat', '--config', fast_config]
    assert replay(*arguments, '--report', tmp_path / 'file' / 'report') == 1
    assert 'file/report can not be written: Not a directory' in capsys.readouterr().err


@pytest.mark.parametrize(('option', 'size'), [('--out', 50_000), ('--out', 100), ('--json', 100)])
def test_a_full_disk(
    fast_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    size: int,
) -> None:
    bag = write_bag(tmp_path / 'bag', frames(4))
    arguments = [bag, '--classes', 'cat', '--config', fast_config]
    capsys.readouterr()
    with room_for(size):
        assert replay(*arguments, option, tmp_path / 'new') == 1
    assert f'{tmp_path / "new"} can not be written: File too large' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['bag']
