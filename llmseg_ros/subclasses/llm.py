"""A language model behind any OpenAI-compatible server."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmseg_ros.config import SubclassesConfig

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = 'OPENAI_API_KEY'
URL_VARIABLE = 'OPENAI_BASE_URL'
DEFAULT_URL = 'https://api.openai.com/v1'
MAX_AT_ONCE = 4
MAX_RETRIES = 2
MAX_TOKENS = 1024  # ten names take 100; small models repeat themselves without end
MIN_SECRET_LENGTH = 8  # a shorter key is none, and hiding it would tear up words
SCHEMA = {
    'type': 'object',
    'properties': {'subclasses': {'type': 'array', 'items': {'type': 'string'}}},
    'required': ['subclasses'],
    'additionalProperties': False,
}
# What not every server or model takes; one that is refused is left out from then on.
OPTIONS: dict[str, Any] = {
    'response_format': {
        'type': 'json_schema',
        'json_schema': {'name': 'subclasses', 'strict': True, 'schema': SCHEMA},
    },
    'temperature': 0,
    'max_tokens': MAX_TOKENS,
}


class LlmError(RuntimeError):
    """The language model gave no answer; the message is one sentence without any secret.

    Attributes:
        retry_after: seconds the server asked to wait, where it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BudgetSpent(LlmError):
    """This run has made all the requests it may."""


def llm_wanted(config: SubclassesConfig) -> bool:
    """Tell whether a language model may be asked: it isn't switched off, and there is a way."""
    way = config.base_url or os.environ.get(URL_VARIABLE) or os.environ.get(KEY_VARIABLE)
    return config.llm == 'auto' and bool(way)


class LlmClient:
    """Ask a language model, at most 4 requests at a time; safe across threads.

    The key is read from OPENAI_API_KEY and kept nowhere else.
    """

    def __init__(self, config: SubclassesConfig) -> None:
        url = config.base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        self._check_url(url)
        self._url = url
        self._config = config
        self._options = dict(OPTIONS)
        self._at_once = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._lock = threading.Lock()
        self._client: openai.OpenAI | None = None
        self.requests = 0
        """Requests made so far, repeated ones included."""

    def ask(self, prompt: str) -> str:
        """Return what the model answers.

        Raises:
            LlmError: it gave no answer, after repeated tries where these make sense.
        """
        with self._at_once:
            if self.requests >= self._config.budget:
                raise BudgetSpent(
                    f'the budget of {self._config.budget} language model requests is used up, '
                    'raise subclasses.budget or start again'
                )
            body, failure = self._request(prompt)
        if failure is not None:  # raised out here: no secret of the original in its context
            raise failure
        return self._without_key(_content(body, self._host))

    def close(self) -> None:
        """Close the connections; requests under way fail."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc

    @staticmethod
    def _check_url(url: str) -> None:
        try:
            parts = urlsplit(url)
            secret, usable = '@' in parts.netloc, parts.scheme in ('http', 'https')
            usable = usable and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            secret, usable = False, False
        if secret:
            raise LlmError(
                f'the base URL has a user name or password in it: put the key into {KEY_VARIABLE}'
            )
        if not usable:
            raise LlmError(
                f'base URL {url[:80]!a} is not one: write it like http://127.0.0.1:8000/v1'
            )

    def _connect(self) -> openai.OpenAI:
        import openai

        from llmseg_ros.subclasses.transport import LimitedTransport

        with self._lock:
            if self._client is None:
                transport = LimitedTransport(
                    self._config.timeout, self._count_request, tuple(OPTIONS)
                )
                self._client = openai.OpenAI(
                    api_key=os.environ.get(KEY_VARIABLE) or 'none',  # local servers want no key
                    base_url=self._url,
                    timeout=self._config.timeout,
                    max_retries=MAX_RETRIES,
                    http_client=openai.DefaultHttpxClient(transport=transport),
                )
            return self._client

    def _count_request(self) -> None:
        with self._lock:
            self.requests += 1

    def _request(self, prompt: str) -> tuple[str, LlmError | None]:
        import openai

        completions = self._connect().chat.completions.with_raw_response
        while True:
            options = dict(self._options)
            try:
                response = completions.create(
                    model=self._config.model,
                    messages=[{'role': 'user', 'content': prompt}],
                    **options,
                )
                return response.text, None
            except openai.APIStatusError as error:
                refused = _refused_option(error, options)
                if refused is None:
                    return '', self._explain_status(error)
                self._options.pop(refused, None)
            except openai.OpenAIError:
                return '', LlmError(
                    f'the language model at {self._host} can not be reached, '
                    'check that it runs and that the base URL is right'
                )

    def _explain_status(self, error: openai.APIStatusError) -> LlmError:
        status, host = error.status_code, f'the language model at {self._host}'
        if status in (401, 403):
            return LlmError(f'{host} refuses the key ({status}), set {KEY_VARIABLE} to a valid one')
        if status == 404:
            model = self._config.model
            return LlmError(f'{host} knows no model {model!a} or no such URL (404), check both')
        if status == 408:
            return LlmError(
                f'{host} gave no answer in {self._config.timeout:g} s, raise subclasses.timeout '
                'if it is only slow'
            )
        if status == 429:
            wait = _retry_after(error.response.headers.get('retry-after'))
            return LlmError(f'{host} allows no more requests for now (429)', wait)
        if status >= 500:
            return LlmError(f'{host} failed ({status}), look into its log')
        said = ' '.join(self._without_key(_message(error)).split())[:160]
        return LlmError(f'{host} refused the request ({status}): {said!a}')

    def _without_key(self, text: str) -> str:
        """Hide the key where a server repeats it."""
        key = os.environ.get(KEY_VARIABLE, '')
        return text.replace(key, '[key]') if len(key) >= MIN_SECRET_LENGTH else text


def _content(body: str, host: str) -> str:
    """Take the answer out of a chat completion."""
    try:
        message = json.loads(body)['choices'][0]['message']
        content = message.get('content') or message.get('refusal') or ''
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise LlmError(
            f'what {host} answers is no chat completion, check that the base URL ends as it should '
            '(often /v1)'
        )
    return content.encode('utf-8', 'replace').decode('utf-8')  # lone surrogates can't be stored


def _refused_option(error: openai.APIStatusError, options: dict[str, Any]) -> str | None:
    """Name the option a server complains about; the answer's form where it only says 'bad'."""
    said = _message(error)
    named = next((option for option in options if option in said), None)
    if named is None and error.status_code in (400, 415, 422, 501):
        return 'response_format' if 'response_format' in options else None
    return named


def _message(error: openai.APIStatusError) -> str:
    try:
        return error.response.text
    except ValueError:  # not text
        return ''


def _retry_after(value: str | None) -> float | None:
    try:
        seconds = float(value or '')
    except ValueError:
        return None
    return seconds if 0 < seconds < 86_400 else None
