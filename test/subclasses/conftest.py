import json
import re
import threading
import time

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

SECRET = 'sk-test-0123456789abcdef'


def completion(content):
    return {
        'id': 'x',
        'object': 'chat.completion',
        'created': 0,
        'model': 'm',
        'choices': [
            {
                'index': 0,
                'finish_reason': 'stop',
                'message': {'role': 'assistant', 'content': content},
            }
        ],
    }


class LlmServer:
    """An OpenAI-compatible server on loopback that notes what it is asked.

    `behave` replaces what it does: a function of the request that returns a response, or None to
    answer as usual, with three subclasses made of the class name, or three contrasts.
    """

    def __init__(self, http):
        self.url = http.url_for('/v1')
        self.requests = []
        self.most_at_once = 0
        self.behave = lambda request: None
        self._at_once = 0
        self._lock = threading.Lock()
        http.expect_request('/v1/chat/completions', method='POST').respond_with_handler(
            self._handle
        )

    @property
    def asked(self):
        """The class names whose subclasses were asked for, in order."""
        return [self.class_name(body) for body in self.requests if not self.is_contrasts(body)]

    @property
    def asked_contrasts(self):
        """The class names whose contrasts were asked for, in order."""
        return [self.class_name(body) for body in self.requests if self.is_contrasts(body)]

    @staticmethod
    def is_contrasts(body):
        return 'mistaken for ' in body['messages'][-1]['content']

    @staticmethod
    def class_name(body):
        text = body['messages'][-1]['content']
        return re.split('subclasses of |mistaken for ', text)[-1].rstrip(':')

    def _handle(self, request):
        body = json.loads(request.data)
        with self._lock:
            self.requests.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            response = self.behave(request)
            if response is None:
                name = self.class_name(body)
                names = [f'{kind} {name}' for kind in ('red', 'green', 'blue')]
                if self.is_contrasts(body):
                    names = ['wall', f'{name} stand', 'window']
                schema = body.get('response_format', {}).get('json_schema', {}).get('schema', {})
                (listed,) = schema.get('properties', ['names'])
                response = self.answer(json.dumps({listed: names}))
            return response
        finally:
            with self._lock:
                self._at_once -= 1

    @staticmethod
    def answer(content):
        return Response(json.dumps(completion(content)), mimetype='application/json')

    @staticmethod
    def reply(message=None, finish='stop', **more):
        """Answer with a message and a finish_reason; `more` goes beside the choice's message."""
        body = completion(None)
        choice = body['choices'][0]
        choice |= {'finish_reason': finish, **more}
        choice['message'] |= message if isinstance(message, dict) else {'content': message}
        return Response(json.dumps(body), mimetype='application/json')

    @staticmethod
    def status(code, text='', **headers):
        return Response(text, status=code, headers=headers)


@pytest.fixture(scope='session')
def http():
    with HTTPServer(host='127.0.0.1', threaded=True) as http:  # half a second to stop
        yield http


@pytest.fixture
def server(http):
    http.clear()
    return LlmServer(http)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A key, and a data folder of the test's own."""
    monkeypatch.setenv('OPENAI_API_KEY', SECRET)
    monkeypatch.delenv('OPENAI_BASE_URL', raising=False)
    monkeypatch.delenv('ROS_HOME', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    return SECRET


@pytest.fixture
def fast_config(tmp_path):
    """Write a configuration with a small model and a language model's URL; return its path."""

    def write(url):
        path = tmp_path / 'fast.yaml'
        path.write_text(
            'imagenet: {model: lite0, short_sides: [64], dilated: false}\n'
            'refine: {name: none}\n'
            f'subclasses: {{base_url: "{url}", filter: false}}\n'
        )
        return path

    return write


@pytest.fixture
def until():
    """Wait until a condition holds."""

    def wait(condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, 'it did not happen in time'
            time.sleep(0.01)

    return wait
