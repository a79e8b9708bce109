"""A language model behind any OpenAI-compatible server."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.completion import (
    Completion,
    error_words,
    in_one_line,
    read_completion,
)
from llmseg_ros.subclasses.parse import is_long_list

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = 'OPENAI_API_KEY'
URL_VARIABLE = 'OPENAI_BASE_URL'
DEFAULT_URL = 'https://api.openai.com/v1'
MAX_AT_ONCE = 4
MAX_RETRIES = 2
MAX_TOKENS = 1024  # ten names take 100; small models repeat themselves without end
MIN_SECRET_LENGTH = 6  # a shorter key is none, and hiding it would tear up words


def response_format(listed: str) -> dict[str, Any]:
    """Return the option that asks for JSON with one list of names, called as what it lists."""
    schema = {
        'type': 'object',
        'properties': {listed: {'type': 'array', 'items': {'type': 'string'}}},
        'required': [listed],
        'additionalProperties': False,
    }
    return {
        'type': 'json_schema',
        'json_schema': {'name': listed, 'strict': True, 'schema': schema},
    }


# What not every server or model takes; one that is refused is left out from then on.
OPTIONS: dict[str, Any] = {
    'response_format': response_format('subclasses'),
    'temperature': 0,
    'max_tokens': MAX_TOKENS,
}
LIMITS = ('max_tokens', 'max_completion_tokens')  # of the answer's length, by its two names
# How servers call an option where not by its name.
OTHER_WORDS = {
    'response_format': ('response format', 'json_schema', 'json schema', 'structured output'),
}
ABOUT_OPTIONS = re.compile(r'parameter|\boptions?\b|\bfields?\b|argument', re.IGNORECASE)
ABOUT_CONTEXT = re.compile(
    r'context[ _-]?(?:length|window|size)|maximum context|exceeds? (?:the )?(?:\w+ )?context'
    r'|(?:prompt|input|request) (?:is |was )?too (?:long|large)|too many (?:input |prompt )?tokens'
    r'|maximum (?:prompt|input|sequence|number of) (?:length|tokens)',
    re.IGNORECASE,
)


class LlmError(RuntimeError):
    """The language model gave no answer; the message is one sentence without any secret.

    Attributes:
        retry_after: seconds the server asked to wait, where it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoAnswer(LlmError):
    """The language model is there, and what it said to this request is no answer."""


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

    def ask(self, prompt: str, listed: str = 'subclasses') -> str:
        """Return what the model answers, word for word.

        What is no answer (cut off, empty, withheld) is asked for once more, without a limit of
        its length.

        Args:
            prompt: the question.
            listed: what the list of the answer is called, where the server takes a schema.

        Raises:
            NoAnswer: it gave none then either.
            LlmError: it can't be asked, after repeated tries where these make sense.
        """
        with self._at_once:
            text, failure = self._answer(prompt, listed)
        if failure is not None:  # raised out here: no secret of the original in its context
            raise failure
        return text

    def close(self) -> None:
        """Close the connections; requests under way fail."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc

    @property
    def _hostname(self) -> str:
        return urlsplit(self._url).hostname or ''

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
        """Open the connection pool, or return it.

        Raises:
            LlmError: a proxy of the environment can't be used.
        """
        import openai

        from llmseg_ros.subclasses.transport import open_transport

        with self._lock:
            if self._client is None:
                options = tuple(OPTIONS) + LIMITS
                transport = open_transport(
                    self._hostname, self._config.timeout, self._count_request, options
                )
                if isinstance(transport, str):
                    raise LlmError(f'{transport} (the language model at {self._host})')
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

    def _answer(self, prompt: str, listed: str) -> tuple[str, LlmError | None]:
        completion, failure = self._complete(prompt, listed)
        if failure is not None or self._is_answer(completion):
            return completion.text, failure
        problem = completion.problem
        if not completion.final:
            completion, failure = self._complete(prompt, listed, limited=False)
            problem = completion.problem or problem
            if failure is None and self._is_answer(completion):
                for limit in LIMITS:  # this model needs more for the next classes too
                    self._options.pop(limit, None)
                return completion.text, None
        if isinstance(failure, BudgetSpent):
            return '', failure
        return '', self._no_answer(problem, failure)

    def _complete(
        self, prompt: str, listed: str, limited: bool = True
    ) -> tuple[Completion, LlmError | None]:
        """Return what the model made of a prompt, or why there is nothing."""
        if self.requests >= self._config.budget:
            return Completion(''), BudgetSpent(
                f'the budget of {self._config.budget} language model requests is used up, '
                'raise subclasses.budget or start again'
            )
        body, failure = self._request(prompt, listed, limited)
        if failure is not None:
            return Completion(''), failure
        completion = read_completion(self._without_secrets(body))
        if completion is None:
            return Completion(''), LlmError(
                f'what {self._host} answers is no chat completion, check that the base URL ends '
                'as it should (often /v1)'
            )
        return completion, None

    def _request(self, prompt: str, listed: str, limited: bool) -> tuple[str, LlmError | None]:
        import openai

        completions = self._connect().chat.completions.with_raw_response
        while True:
            options = {
                name: value
                for name, value in self._options.items()
                if limited or name not in LIMITS
            }
            if 'response_format' in options:
                options['response_format'] = response_format(listed)
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
                self._leave_out(refused, _message(error))
            except openai.OpenAIError as error:
                return '', self._explain_connection(error)

    def _leave_out(self, option: str, said: str) -> None:
        """Do without an option from now on; a limit goes under its other name if so told."""
        self._options.pop(option, None)
        if option == 'max_tokens' and LIMITS[1] in said and not ABOUT_CONTEXT.search(said):
            self._options[LIMITS[1]] = MAX_TOKENS

    def _is_answer(self, completion: Completion) -> bool:
        """Tell whether this is an answer; one cut off is where more is listed than asked for."""
        return not completion.problem or is_long_list(completion.text, self._config.n)

    def _no_answer(self, problem: str, failure: LlmError | None) -> LlmError:
        advice = ''
        if 'cut off' in problem:
            advice = ', raise the limit on the server or choose a model that thinks less'
        again = f'; asked once more without a limit: {failure}' if failure else ''
        wait = failure.retry_after if failure else None
        return NoAnswer(f'the language model at {self._host} {problem}{advice}{again}', wait)

    def _explain_status(self, error: openai.APIStatusError) -> LlmError:
        status, host = error.status_code, f'the language model at {self._host}'
        words = error_words(self._without_secrets(_message(error)))
        said = f': {words}' if words else ''
        if status in (401, 403):
            return LlmError(
                f'{host} refuses the key ({status}), set {KEY_VARIABLE} to a valid one{said}'
            )
        if status == 407:
            return LlmError(
                f'the proxy of {self._proxy or "the server"} wants a user name and password (407), '
                'write it like http://NAME:PASSWORD@proxy.example:3128'
            )
        if ABOUT_CONTEXT.search(words) and status != 429:
            return LlmError(
                f'the prompt is too long for {host} ({status}), give the model more context, '
                f'shorten the prompt or ask for fewer names{said}'
            )
        if status == 404 and not ABOUT_OPTIONS.search(words):
            model = self._config.model
            return LlmError(
                f'{host} knows no model {model!a} or no such URL (404), check both{said}'
            )
        if status == 408 and not words:
            return LlmError(
                f'{host} gave no answer in {self._config.timeout:g} s, raise subclasses.timeout '
                'if it is only slow'
            )
        if status == 429:
            wait = _retry_after(error.response.headers.get('retry-after'))
            return LlmError(f'{host} allows no more requests for now (429){said}', wait)
        if status >= 500:
            proxy = f', or the proxy of {self._proxy}' if self._proxy else ''
            return LlmError(f'{host}{proxy} failed ({status}){said or ", look into its log"}')
        return LlmError(f'{host} refused the request ({status}){said}')

    def _explain_connection(self, error: openai.OpenAIError) -> LlmError:
        import httpx2

        host, cause = f'the language model at {self._host}', error.__cause__
        if isinstance(cause, httpx2.ProxyError):
            words = in_one_line(self._without_secrets(str(cause)))
            return LlmError(f'the proxy of {self._proxy} opens no way to {self._host}: {words}')
        proxy = f', and the proxy of {self._proxy}' if self._proxy else ''
        return LlmError(
            f'{host} can not be reached, check that it runs and that the base URL is right{proxy}'
        )

    @property
    def _proxy(self) -> str:
        """The environment variable whose proxy is on the way, if any."""
        from llmseg_ros.subclasses.transport import proxy_variable

        return proxy_variable(urlsplit(self._url).scheme, self._hostname)

    @staticmethod
    def _without_secrets(text: str) -> str:
        """Hide the key and the passwords of proxies where a server repeats them."""
        for secret in _secrets():
            text = text.replace(secret, '[key]') if len(secret) >= MIN_SECRET_LENGTH else text
        return text


def _secrets() -> Iterator[str]:
    yield os.environ.get(KEY_VARIABLE, '')
    for url in getproxies().values():
        _, at, rest = url.partition('://')
        password = (rest if at else url).rpartition('@')[0].partition(':')[2]
        yield from (password, unquote(password))


def _refused_option(error: openai.APIStatusError, options: dict[str, Any]) -> str | None:
    """Name the option a server complains about; the likeliest where it doesn't say which."""
    said = _message(error)
    if ABOUT_CONTEXT.search(said):  # the room kept for the answer counts as well
        return next((limit for limit in LIMITS if limit in options), None)
    for option in options:
        if any(word in said for word in (option, *OTHER_WORDS.get(option, ()))):
            return option
    if error.status_code in (400, 404, 415, 422, 501) and ABOUT_OPTIONS.search(error_words(said)):
        return next(iter(options), None)
    if error.status_code in (400, 415, 422, 501):
        return 'response_format' if 'response_format' in options else None
    return None


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
