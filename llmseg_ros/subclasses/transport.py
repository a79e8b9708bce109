"""HTTP with limits: a server may be slow, broken or hostile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import httpx2

MAX_BODY_BYTES = 1_000_000
NO_RETRY = {'x-should-retry': 'false'}  # a header the openai library obeys

# Its debug lines have the headers of answers, in which a server might repeat the key.
logging.getLogger('httpcore2').setLevel(logging.INFO)


class LimitedTransport(httpx2.HTTPTransport):
    """Report every request; cut off an answer that is too long, give up one that is too slow.

    Args:
        timeout: seconds from the request to the end of the answer.
        on_request: called before every request.
        options: names of request options; a failure that names one isn't worth a repetition.
    """

    def __init__(
        self, timeout: float, on_request: Callable[[], None], options: Sequence[str]
    ) -> None:
        super().__init__()
        self._timeout = timeout
        self._on_request = on_request
        self._options = options

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its answer, read; status 408 stands for none in time."""
        deadline = time.monotonic() + self._timeout
        request.headers['Accept-Encoding'] = 'identity'
        self._on_request()
        try:
            response = super().handle_request(request)
            body = _read(response, deadline)
        except httpx2.TimeoutException:  # asked again the model would be just as slow
            return httpx2.Response(408, headers=NO_RETRY)
        headers = {
            name: response.headers[name]
            for name in ('Content-Type', 'Location', 'Retry-After', 'Retry-After-Ms')
            if name in response.headers
        }
        if any(option.encode() in body for option in self._options):
            headers |= NO_RETRY
        return httpx2.Response(response.status_code, headers=headers, content=body)


def _read(response: httpx2.Response, deadline: float) -> bytes:
    """Read a body up to the limits, as it is sent: compressed it might expand without end."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    body = bytearray()
    try:
        for chunk in response.stream:
            body += chunk[: MAX_BODY_BYTES - len(body)]
            if len(body) >= MAX_BODY_BYTES:
                break
            if time.monotonic() > deadline:
                raise httpx2.ReadTimeout('the answer takes too long')
    finally:
        response.close()
    return bytes(body)
