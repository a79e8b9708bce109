"""What a text opens: pictures, folders, bags, cameras that are not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmseg_ros.bags.writing import write_camera_bag
from llmseg_ros.frame_sources import SourceError, open_source

from ..helpers.videos import corners, grey


def test_a_folder_of_pictures_where_one_is_none(tmp_path: Path) -> None:
    (tmp_path / 'below').mkdir()
    Image.fromarray(corners()).save(tmp_path / 'below' / 'a.png')
    (tmp_path / 'b.png').write_text('no picture')
    Image.fromarray(grey(7)).save(tmp_path / 'c.png')
    with open_source(str(tmp_path)) as source:
        assert (source.kind, source.count, source.rate) == ('pictures', 3, None)
        frames = list(source)
    assert [(f.name, f.number, f.stamp) for f in frames] == [('below/a.png', 1, 1), ('c.png', 2, 2)]
    assert np.array_equal(frames[0].rgb, corners())
    assert len(source.notes) == 1
    assert 'b.png: this is not an image' in source.notes[0]


def test_one_picture(tmp_path: Path) -> None:
    Image.fromarray(corners()).save(tmp_path / 'a.png')
    with open_source(str(tmp_path / 'a.png')) as source:
        assert [(f.name, f.stamp) for f in source] == [('a.png', 0)]


def test_no_picture_can_be_read(tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_text('no picture')
    with open_source(str(tmp_path)) as source, pytest.raises(SourceError, match='none of the 1'):
        list(source)


@pytest.mark.parametrize('inside', [False, True])
def test_a_bag(tmp_path: Path, inside: bool) -> None:
    write_camera_bag(tmp_path / 'b', [corners(), grey(9), grey(99)], rate=4)
    path = next((tmp_path / 'b').glob('*.mcap')) if inside else tmp_path / 'b'
    with open_source(str(path)) as source:
        assert (source.kind, source.count, source.duration) == ('bag', 3, 0.5)
        frames = list(source)
    assert [frame.stamp for frame in frames] == [1, 1.25, 1.5]
    assert [frame.name for frame in frames] == [f'{path.stem}_{i:06d}' for i in range(3)]
    assert np.array_equal(frames[0].rgb, corners())


def test_a_bag_without_that_topic(tmp_path: Path) -> None:
    write_camera_bag(tmp_path / 'b', [grey(9)], rate=4)
    with pytest.raises(SourceError, match='the bag has no topic /front'):
        open_source(str(tmp_path / 'b'), '/front')


@pytest.mark.parametrize(
    ('source', 'sentence'),
    [
        ('rtsp://camera/1', 'is an address'),
        ('gone.mp4', 'does not exist: give a camera number, a video'),
        ('', 'has no pictures'),
        ('x' * 5000, 'can not be read: File name too long'),
        ('a\0b', 'does not exist'),
    ],
)
def test_what_is_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=sentence):
        open_source(source)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.mp4')
    with pytest.raises(SourceError, match='is no file'):
        open_source(str(tmp_path / 'a.mp4'))
