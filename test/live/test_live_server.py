"""The server of `llmseg live` without a browser: token, viewers fast and slow, nonsense, files."""

from __future__ import annotations

import io
import json
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import websocket
import yaml
from PIL import Image

from llmseg_ros.config_files import load_config
from llmseg_ros.live.app import MOST_REQUESTS
from llmseg_ros.live.hub import MOST_VIEWERS
from llmseg_ros.subclasses.packs import load_pack

from .conftest import LiveServer

TIMEOUT_S = 20.0


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory, fast_config: Path) -> Iterator[LiveServer]:
    """The demo's photographs, to be seen from other machines."""
    arguments = ('--host', '0.0.0.0', '--config', str(fast_config))
    server = LiveServer(tmp_path_factory.mktemp('live'), *arguments)
    server.wait()
    yield server
    server.close()


@pytest.fixture
def token(server: LiveServer) -> str:
    return parse_qs(urlsplit(server.wait()).query)['token'][0]


class Page:
    """A page of the test's own."""

    def __init__(self, server: LiveServer, token: str, **options: Any) -> None:
        address = f'ws://127.0.0.1:{server.port}/socket?token={token}'
        self.socket = websocket.create_connection(address, timeout=TIMEOUT_S, **options)
        self.state: dict[str, Any] = {}
        self.classes: list[str] = []

    def receive(self) -> Any:
        """Return the next frame's header and parts, or an answer as a mapping."""
        while True:
            code, content = self.socket.recv_data()
            if code == websocket.ABNF.OPCODE_BINARY:
                return split(content)
            assert code == websocket.ABNF.OPCODE_TEXT, content
            message = json.loads(content)
            if 'classes' in message:
                self.classes = [item['name'] for item in message['classes']]
            elif 'state' in message:
                self.state = message['state']
            else:
                return message

    def frame(self, take_next: bool = True) -> tuple[dict[str, Any], list[bytes]]:
        """Return the next frame."""
        found = self.receive()
        while isinstance(found, dict):
            found = self.receive()
        if take_next:
            self.send(do='shown')
        return found

    def ask(self, **request: Any) -> str:
        """Send a request and return what is told."""
        self.send(**request)
        found = self.receive()
        while not isinstance(found, dict):
            self.send(do='shown')
            found = self.receive()
        return found['told']

    def send(self, **request: Any) -> None:
        self.socket.send(json.dumps(request))


@pytest.fixture
def page(server: LiveServer, token: str) -> Iterator[Page]:
    page = Page(server, token)
    yield page
    page.socket.close()


def split(content: bytes) -> tuple[dict[str, Any], list[bytes]]:
    length = struct.unpack_from('<I', content)[0]
    header, at, parts = json.loads(content[4 : 4 + length]), 4 + length, []
    for size in header['parts']:
        parts.append(content[at : at + size])
        at += size
    assert at == len(content)
    return header, parts


def fetch(server: LiveServer, path: str, token: str = '') -> bytes:
    query = f'?token={token}' if token else ''
    address = f'http://127.0.0.1:{server.port}/{path}{query}'
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
        assert answer.headers['Cross-Origin-Resource-Policy'] == 'same-origin'
        return answer.read()


@pytest.mark.parametrize('wrong', ['', 'guessed'])
def test_other_machines_need_the_token(server: LiveServer, token: str, wrong: str) -> None:
    for path in ('', 'save/overlay.png', 'nothing'):
        with pytest.raises(urllib.error.HTTPError, match='403') as caught:
            fetch(server, path, wrong)
        assert b'token' in caught.value.read()
    with pytest.raises(websocket.WebSocketBadStatusException, match='403'):
        Page(server, wrong)
    assert b'llmseg live' in fetch(server, '', token)
    assert token not in server.said().partition('token=')[2].partition('\n')[2]


@pytest.mark.parametrize('origin', ['http://elsewhere.example', 'null', 'http://['])
def test_no_page_of_another_site_looks_in(server: LiveServer, token: str, origin: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match='403'):
        Page(server, token, origin=origin)


def test_a_frame_has_all_that_the_page_shows(page: Page) -> None:
    header, (picture, labels, confidence, maps) = page.frame()
    assert (header['width'], header['height']) == (640, 480)
    for part in (picture, labels, confidence):
        assert Image.open(io.BytesIO(part)).size == (640, 480)
    assert np.asarray(Image.open(io.BytesIO(labels))).max() < len(header['ids'])
    count, rows, columns = len(header['maps']['ids']), *header['maps']['shape']
    assert len(maps) == count * rows * columns > 0
    page.frame()
    assert page.classes == ['cat', 'cup', 'rocket', 'person']
    assert page.state['encoder'] == 'imagenet lite0'


def test_a_viewer_that_reads_nothing_slows_nobody(server: LiveServer, token: str) -> None:
    idle, looking = Page(server, token), Page(server, token)
    numbers = [looking.frame()[0]['frame'] for _ in range(8)]
    assert numbers == list(range(numbers[0], numbers[0] + 8))
    first = idle.frame(take_next=False)[0]['frame']
    idle.send(do='shown')  # what came meanwhile was dropped, not queued
    assert idle.frame()[0]['frame'] >= numbers[-1] > first
    for page in (idle, looking):
        page.socket.close()


def test_nobody_watching_costs_nothing(server: LiveServer, token: str) -> None:
    page = Page(server, token)
    page.frame()
    page.send(do='look', looking=False)
    time.sleep(0.5)  # for the frame in work
    before = cpu_ticks(server.process.pid)
    time.sleep(1.5)
    assert cpu_ticks(server.process.pid) - before <= 5  # of 150
    page.send(do='look', looking=True)
    assert page.frame()
    page.socket.close()


def cpu_ticks(pid: int) -> int:
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return int(fields[11]) + int(fields[12])


def test_too_many_pages_are_told(server: LiveServer, token: str) -> None:
    pages = [Page(server, token) for _ in range(MOST_VIEWERS)]
    more = Page(server, token)
    code, told = more.socket.recv_data()
    assert code == websocket.ABNF.OPCODE_CLOSE
    assert told[2:] == b'too many pages look already'
    for page in pages:
        page.socket.close()


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [('nonsense', 'is no JSON'), ('[' * 100_000, 'is no JSON'), ('[1]', 'does not say what to do')],
)
def test_nonsense_closes_the_socket(page: Page, content: str, sentence: str) -> None:
    page.socket.send(content)
    code = None
    while code != websocket.ABNF.OPCODE_CLOSE:
        code, told = page.socket.recv_data()
    assert sentence in told[2:].decode()


@pytest.mark.parametrize(
    ('request_', 'sentence'),
    [
        ({'do': 'fly'}, "there is no 'fly' to do"),
        ({'do': 'add', 'names': 3}, "'add' lacks names, or it is of the wrong kind"),
        ({'do': 'add', 'names': ' ,\n,'}, 'type the name of a class first'),
        ({'do': 'subclasses', 'name': 'cat', 'names': [1]}, 'subclasses are names'),
        ({'do': 'subclasses', 'name': 'owl', 'names': []}, "class 'owl' is not in the list"),
        ({'do': 'threshold', 'name': 'gate.share', 'value': 'x'}, 'lacks value'),
        ({'do': 'threshold', 'name': 'gate.share', 'value': float('nan')}, 'expected 0.0 to 1.0'),
        (
            {'do': 'threshold', 'name': 'gate.share', 'value': 10**400},
            'is inf, expected 0.0 to 1.0',
        ),
        ({'do': 'threshold', 'name': 'encoder.name', 'value': 1}, "no threshold 'encoder.name'"),
        ({'do': 'pause', 'paused': 1}, 'lacks paused'),
    ],
)
def test_a_bad_request_is_answered_in_a_sentence(
    page: Page, request_: dict[str, Any], sentence: str
) -> None:
    assert sentence in page.ask(**request_)
    assert page.frame()


def test_frames_go_on_while_much_is_asked_for(page: Page) -> None:
    asked = MOST_REQUESTS + 5
    for number in range(asked):
        names = [f'kind {number} {index}' for index in range(50)] if number < 6 else []
        page.send(do='subclasses', name='person', names=names)
    frames, told = 0, []
    while len(told) < asked:
        found = page.receive()
        if isinstance(found, dict):
            told.append(found['told'])
        else:
            page.send(do='shown')
            frames += 1
    assert frames >= 3
    assert 'not done: too much is asked for at once' in told


def test_of_many_refusals_few_are_told(page: Page) -> None:
    told = page.ask(do='add', names='\n'.join(f'{i}\u0007' for i in range(500)))
    assert told.count('control characters') == 8
    assert told.endswith('and 492 more')


def test_of_many_notes_few_are_sent(page: Page) -> None:
    strange = [5 * chr(0x5D0 + index) for index in range(12)]  # words of Hebrew letters
    page.ask(do='add', names=','.join(strange))
    while strange[-1] not in page.classes:
        page.frame()
    while not page.state['notes']:
        page.frame()
    assert page.state['notes'][-1] == 'and 4 more'
    for name in strange:
        page.ask(do='drop', name=name)


def test_what_is_saved_can_be_used(
    server: LiveServer, token: str, page: Page, tmp_path: Path
) -> None:
    page.frame()
    assert page.ask(do='subclasses', name='cup', names=['mug', 'mug']) != ''
    overlay, labels, settings, subclasses = (
        fetch(server, f'save/{name}', token)
        for name in ('overlay.png', 'labels.png', 'settings.yaml', 'subclasses.yaml')
    )
    width, height = Image.open(io.BytesIO(overlay)).size
    assert width == 640
    assert height > 480  # the legend
    assert Image.open(io.BytesIO(labels)).mode == 'P'
    (tmp_path / 'settings.yaml').write_bytes(settings)
    (tmp_path / 'subclasses.yaml').write_bytes(subclasses)
    assert load_config(tmp_path / 'settings.yaml').imagenet.model == 'lite0'
    assert yaml.safe_load(settings)['classes'] == ['cat', 'cup', 'rocket', 'person']
    assert load_pack(tmp_path / 'subclasses.yaml').classes['cup'] == ('mug',)
    with pytest.raises(urllib.error.HTTPError, match='404'):
        fetch(server, 'save/passwd', token)
