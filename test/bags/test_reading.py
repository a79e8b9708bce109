"""Bags of every kind read, new ones written whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from llmseg_ros.bags.frames import to_frame
from llmseg_ros.bags.reading import (
    find_image_connections,
    message_to_labels,
    message_to_rgb,
    opened_bag,
)
from llmseg_ros.bags.storage import BagError
from llmseg_ros.bags.writing import complete_bag
from llmseg_ros.cli.main import main

from ..helpers.bags import (
    COMPRESSED,
    IMAGE,
    SECOND,
    STRING,
    compressed,
    image,
    string,
    write_bag,
    write_ros1_bag,
)

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
PICTURE = ('/camera/image', IMAGE, image(RGB, 'rgb8'))


def frames_of(path: Path, topic: str = '') -> list[np.ndarray]:
    with opened_bag(path) as reader:
        messages = reader.messages(find_image_connections(reader, topic))
        return [to_frame(reader, message).rgb for message in messages]


def single_file(path: Path) -> Path:
    """Take the file out of a bag folder."""
    file = next(f for f in path.iterdir() if f.suffix in ('.mcap', '.db3'))
    return file.rename(path.with_suffix(file.suffix))


def folder_without_metadata(path: Path) -> Path:
    (path / 'metadata.yaml').unlink()
    return path


@pytest.mark.parametrize(
    'make',
    [
        lambda path: write_bag(path, [PICTURE]),
        lambda path: write_bag(path, [PICTURE], StoragePlugin.SQLITE3),
        lambda path: write_bag(path, [PICTURE], compression=CompressionMode.FILE),
        lambda path: write_bag(path, [PICTURE], compression=CompressionMode.MESSAGE),
        lambda path: single_file(write_bag(path, [PICTURE])),
        lambda path: single_file(write_bag(path, [PICTURE], StoragePlugin.SQLITE3)),
        lambda path: folder_without_metadata(write_bag(path, [PICTURE])),
        lambda path: write_ros1_bag(path.with_suffix('.bag'), RGB),
    ],
    ids=['mcap', 'sqlite3', 'file', 'message', '.mcap', '.db3', 'no metadata', 'ROS 1'],
)
def test_bags_of_every_kind(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (frame,) = frames_of(make(tmp_path / 'bag'))
    assert np.array_equal(frame, RGB)


def test_old_type_names(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', [PICTURE], StoragePlugin.SQLITE3)
    metadata = (path / 'metadata.yaml').read_text()
    assert metadata.count(IMAGE) == 1
    (path / 'metadata.yaml').write_text(metadata.replace(IMAGE, 'sensor_msgs/Image'))
    with sqlite3.connect(path / 'bag.db3') as database:
        database.execute("UPDATE topics SET type = 'sensor_msgs/Image'")
    (frame,) = frames_of(path)
    assert np.array_equal(frame, RGB)


def test_the_camera_is_found(tmp_path: Path) -> None:
    twin = ('/camera/image/compressed', COMPRESSED, compressed(b'x'))
    depth = ('/camera/depth', IMAGE, image(RGB[..., 0].astype(np.uint16), 'mono16'))
    other = ('/rear/image', IMAGE, image(RGB, 'rgb8'))
    text = ('/text', STRING, string('hello'))
    with opened_bag(write_bag(tmp_path / 'one', [PICTURE, twin, depth, text])) as reader:
        assert find_image_connections(reader)[0].topic == '/camera/image'
        with pytest.raises(BagError, match=r'topic /text is of type std_msgs/msg/String, expected'):
            find_image_connections(reader, '/text')
        with pytest.raises(BagError, match=r'no topic /nose; it has /camera/depth \(sensor_msgs'):
            find_image_connections(reader, '/nose')
    with opened_bag(write_bag(tmp_path / 'two', [PICTURE, other])) as reader:
        with pytest.raises(BagError, match='with --image, one of /camera/image, /rear/image'):
            find_image_connections(reader)
        found = find_image_connections(reader, other_than='/camera/image')
        assert found[0].topic == '/rear/image'
    with (
        opened_bag(write_bag(tmp_path / 'none', [text])) as reader,
        pytest.raises(BagError, match=r'no camera images; it has /text \(std_msgs/msg/String\)'),
    ):
        find_image_connections(reader)


def jpeg(mode: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(skimage.data.chelsea()).convert(mode).save(stream, 'JPEG')
    return stream.getvalue()


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        (image(RGB, 'rgb8', padding=5), RGB),
        (image(RGB[..., ::-1], 'bgr8'), RGB),
        (image(RGB[..., 0], 'mono8', padding=1), np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=['rgb8', 'bgr8', 'mono8'],
)
def test_message_to_rgb(message: Any, expected: np.ndarray) -> None:
    rgb = message_to_rgb(message)
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, expected)


@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_compressed_message_to_rgb(mode: str) -> None:
    rgb = message_to_rgb(compressed(jpeg(mode)))
    expected = np.asarray(Image.open(BytesIO(jpeg(mode))).convert('RGB'), np.int16)
    assert rgb.shape == expected.shape
    assert np.abs(rgb - expected).max() <= 3  # two JPEG decoders


@pytest.mark.parametrize(
    ('values', 'encoding'),
    [
        (np.array([[0, 1], [2, 255]], np.uint8), 'mono8'),
        (np.array([[0, 1], [2, 65535]], np.uint16), 'mono16'),
        (np.array([[0, 1], [2, -1]], np.int16), '16SC1'),
    ],
)
def test_message_to_labels(values: np.ndarray, encoding: str) -> None:
    labels = message_to_labels(image(values, encoding, padding=2))
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[0, 1], [2, 65535]]


@pytest.mark.parametrize(
    ('convert', 'message', 'expected'),
    [
        (message_to_rgb, image(RGB, 'rgb10'), "encoding 'rgb10' is not supported"),
        (message_to_rgb, image(RGB[:, :2], 'rgb8', width=3), 'step 6 is less than the 9 bytes'),
        (message_to_rgb, compressed(b'nothing'), 'is no readable JPEG or PNG'),
        (message_to_rgb, compressed(jpeg('RGB')[:-9]), 'JPEG data of .* bytes is cut off'),
        (message_to_labels, image(RGB, 'rgb8'), "mono8, mono16 or 16SC1, not 'rgb8'"),
        (message_to_labels, image(RGB[..., 0], 'mono16'), '3x2 mono16 with step 3'),
    ],
)
def test_images_that_do_not_decode(
    convert: Callable[[Any], Any], message: Any, expected: str
) -> None:
    with pytest.raises(BagError, match=expected):
        convert(message)


def cut(path: Path, suffix: str, share: float) -> Path:
    file = path / f'{path.name}{suffix}'
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda path: path, 'does not exist'),
        (lambda path: write_bag(path, []), 'has no messages'),
        (
            lambda path: cut(write_bag(path, [PICTURE]), '.mcap', 0.2),
            'has no messages that can be read: bag.mcap is cut off: of its ',
        ),
        (lambda path: cut(write_bag(path, [PICTURE]), '.mcap', 0), 'bag.mcap is empty'),
        (
            lambda path: cut(write_bag(path, [PICTURE] * 99, StoragePlugin.SQLITE3), '.db3', 0.5),
            r'bag.db3 is cut off or damaged \(.*\): try `sqlite3 bag.db3 .recover',
        ),
    ],
)
def test_broken_bags(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(BagError, match=message):
        frames_of(make(tmp_path / 'bag'))


def test_folder_without_bags(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r'has no metadata\.yaml and 0 bag files'):
        frames_of(tmp_path)


def test_a_bag_is_complete_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / 'new'

    def write_and_fail() -> None:
        with complete_bag(path) as partial:
            write_bag(partial, [PICTURE])
            assert not path.exists()
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []
    with complete_bag(path) as partial:
        write_bag(partial, [PICTURE])
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(frames_of(path)[0], RGB)
    with pytest.raises(BagError, match='new exists, choose another name'), complete_bag(path):
        pass


@pytest.mark.parametrize('flags', [[], ['--compressed']])
def test_bag_from_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    (tmp_path / 'in').mkdir()
    for name, value in (('b', 1), ('a', 2)):
        Image.new('RGB', (4, 3), (value, 50, 0)).save(tmp_path / 'in' / f'{name}.png')
    arguments = ['bag', 'from-images', tmp_path / 'in', '--rate', '4', '--out', tmp_path / 'out']
    with pytest.raises(SystemExit) as leaving:
        main([*map(str, arguments), *flags])
    assert leaving.value.code == 0
    frames = frames_of(tmp_path / 'out')
    assert [frame[0, 0].tolist() for frame in frames] == [[2, 50, 0], [1, 50, 0]]
    with AnyReader([tmp_path / 'out']) as reader:
        assert [time for _, time, _ in reader.messages()] == [SECOND, SECOND + SECOND // 4]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(['bag', 'info', str(tmp_path / 'out')])
    printed = capsys.readouterr().out
    assert f'/camera/image_raw{"/compressed" if flags else ""} ' in printed
    assert '2 messages in 0.25 s' in printed


def test_bag_from_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new('RGB', (4, 3)).save(tmp_path / 'a.bmp')
    arguments = ['bag', 'from-images', tmp_path, '--out', tmp_path / 'out', '--compressed']
    with pytest.raises(SystemExit) as leaving:
        main([*map(str, arguments)])
    assert leaving.value.code == 1
    assert 'a.bmp is neither JPEG nor PNG: leave out --compressed' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
