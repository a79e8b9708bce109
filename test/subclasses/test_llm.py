import logging
import socket
import time

import pytest

from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.llm import BudgetSpent, LlmClient, LlmError, llm_wanted

PROMPT = 'Q: List 3 subclasses of the following: cat\nA: Here are 3 subclasses of cat:'


@pytest.fixture
def client(server):
    client = LlmClient(SubclassesConfig(base_url=server.url, model='m', timeout=5.0))
    yield client
    client.close()


def cut(request):
    sock = request.environ['werkzeug.socket']
    sock.shutdown(socket.SHUT_RDWR)
    raise ConnectionError('cut')


def test_request_is_the_prompt_under_a_schema_at_temperature_0(server, client, environment):
    keys = []
    server.behave = lambda request: keys.append(request.headers['Authorization'])
    assert client.ask(PROMPT) == '{"subclasses": ["red cat", "green cat", "blue cat"]}'
    (body,) = server.requests
    assert body['messages'] == [{'role': 'user', 'content': PROMPT}]
    assert (body['model'], body['temperature']) == ('m', 0)
    assert body['response_format']['type'] == 'json_schema'
    assert keys == [f'Bearer {environment}']


@pytest.mark.parametrize('code', [400, 415, 422, 500, 501])
def test_option_a_server_refuses_is_left_out_from_then_on(server, client, code):
    def behave(request):
        if 'response_format' in request.get_json():
            return server.status(code, '{"error": {"message": "response_format: not supported"}}')
        return server.answer('1. tabby\n2. Siamese')

    server.behave = behave
    assert client.ask(PROMPT) == '1. tabby\n2. Siamese'
    assert len(server.requests) == 2
    assert client.ask(PROMPT) == '1. tabby\n2. Siamese'
    assert len(server.requests) == 3
    assert server.requests[-1]['temperature'] == 0


def test_parameters_of_newer_models(server, client):
    def behave(request):
        for name in ('max_tokens', 'temperature'):
            if name in request.get_json():
                return server.status(400, f'{{"error": {{"message": "{name} is unsupported"}}}}')
        return None

    server.behave = behave
    client.ask(PROMPT)
    assert len(server.requests) == 3
    assert 'response_format' in server.requests[-1]


@pytest.mark.parametrize(
    ('code', 'message', 'requests'),
    [
        (401, 'refuses the key (401), set OPENAI_API_KEY', 1),
        (403, 'refuses the key (403)', 1),
        (404, "knows no model 'm' or no such URL (404)", 1),
        (429, 'allows no more requests for now (429)', 3),
        (500, 'failed (500)', 3),
        (503, 'failed (503)', 3),
        (413, 'refused the request (413)', 1),
    ],
)
def test_failure_is_one_sentence(server, client, code, message, requests):
    server.behave = lambda request: server.status(code, 'no', **{'Retry-After': '0.01'})
    with pytest.raises(LlmError) as caught:
        client.ask(PROMPT)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)
    assert len(server.requests) == client.requests == requests


@pytest.mark.parametrize('failures', [1, 2])
@pytest.mark.parametrize('code', [429, 500])
def test_passing_failure_is_tried_again(server, client, code, failures):
    wait = {'Retry-After': '0.01'}
    server.behave = lambda request: (
        server.status(code, **wait) if len(server.requests) <= failures else None
    )
    assert 'red cat' in client.ask(PROMPT)


def test_retry_after_is_honoured(server, client):
    times = []

    def behave(request):
        times.append(time.monotonic())
        return server.status(429, **{'Retry-After': '1.5'}) if len(times) == 1 else None

    server.behave = behave
    client.ask(PROMPT)
    assert times[1] - times[0] >= 1.5


def test_retry_after_travels_with_the_error(server, client):
    server.behave = lambda request: server.status(429, **{'Retry-After': '600'})
    with pytest.raises(LlmError) as caught:
        client.ask(PROMPT)
    assert caught.value.retry_after == 600
    assert len(server.requests) == 1


def test_connection_cut_once_is_tried_again(server, client):
    server.behave = lambda request: cut(request) if len(server.requests) == 1 else None
    assert 'red cat' in client.ask(PROMPT)


def test_nobody_there():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{free.getsockname()[1]}/v1'
    client = LlmClient(SubclassesConfig(base_url=url))
    with pytest.raises(LlmError, match='can not be reached'):
        client.ask(PROMPT)


@pytest.mark.parametrize(
    'body',
    ['', 'no JSON', '[]', '{}', '{"choices": []}', '{"choices": [{"message": null}]}', 'null',
     '{"choices": [{"message": {"content": [1]}}]}', '[' * 100_000, '\x00\xff'],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize('mimetype', ['application/json', 'text/html'])
def test_garbage_is_no_answer(server, client, body, mimetype):
    server.behave = lambda request: server.status(200, body, **{'Content-Type': mimetype})
    with pytest.raises(LlmError, match='is no chat completion'):
        client.ask(PROMPT)
    assert len(server.requests) == 1


@pytest.mark.parametrize('code', [200, 500])
def test_50_megabytes_are_cut_off(server, client, code):
    sent = []

    def stream():
        for _ in range(800):
            sent.append(65536)
            yield b'x' * 65536

    server.behave = lambda request: server.status(code, stream(), **{'Retry-After': '0.01'})
    with pytest.raises(LlmError):
        client.ask(PROMPT)
    assert sum(sent) < 800 * 65536  # of all tries together; what is sent fills buffers first


@pytest.mark.parametrize('at_once', [True, False])
def test_slow_answer_is_given_up_and_not_asked_again(server, at_once):
    def drip():
        for _ in range(50):
            time.sleep(0.1)
            yield b' '

    def behave(request):
        if at_once:
            return server.status(200, drip())
        time.sleep(2)
        return None

    server.behave = behave
    client = LlmClient(SubclassesConfig(base_url=server.url, timeout=0.5))
    started = time.monotonic()
    with pytest.raises(LlmError, match=r'gave no answer in 0\.5 s'):
        client.ask(PROMPT)
    assert time.monotonic() - started < 4
    assert len(server.requests) == 1


def test_budget(server):
    client = LlmClient(SubclassesConfig(base_url=server.url, budget=2))
    client.ask(PROMPT)
    client.ask(PROMPT)
    with pytest.raises(BudgetSpent, match='budget of 2'):
        client.ask(PROMPT)
    assert len(server.requests) == 2


@pytest.mark.parametrize('code', [200, 400, 401, 500])
def test_key_is_nowhere_even_where_the_server_repeats_it(server, caplog, environment, code):
    caplog.set_level(logging.DEBUG)
    client = LlmClient(SubclassesConfig(base_url=server.url, timeout=5.0))

    def behave(request):
        echo = request.headers['Authorization']
        if code == 200:
            return server.answer(f'1. {echo}\n2. tabby')
        return server.status(code, f'{{"error": {{"message": "bad key {echo}"}}}}', Echo=echo)

    server.behave = behave
    if code == 200:
        assert client.ask(PROMPT) == '1. Bearer [key]\n2. tabby'
    else:
        with pytest.raises(LlmError) as caught:
            client.ask(PROMPT)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        assert environment not in repr(error)
    assert caplog.records
    assert environment not in caplog.text
    assert environment not in repr(client)
    assert environment not in str(vars(client))


@pytest.mark.parametrize(
    ('url', 'message'),
    [
        ('http://me:hunter2@127.0.0.1/v1', 'put the key into OPENAI_API_KEY'),
        ('127.0.0.1:8000', 'write it like http://'),
        ('ftp://host/v1', 'write it like http://'),
        ('http://', 'write it like http://'),
        ('http://host:x/v1', 'write it like http://'),
        ('http://[::1', 'write it like http://'),
    ],
)
def test_bad_url_is_refused_without_its_secret(url, message):
    with pytest.raises(LlmError) as caught:
        LlmClient(SubclassesConfig(base_url=url))
    assert message in str(caught.value)
    assert 'hunter2' not in str(caught.value)


@pytest.mark.parametrize(
    ('settings', 'variables', 'wanted'),
    [
        ({}, {}, False),
        ({}, {'OPENAI_API_KEY': 'k'}, True),
        ({}, {'OPENAI_BASE_URL': 'http://h/v1'}, True),
        ({'base_url': 'http://h/v1'}, {}, True),
        ({'base_url': 'http://h/v1', 'llm': 'off'}, {'OPENAI_API_KEY': 'k'}, False),
    ],
)
def test_language_model_is_wanted_where_there_is_a_way(monkeypatch, settings, variables, wanted):
    monkeypatch.delenv('OPENAI_API_KEY')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert llm_wanted(SubclassesConfig(**settings)) is wanted
