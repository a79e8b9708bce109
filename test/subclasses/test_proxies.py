import json
import logging
import select
import socket
import socketserver
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.llm import LlmClient, LlmError
from llmseg_ros.subclasses.transport import MAX_BODY_BYTES

PROMPT = 'Q: List 3 subclasses of the following: cat\nA: Here are 3 subclasses of cat:'
HOST = 'llm.invalid'  # no name server knows it: only a proxy gets there
PASSWORD = 'hunter2 and more'
VARIABLES = ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY')


class Proxy(socketserver.ThreadingTCPServer):
    """A forward, CONNECT and SOCKS 5 proxy that takes every host for the language model's server.

    `heads` are the requests it got; `refusal` is what it sends instead of a way through.
    """

    daemon_threads = True

    def __init__(self, target):
        super().__init__(('127.0.0.1', 0), None)
        self.target = target
        self.heads = []
        self.refusal = b''

    @property
    def address(self):
        return f'127.0.0.1:{self.server_address[1]}'

    def finish_request(self, client, address):
        data = client.recv(65536)
        if data[:1] == b'\x05':
            client.sendall(b'\x05\x00')
            request = client.recv(65536)
            self.heads.append(f'SOCKS {request[5 : 5 + request[4]].decode()}')
            client.sendall(b'\x05\x00\x00\x01' + bytes(6))
            return self.relay(client, b'')
        while b'\r\n\r\n' not in data:
            data += client.recv(65536)
        self.heads.append(data.partition(b'\r\n\r\n')[0].decode())
        if self.refusal:
            return client.sendall(self.refusal)
        if data.startswith(b'CONNECT '):
            client.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
            data = b''
        return self.relay(client, data)

    def relay(self, client, data):
        with socket.create_connection(self.target) as server:
            server.sendall(data)
            while ready := select.select([client, server], [], [], 20)[0]:
                for source in ready:
                    if not (data := source.recv(65536)):
                        return
                    (server if source is client else client).sendall(data)


@pytest.fixture
def proxy(server, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    url = urlsplit(server.url)
    with Proxy((url.hostname, url.port)) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def ask(url=f'http://{HOST}/v1', **settings):
    client = LlmClient(SubclassesConfig(base_url=url, model='m', timeout=5.0, **settings))
    try:
        return client.ask(PROMPT)
    finally:
        client.close()


def failure(url=f'http://{HOST}/v1'):
    with pytest.raises(LlmError) as caught:
        ask(url)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize('variable', ['HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'])
@pytest.mark.parametrize('form', ['http://{}', '{}'])
def test_proxy_of_the_environment_is_used(proxy, monkeypatch, variable, form):
    monkeypatch.setenv(variable, form.format(proxy.address))
    assert 'red cat' in ask()
    (head,) = proxy.heads
    assert head.startswith(f'POST http://{HOST}/v1/chat/completions HTTP/1.1')


def test_proxy_gets_its_user_and_password(proxy, monkeypatch):
    monkeypatch.setenv('HTTP_PROXY', f'http://me:{PASSWORD.replace(" ", "%20")}@{proxy.address}')
    assert 'red cat' in ask()
    assert 'proxy-authorization: basic bWU6aHVudGVyMiBhbmQgbW9yZQ==' in proxy.heads[0].replace(
        'Proxy-Authorization: Basic', 'proxy-authorization: basic'
    )


@pytest.mark.parametrize('scheme', ['socks5', 'socks5h'])
def test_socks_proxy(proxy, monkeypatch, scheme):
    monkeypatch.setenv('ALL_PROXY', f'{scheme}://{proxy.address}')
    assert 'red cat' in ask()
    assert proxy.heads == [f'SOCKS {HOST}']


def test_https_goes_through_a_tunnel(proxy, monkeypatch):
    monkeypatch.setenv('HTTPS_PROXY', f'http://me:{PASSWORD}@{proxy.address}')
    proxy.refusal = b'HTTP/1.1 403 Not from here\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    told = failure(f'https://{HOST}/v1')
    assert told == f'the proxy of HTTPS_PROXY opens no way to {HOST}: 403 Not from here'
    assert proxy.heads[0].startswith(f'CONNECT {HOST}:443 HTTP/1.1')


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_proxy_that_wants_a_password(proxy, monkeypatch, scheme):
    monkeypatch.setenv('ALL_PROXY', f'http://{proxy.address}')
    proxy.refusal = b'HTTP/1.1 407 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    told = failure(f'{scheme}://{HOST}/v1')
    assert 'the proxy of ALL_PROXY' in told
    assert '407' in told


@pytest.mark.parametrize('exception', ['*', HOST, 'invalid', '.invalid', 'a.test, llm.invalid'])
def test_no_proxy(proxy, monkeypatch, exception):
    monkeypatch.setenv('HTTP_PROXY', f'http://{proxy.address}')
    monkeypatch.setenv('NO_PROXY', exception)
    assert 'can not be reached' in failure()
    assert proxy.heads == []


def test_no_proxy_for_others(proxy, monkeypatch):
    monkeypatch.setenv('HTTP_PROXY', f'http://{proxy.address}')
    monkeypatch.setenv('NO_PROXY', 'localhost,127.0.0.0/8,10.0.0.0/8,.example')
    assert 'red cat' in ask()


@pytest.mark.parametrize('broken', ['http://{}', 'socks://nothing', 'http://host:port'])
@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_loopback_is_direct(proxy, server, monkeypatch, broken, host):
    monkeypatch.setenv('ALL_PROXY', broken.format(proxy.address))
    assert 'red cat' in ask(server.url.replace(urlsplit(server.url).hostname, host))
    assert proxy.heads == []


def test_nobody_at_the_proxy(monkeypatch, proxy):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        monkeypatch.setenv('HTTP_PROXY', f'http://127.0.0.1:{free.getsockname()[1]}')
    assert failure().endswith('the base URL is right, and the proxy of HTTP_PROXY')


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (f'socks://me:{PASSWORD}@127.0.0.1:1', 'ALL_PROXY is no proxy: write it like http://'),
        (f'http://me:{PASSWORD}@host:port', 'ALL_PROXY is no proxy'),
        (f'ftp://me:{PASSWORD}@host', 'ALL_PROXY is no proxy'),
    ],
)
def test_bad_proxy_is_a_sentence_without_its_secret(proxy, monkeypatch, value, message):
    monkeypatch.setenv('ALL_PROXY', value)
    told = failure()
    assert told.startswith(message)
    assert 'hunter2' not in told


def test_socks_proxy_without_its_package(proxy, monkeypatch):
    monkeypatch.setenv('ALL_PROXY', f'socks5://{proxy.address}')
    monkeypatch.setitem(sys.modules, 'socksio', None)  # as where it isn't installed
    assert failure().startswith('ALL_PROXY is a SOCKS proxy: install the package socksio')


def test_limits_hold_behind_a_proxy(proxy, server, monkeypatch):
    monkeypatch.setenv('HTTP_PROXY', f'http://{proxy.address}')
    sent = []

    def stream():
        for _ in range(800):
            sent.append(65536)
            yield b'x' * 65536

    server.behave = lambda request: server.status(200, stream())
    assert 'is no chat completion' in failure()
    assert sum(sent) < 20 * MAX_BODY_BYTES

    def drip():
        for _ in range(50):
            time.sleep(0.1)
            yield b' '

    server.behave = lambda request: server.status(200, drip())
    client = LlmClient(SubclassesConfig(base_url=f'http://{HOST}/v1', timeout=0.5))
    started = time.monotonic()
    with pytest.raises(LlmError, match=r'gave no answer in 0\.5 s'):
        client.ask(PROMPT)
    assert time.monotonic() - started < 4


def test_password_of_a_proxy_is_nowhere(proxy, server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv('HTTP_PROXY', f'http://me:{PASSWORD.replace(" ", "%20")}@{proxy.address}')
    body = json.dumps({'error': {'message': f'{PASSWORD} is wrong'}})
    server.behave = lambda request: server.status(402, body)
    assert failure().endswith('(402): [key] is wrong')
    assert caplog.records
    assert 'hunter2' not in caplog.text
