"""Cameras that are not there, and the reading of a live device of FFmpeg's own."""

from __future__ import annotations

import time
from pathlib import Path

import av
import pytest

from llmseg_ros.frame_sources import SourceError, open_source
from llmseg_ros.frame_sources.cameras import CameraReader, opened_device


@pytest.mark.parametrize('number', ['63', '/dev/video63'])
def test_a_camera_that_is_not_there(number: str) -> None:
    with pytest.raises(SourceError, match=r'there is no camera /dev/video63: this machine has'):
        open_source(number)


def test_a_device_that_is_no_camera() -> None:
    with pytest.raises(SourceError, match=r'/dev/null is no camera that sends pictures \('):
        opened_device(Path('/dev/null'))


def live(graph: str) -> CameraReader:
    return CameraReader(lambda: av.open(graph, format='lavfi'), 'camera 0')


def test_a_slow_reader_gets_the_newest_frame() -> None:
    reader = live('testsrc=size=64x48:rate=50,realtime')
    try:
        frames = reader.frames('video0')
        first = next(frames)
        time.sleep(0.5)
        later = next(frames)
        assert reader.rate == 50
        assert first.rgb.shape == (48, 64, 3)
        assert later.number - first.number > 10
        assert later.name == f'video0_{later.number:06d}'
        assert time.time() - later.stamp < 0.2
        assert (first.rgb != later.rgb).any()
    finally:
        reader.close()
    with pytest.raises(SourceError, match='camera 0 is closed'):
        next(frames)


def test_a_camera_that_stops() -> None:
    reader = live('testsrc=size=64x48:rate=50:duration=0.1,realtime')
    with pytest.raises(SourceError, match='camera 0 has stopped'):
        for _ in reader.frames('video0'):
            pass
    reader.close()


def test_a_camera_that_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('llmseg_ros.frame_sources.cameras.PATIENCE_S', 0.2)
    reader = live('testsrc=size=64x48:rate=1/2,realtime')
    with pytest.raises(SourceError, match='camera 0 has sent nothing'):
        for _ in reader.frames('video0'):
            pass
    reader.close()
