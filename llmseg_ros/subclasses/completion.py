"""What a server sent, read as a chat completion or as the failure it tells of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llmseg_ros.subclasses.thoughts import without_thoughts

MAX_WORDS_LENGTH = 200  # characters shown of what a server says
LENGTH_REASONS = frozenset(('length', 'max_tokens', 'max_output_tokens', 'model_length'))
FILTER_REASONS = frozenset(
    ('content_filter', 'safety', 'recitation', 'blocklist', 'prohibited_content', 'sensitive')
)
TEXT_PARTS = frozenset(('text', 'output_text', ''))
CODE_KEYS = ('code', 'status', 'status_code', 'statusCode', 'type')
WORDS_KEYS = ('message', 'error', 'detail', 'msg', 'reason')
NUMBER_IN_WORDS = re.compile(r'(?:^|code|status|error|http)\W{0,3}([45]\d\d)\b', re.IGNORECASE)
# What servers call their errors instead of numbering them.
NAMED_CODES = (
    (r'rate.?limit|quota|too.?many|throttl|exhausted|capacity_exceeded|credit', 429),
    (r'api.?key|auth', 401),
    (r'permission|forbidden|denied', 403),
    (r'not.?found|does not exist', 404),
    (r'context|invalid|bad.?request|unsupported|unprocessable', 400),
    (r'overload|unavailable', 503),
    (r'time.?out', 504),
)
TAG = re.compile(
    r'<(?:(?:style|script)\b.*?</(?:style|script)>|[^<>]*>)', re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True)
class Completion:
    """What a language model answered.

    Attributes:
        text: word for word, thoughts included.
        problem: why it is no answer, to follow 'the language model '; empty where it is one.
        final: the model would say the same again.
    """

    text: str
    problem: str = ''
    final: bool = False


def read_completion(body: str) -> Completion | None:
    """Take the answer out of a chat completion: text, parts of one, or the call of a tool.

    Args:
        body: untrusted.

    Returns:
        The answer or what is wrong with it; None where the body is no chat completion.
    """
    choice = _choice(_parsed(body))
    message = choice.get('message')
    if not isinstance(message, dict):
        return None
    content = _joined(message.get('content'))
    if content is None:
        return None
    refusal = message.get('refusal') or _joined(message.get('content'), ('refusal',))
    if refusal and not content.strip():
        return Completion('', f'refuses to answer: {in_one_line(str(refusal))}', final=True)
    text = content if content.strip() else _tool_answer(message)
    return Completion(_storable(text), _problem(text, choice, message))


def in_band_status(body: bytes) -> int | None:
    """Return the HTTP status that an error sent as if it were an answer stands for."""
    data = _parsed(body)
    failed = _reason(_choice(data)) == 'error'
    error = _error(data)
    if error is None:
        return 502 if failed else None
    return _status(error) or (502 if failed else 500)


def error_words(body: str) -> str:
    """Return a server's own words on what went wrong, in one line; empty where it has none."""
    data = _parsed(body)
    if data is None:
        return in_one_line(TAG.sub(' ', body[:10_000]))
    return in_one_line(_words(_error(data)))


def in_one_line(text: str) -> str:
    """Make a text fit to be shown: printable, on one line, no longer than 200 characters."""
    text = ''.join(char if char.isprintable() else ' ' for char in text[: 10 * MAX_WORDS_LENGTH])
    text = ' '.join(text.split())
    return text if len(text) <= MAX_WORDS_LENGTH else f'{text[: MAX_WORDS_LENGTH - 1]}…'


def _parsed(body: str | bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _choice(data: Any) -> dict[str, Any]:
    choices = data.get('choices') if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _reason(choice: dict[str, Any]) -> str:
    return str(choice.get('finish_reason') or '').lower()


def _joined(content: Any, kinds: frozenset[str] | tuple[str, ...] = TEXT_PARTS) -> str | None:
    """Join the parts of a content that are text; None where it is no content at all."""
    if content is None or isinstance(content, str):
        return (content or '') if kinds is TEXT_PARTS else ''
    parts = content if isinstance(content, list) else [content]
    texts = []
    for part in parts:
        if isinstance(part, str):
            part = {'text': part}
        if not isinstance(part, dict):
            return None
        kind = str(part.get('type') or '')
        if kind in kinds:
            text = part.get('text' if kinds is TEXT_PARTS else kind)
            texts.append(text.get('value') if isinstance(text, dict) else text)
    return ''.join(text for text in texts if isinstance(text, str))


def _tool_answer(message: dict[str, Any]) -> str:
    """Return the arguments of a tool the model called, where they hold a list."""
    calls = message.get('tool_calls') or [{'function': message.get('function_call')}]
    for call in calls if isinstance(calls, list) else ():
        function = call.get('function') if isinstance(call, dict) else None
        given = function.get('arguments') if isinstance(function, dict) else None
        given = _parsed(given) if isinstance(given, str) else given
        if isinstance(given, dict) and any(isinstance(value, list) for value in given.values()):
            return json.dumps(given, ensure_ascii=False)
    return ''


def _problem(text: str, choice: dict[str, Any], message: dict[str, Any]) -> str:
    answer, thinking = without_thoughts(text)
    reason = _reason(choice)
    if reason in FILTER_REASONS:
        return f'gave an answer that its content filter withheld ({in_one_line(reason)})'
    if reason in LENGTH_REASONS or thinking:
        where = 'before its end' if answer else 'before it began'
        why = 'the length limit' if reason in LENGTH_REASONS else 'within a thought'
        return f'gave an answer that was cut off {where} ({why})'
    if not reason and answer.startswith(('{', '[')) and not answer.endswith(('}', ']')):
        return 'gave an answer that was cut off before its end (no reason said)'
    if not answer and (message.get('tool_calls') or message.get('function_call')):
        return 'called a tool instead of answering'
    return '' if answer else 'gave an empty answer'


def _error(data: Any) -> dict[str, Any] | None:
    """Return what a body says went wrong, None where it says nothing of the kind."""
    data = _first(data)
    if not isinstance(data, dict):
        return None
    choice = _choice(data)
    error = _first(data.get('error') or data.get('errors') or choice.get('error'))
    told = any(isinstance(data.get(key), str) for key in WORDS_KEYS)
    if not error and (choice or not (told or data.get('object') == 'error')):
        return None
    if not isinstance(error, dict):  # a text, a number, or true: the rest stands beside it
        beside = {key: data[key] for key in (*CODE_KEYS, *WORDS_KEYS) if key in data}
        own = {'message': error} if isinstance(error, str) else {'code': error} if error else {}
        error = {**beside, **own} if error is not True else beside
    for key in WORDS_KEYS * 2:  # errors within errors
        if inner := _as_dict(error.get(key)):
            error = {**error, key: None, **inner}
    return error


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _as_dict(value: Any) -> dict[str, Any]:
    value = _first(value)
    return value if isinstance(value, dict) else {}


def _codes(error: dict[str, Any]) -> list[str]:
    values = (error.get(key) for key in CODE_KEYS)
    return [str(value).removesuffix('.0') for value in values if value and value is not True]


def _status(error: dict[str, Any]) -> int | None:
    """Read the code of an error: a number, a name, or what its words say."""
    codes, words = _codes(error), _words(error)
    for value in codes:
        if re.fullmatch(r'[45]\d\d', value, re.ASCII):
            return int(value)
    if number := NUMBER_IN_WORDS.search(words):
        return int(number[1])
    for value in (*codes, words):
        for pattern, status in NAMED_CODES:
            if re.search(pattern, value[:1000], re.IGNORECASE):
                return status
    return None


def _words(error: dict[str, Any] | None) -> str:
    """Return the message of an error, with that of the server behind a router."""
    if error is None:
        return ''
    values = (error.get(key) for key in WORDS_KEYS)
    said = next((value for value in values if isinstance(value, str) and value), '')
    behind = _as_dict(error.get('metadata')).get('raw')
    said = f'{said}: {behind}' if isinstance(behind, str) else said
    return said or next(iter(_codes(error)), '')


def _storable(text: str) -> str:
    return text.encode('utf-8', 'replace').decode('utf-8')  # lone surrogates can't be stored
