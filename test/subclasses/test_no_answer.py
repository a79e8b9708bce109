"""What a server sends instead of an answer: nothing of it is kept."""

import json

import pytest

from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.background import MOST_TRIES
from llmseg_ros.subclasses.llm import BudgetSpent, LlmClient, LlmError, NoAnswer
from llmseg_ros.subclasses.resolver import Resolver

PROMPT = 'Q: List 3 subclasses of the following: cat\nA: Here are 3 subclasses of cat:'
ANSWER = '{"subclasses": ["tabby", "Siamese"]}'
CUT_OFF = {
    'empty': ('', 'length'),
    'null': (None, 'length'),
    'a thought': ('<think>Okay, 1. First, 2. Second,', 'length'),
    'a thought, said to be whole': ('<think>Okay, 1. First, 2. Second,', 'stop'),
    'JSON': ('{"subclasses": ["tabby", "Sia', 'length'),
    'JSON without a reason': ('{"subclasses": ["tabby", "Sia', None),
    'a list': ('1. tabby\n2. Sia', 'length'),
    'another name of the limit': ('1. tabby\n2. Sia', 'MAX_TOKENS'),
    'withheld': ('1. tab', 'content_filter'),
    'empty and whole': ('', 'stop'),
    'empty without a reason': ('', None),
    'a tool without names': (
        {'tool_calls': [{'function': {'name': 'search', 'arguments': '{"q": "kinds of cat"}'}}]},
        'tool_calls',
    ),
    'a thought beside it': ({'content': '', 'reasoning_content': '1. First, 2. Second'}, 'stop'),
}


@pytest.fixture
def client(server):
    client = LlmClient(SubclassesConfig(base_url=server.url, model='m', timeout=5.0))
    yield client
    client.close()


@pytest.fixture
def resolver(server, tmp_path):
    config = SubclassesConfig(base_url=server.url, packs=False, store=str(tmp_path / 's.sqlite3'))
    resolver = Resolver(config)
    yield resolver
    resolver.close()


@pytest.mark.parametrize('case', CUT_OFF)
def test_it_is_asked_again_without_the_limit(server, client, case):
    server.behave = lambda request: (
        server.reply(*CUT_OFF[case]) if 'max_tokens' in request.get_json() else None
    )
    assert 'red cat' in client.ask(PROMPT)
    assert ['max_tokens' in body for body in server.requests] == [True, False]
    client.ask(PROMPT)  # the next class isn't asked twice
    assert ['max_tokens' in body for body in server.requests] == [True, False, False]


@pytest.mark.parametrize('case', CUT_OFF)
def test_it_is_asked_again_once_and_nothing_is_kept(server, resolver, case):
    server.behave = lambda request: server.reply(*CUT_OFF[case])
    with pytest.raises(NoAnswer, match=r'the language model at \S+ (gave an|called a)') as caught:
        resolver.ask('cat')
    assert len(server.requests) == 2
    assert '\n' not in str(caught.value)
    assert resolver.store.all() == {}
    server.behave = lambda request: None
    assert resolver.ask('cat').names == ('red cat', 'green cat', 'blue cat')


def test_limit_stays_where_it_is_not_to_blame(server, client):
    server.behave = lambda request: server.reply('', 'length')
    with pytest.raises(NoAnswer, match=r'was cut off before it began .*, raise the limit on the'):
        client.ask(PROMPT)
    server.behave = lambda request: None
    client.ask(PROMPT)
    assert 'max_tokens' in server.requests[-1]


def test_failure_of_the_second_request_is_told(server, client):
    server.behave = lambda request: (
        server.reply('', 'length') if 'max_tokens' in request.get_json() else server.status(413)
    )
    with pytest.raises(NoAnswer, match=r'cut off .*without a limit: .*refused the request \(413\)'):
        client.ask(PROMPT)


def test_second_request_needs_a_budget(server):
    client = LlmClient(SubclassesConfig(base_url=server.url, budget=1))
    server.behave = lambda request: server.reply('', 'length')
    with pytest.raises(BudgetSpent):
        client.ask(PROMPT)


def test_list_cut_off_beyond_what_was_asked_for_is_taken(server):
    client = LlmClient(SubclassesConfig(base_url=server.url, n=3))
    text = '{"subclasses": ["tabby", "Siamese", "tabby", "Siamese", "tab'
    server.behave = lambda request: server.reply(text, 'length')
    assert client.ask(PROMPT) == text
    assert len(server.requests) == 1


def test_refusal_is_told_and_not_asked_again(server, client):
    server.behave = lambda request: server.reply({'content': None, 'refusal': 'Not\nthis one.'})
    with pytest.raises(NoAnswer, match='refuses to answer: Not this one'):
        client.ask(PROMPT)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    'message',
    [
        {'content': [{'type': 'text', 'text': ANSWER[:20]}, {'type': 'text', 'text': ANSWER[20:]}]},
        {'content': [{'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'Hm, 1. First'}]},
                     {'type': 'output_text', 'text': ANSWER}]},
        {'content': [{'type': 'reasoning', 'text': 'Hm'}, {'type': 'new', 'x': 1}, ANSWER]},
        {'content': {'type': 'text', 'text': ANSWER}},
        {'content': ANSWER, 'reasoning_content': 'Hm, 1. First', 'refusal': None},
        {'tool_calls': [{'id': '1', 'function': {'name': 'json', 'arguments': ANSWER}}]},
        {'tool_calls': [{'function': {'name': 'f', 'arguments': json.loads(ANSWER)}}]},
        {'function_call': {'name': 'f', 'arguments': ANSWER}},
    ],
    ids=range(8),
)  # fmt: skip
def test_forms_of_an_answer(server, client, message):
    server.behave = lambda request: server.reply(message)
    assert client.ask(PROMPT) == ANSWER
    assert len(server.requests) == 1


def test_parts_that_refuse(server, client):
    part = {'type': 'refusal', 'refusal': 'No.'}
    server.behave = lambda request: server.reply({'content': [part]})
    with pytest.raises(NoAnswer, match=r'refuses to answer: No\.'):
        client.ask(PROMPT)


@pytest.mark.parametrize(
    ('body', 'message', 'requests'),
    [
        ({'error': {'code': 429, 'message': 'free requests are used up'}},
         r'no more requests for now \(429\): free requests are used up', 3),
        ({'error': {'code': '503', 'message': 'no room'}}, r'failed \(503\): no room', 3),
        ({'error': {'code': 'rate_limit_exceeded', 'message': 'slowly'}}, r'\(429\): slowly', 3),
        ({'error': {'type': 'invalid_api_key', 'message': 'who?'}}, r'refuses the key \(401\)', 1),
        ({'error': {'code': 402, 'message': 'pay first'}}, r'request \(402\): pay first', 1),
        ({'error': {'code': 'model_not_found', 'message': 'no m'}}, r'\(404\), .*: no m', 1),
        ({'error': 'upstream is gone'}, r'failed \(500\): upstream is gone', 3),
        ({'error': 'Rate limit reached', 'code': 1302}, r'\(429\): Rate limit reached', 3),
        ({'error': 'HTTP 503 from upstream'}, r'\(503\): HTTP 503 from upstream', 3),
        ({'error': {'message': 'Provider returned error', 'code': 429,
                    'metadata': {'raw': 'm is busy'}}}, 'Provider returned error: m is busy', 3),
        ({'errors': [{'code': 7003, 'message': 'no route'}], 'success': False}, 'no route', 3),
        ({'detail': 'Not authenticated'}, r'refuses the key \(401\).*: Not authenticated', 1),
        ([{'error': {'code': 400, 'message': 'bad name', 'status': 'INVALID_ARGUMENT'}}],
         r'refused the request \(400\): bad name', 2),  # the second without a schema
        ({'choices': [{'finish_reason': 'error', 'message': {'content': 'tab'}}]},
         r'failed \(502\)', 3),
        ({'choices': [{'finish_reason': 'error', 'message': {'content': ''},
                       'error': {'code': 429, 'message': 'wait'}}]}, r'\(429\): wait', 3),
        ({'choices': [], 'error': {'code': 502, 'message': 'upstream failed'}},
         r'failed \(502\): upstream failed', 3),
        ({'error': True, 'message': 'busy', 'code': 503.0}, r'\(503\): busy', 3),
        ({'error': {'error': {'message': 'inner', 'code': 429}}}, r'\(429\): inner', 3),
        ({'object': 'error', 'message': {'detail': [{'msg': 'deep'}]}, 'code': '402'},
         r'\(402\): deep', 1),
        ({'code': '429', 'msg': 'too many'}, r'\(429\): too many', 3),
    ],
    ids=range(20),
)  # fmt: skip
def test_error_under_status_200_counts_by_its_code(server, resolver, body, message, requests):
    headers = {'Content-Type': 'application/json', 'Retry-After': '0.01'}
    server.behave = lambda request: server.status(200, json.dumps(body), **headers)
    with pytest.raises(LlmError, match=message):
        resolver.ask('cat')
    assert len(server.requests) == requests
    assert resolver.store.all() == {}
    server.behave = lambda request: None
    assert resolver.ask('cat').source == 'llm'


def test_passing_error_under_status_200_is_tried_again(server, client):
    body = json.dumps({'error': {'code': 429, 'message': 'wait'}})
    server.behave = lambda request: (
        server.status(200, body, **{'Retry-After': '0.01'}) if len(server.requests) < 3 else None
    )
    assert 'red cat' in client.ask(PROMPT)


def test_words_of_a_server_are_bounded_and_hide_the_key(server, client, environment):
    words = f'\x1b[31mno\n{environment} ' + 'x' * 5000
    body = json.dumps({'error': {'code': 402, 'message': words}})
    server.behave = lambda request: server.status(200, body)
    with pytest.raises(LlmError) as caught:
        client.ask(PROMPT)
    assert '(402): [31mno [key] xxx' in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_page_of_a_proxy_is_told_by_its_words(server, client):
    page = '<html><style>b {color: red}</style><h1>402 Blocked</h1>\n<p>Ask IT.</p></html>'
    server.behave = lambda request: server.status(402, page)
    with pytest.raises(LlmError, match=r'\(402\): 402 Blocked Ask IT\.'):
        client.ask(PROMPT)


@pytest.mark.parametrize('code', [400, 404])
def test_limit_goes_under_its_other_name(server, client, code):
    said = "Unsupported parameter: 'max_tokens' is not supported, use 'max_completion_tokens'."

    def behave(request):
        if 'max_tokens' in request.get_json():
            return server.status(code, json.dumps({'error': {'message': said}}))
        return None

    server.behave = behave
    client.ask(PROMPT)
    assert server.requests[-1]['max_completion_tokens'] == server.requests[0]['max_tokens']
    assert 'response_format' in server.requests[-1]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ('code', 'said'),
    [
        (404, 'No endpoints found that can handle the requested parameters.'),
        (400, 'unsupported parameter: temperature'),
        (404, 'unsupported parameter: temperature'),
        (404, 'No endpoints found that support structured outputs'),
        (422, 'unknown field'),
    ],
)
def test_options_a_model_does_not_know_are_left_out(server, client, code, said):
    refused = 'temperature' if 'temperature' in said else 'response_format'
    server.behave = lambda request: (
        server.status(code, json.dumps({'error': {'message': said, 'param': None}}))
        if refused in request.get_json()
        else None
    )
    client.ask(PROMPT)
    assert refused not in server.requests[-1]
    assert len(server.requests) == 2


def test_404_about_parameters_is_told_as_that(server, client):
    said = 'No endpoints found that can handle the requested parameters.'
    server.behave = lambda request: server.status(404, json.dumps({'error': {'message': said}}))
    with pytest.raises(LlmError, match=r'refused the request \(404\): No endpoints found'):
        client.ask(PROMPT)
    assert len(server.requests) == 4  # an option fewer each time


CONTEXT = [
    "This model's maximum context length is 128 tokens. However, you requested 1124 tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 1024. This model's maximum context "
    'length is 512 tokens and your request has 100 input tokens.',
    'the request exceeds the available context size, try increasing it',
    'prompt is too long: 300 tokens > 200 maximum',
]


@pytest.mark.parametrize('said', CONTEXT, ids=range(4))
@pytest.mark.parametrize('code', [200, 400])
def test_context_too_short_for_the_answer(server, client, said, code):
    body = json.dumps({'error': {'message': said, 'code': 400}})
    server.behave = lambda request: (
        server.status(code, body) if 'max_tokens' in request.get_json() else None
    )
    client.ask(PROMPT)
    assert server.requests[-1].keys() == server.requests[0].keys() - {'max_tokens'}


@pytest.mark.parametrize('said', CONTEXT, ids=range(4))
def test_context_too_short_for_the_prompt(server, client, said):
    body = json.dumps({'error': {'message': said}})
    server.behave = lambda request: server.status(400, body)
    with pytest.raises(LlmError, match=r'the prompt is too long for .* \(400\), give the model'):
        client.ask(PROMPT)
    assert len(server.requests) == 2


def test_background_gives_up_a_name_without_an_answer(server, resolver, until, monkeypatch):
    monkeypatch.setattr('llmseg_ros.subclasses.background.FIRST_PAUSE', 0.01)
    server.behave = lambda request: server.reply('', 'length') if b'cat' in request.data else None
    answers = {}
    resolver.resolve_all(['cat', 'dog'], answers.__setitem__)
    until(lambda: resolver.status.pending == 0)
    assert server.asked.count('cat') == 2 * MOST_TRIES
    assert list(answers) == ['dog']
    assert 'cut off before it began' in resolver.status.problem
