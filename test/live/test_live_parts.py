"""Parts of `llmseg live`: bytes of a frame, the reader, and what the command refuses."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmseg_ros.frame_sources import FrameSource, SourceError, TimedFrame
from llmseg_ros.live.actions import serve_request
from llmseg_ros.live.frames import LiveFrame, encode_frame
from llmseg_ros.live.guard import Guard
from llmseg_ros.live.hub import Hub
from llmseg_ros.live.reader import LONGEST_WAIT_S, FrameReader, LiveSource, Pace, TakenFrame

from ..helpers.commands import llmseg


def test_a_large_frame_with_many_labels_is_scaled_and_keeps_its_ids() -> None:
    labels = np.repeat(np.arange(2000, dtype=np.uint16), 3)[None].repeat(4, axis=0) + 60000
    rgb = np.zeros((*labels.shape, 3), np.uint8)
    message = encode_frame(LiveFrame(1, '', rgb, labels, rgb[..., 0], (), 1))
    length = struct.unpack_from('<I', message)[0]
    header = json.loads(message[4 : 4 + length])
    at = 4 + length + header['parts'][0]
    shown = np.asarray(Image.open(io.BytesIO(message[at : at + header['parts'][1]]))).astype(int)
    assert header['wide']
    assert (header['width'], shown.shape[1]) == (6000, 1280)
    ids = np.array(header['ids'])[shown[..., 0] + 256 * shown[..., 1]]
    assert set(ids.ravel()) == set(header['ids']) <= set(labels.ravel())


class Pictures:
    """A source that counts how often it is opened, and what is read of it."""

    def __init__(self, count: int, rate: float = 1000.0, fails_at: int = -1) -> None:
        self.opened = self.closed = 0
        self._count, self._rate, self._fails_at = count, rate, fails_at

    def open(self) -> FrameSource:
        self.opened += 1
        notes = ['the file may be cut off']
        return FrameSource('video', 'pictures', self._frames(), self._close, notes=notes)

    def _close(self) -> None:
        self.closed += 1

    def _frames(self) -> Iterator[TimedFrame]:
        for number in range(self._count):
            if number == self._fails_at:
                raise SourceError('the cable is gone')
            yield TimedFrame(np.zeros((2, 2, 3), np.uint8), number / self._rate, '', number)


class Reading:
    """A reader of pictures, and what it took."""

    def __init__(self, pictures: Pictures) -> None:
        self.taken: list[int] = []
        self.reader = FrameReader(LiveSource('pictures', pictures.open), self._take)
        self.reader.start()

    def _take(self, item: TakenFrame) -> None:
        self.taken.append(item.frame.number)

    def until(self, count: int) -> None:
        end = time.monotonic() + 5
        while len(self.taken) < count:
            assert time.monotonic() < end
            time.sleep(0.002)


def test_a_source_is_read_while_someone_looks_and_again_when_through() -> None:
    pictures = Pictures(3)
    reading = Reading(pictures)
    time.sleep(0.05)
    assert not pictures.opened
    reading.reader.watch(True)
    reading.until(7)
    reading.reader.close()
    assert reading.taken[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert pictures.opened == pictures.closed
    assert reading.reader.notes == ('the file may be cut off',)
    assert not [thread for thread in threading.enumerate() if thread.name == 'live read']


def test_paused_a_frame_comes_for_every_step() -> None:
    reading = Reading(Pictures(100, rate=20.0))
    reading.reader.watch(True)
    reading.until(1)
    assert reading.reader.notes == ('the file may be cut off',)  # not only after the last frame
    reading.reader.pause(True)
    time.sleep(0.1)
    count = len(reading.taken)
    for more in (1, 2):
        reading.reader.step()
        reading.until(count + more)
    time.sleep(0.1)
    assert len(reading.taken) == count + 2
    reading.reader.close()


def test_frames_keep_the_distance_of_their_stamps() -> None:
    reading = Reading(Pictures(5, rate=20.0))
    begin = time.monotonic()
    reading.reader.watch(True)
    reading.until(5)
    assert 0.2 <= time.monotonic() - begin < 1.0
    reading.reader.close()


def test_a_gap_of_years_in_the_stamps_is_waited_for_a_little() -> None:
    pace = Pace()
    pace.restart(0.0)
    assert pace.due_in(1.7e9) == LONGEST_WAIT_S
    assert pace.due_in(1.7e9 + 0.5) == LONGEST_WAIT_S  # as a frame a half second after that
    pace.restart(1.7e9)
    assert 0.4 < pace.due_in(1.7e9 + 0.5) <= 0.5
    assert pace.due_in(0.0) == 0.0
    assert 0.4 < pace.due_in(0.5) <= 0.5


def test_a_source_that_fails_says_why_and_is_begun_again_when_asked() -> None:
    pictures = Pictures(9, fails_at=2)
    reading = Reading(pictures)
    reading.reader.watch(True)
    reading.until(2)
    while not reading.reader.resting:
        time.sleep(0.002)
    assert reading.reader.trouble == 'the cable is gone'
    assert (pictures.opened, pictures.closed) == (1, 1)
    reading.reader.step()
    reading.until(4)
    reading.reader.close()


@pytest.mark.parametrize(
    ('host', 'refused'),
    [
        ('localhost:8080', False),
        ('127.0.0.1', False),
        ('[::1]:8080', False),
        ('evil.example', True),
        ('', True),
        ('[::1', True),
        ('[evil]', True),
    ],
)
def test_on_loopback_the_address_is_too(host: str, refused: bool) -> None:
    scope = {'type': 'http', 'query_string': b'', 'headers': [(b'host', host.encode())]}
    assert bool(Guard(None, '').refusal(scope)) is refused


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert llmseg('live', '--port', port) == 1
    assert f'port {port} is in use: give another with --port' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('--host', 'nowhere.invalid'), '--host nowhere.invalid:'),
        (('--host', 'w' * 70), "ww' is no address"),
        (('91',), 'there is no camera /dev/video91'),
        (('gone.mp4',), 'gone.mp4 does not exist'),
        (('cut.mp4',), 'cut.mp4 is no video that can be read'),
        (('ros', '--config', 'config/offline.yaml'), 'leave out --config'),
    ],
)
def test_what_can_not_be_shown_is_told_in_a_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'cut.mp4').write_bytes(b'\0\0\0 ftypisom' + bytes(4000))
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    assert llmseg('live', *arguments, '--port', port) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    'arguments',
    [
        ('--image', '/eye'),
        ('cup.png', '--image', '/eye'),
        ('clip.mp4', '--node', 'seg'),
        ('0', '--camera', 'x'),
    ],
)
def test_an_option_of_another_source_is_wrong_usage(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (8, 8)).save('cup.png')
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    assert llmseg('live', *arguments, '--port', port) == 2


def test_no_running_node_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip('rclpy')
    pytest.importorskip('llmseg_ros.msg')
    from llmseg_ros.ros.isolation import isolated_graph

    monkeypatch.setattr('llmseg_ros.cli.live.ASKED_S', 0.2)
    with isolated_graph() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert llmseg('live', 'ros', '--port', 8093) == 1
    assert 'no running node is found' in capsys.readouterr().err


def test_viewers_share_the_bytes_of_a_frame_and_only_those_who_look_count() -> None:
    watched: list[bool] = []

    async def look() -> None:
        hub = Hub(watched.append)
        first, second = hub.join(), hub.join()
        frame = bytes(10)
        hub.send_frame(frame)
        assert await first.next() is frame
        assert await second.next() is frame
        hub.send_frame(b'newer')
        hub.send_frame(b'newest')
        first.shown()
        assert await first.next() == b'newest'
        hub.look(first, False)
        assert hub.watched
        hub.leave(second)

    asyncio.run(look())
    assert watched == [True, False]


def test_whatever_goes_wrong_is_told_to_who_asked() -> None:
    class Broken:
        def describe(self) -> dict[str, object]:
            raise MemoryError('no room')

    assert serve_request(Broken(), {'do': 'add', 'names': 'cat'}) == 'MemoryError: no room'
