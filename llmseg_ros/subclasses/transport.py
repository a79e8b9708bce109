"""HTTP with limits: a server may be slow, broken or hostile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.request import getproxies

import httpx2

from llmseg_ros.subclasses.completion import in_band_status

MAX_BODY_BYTES = 1_000_000
NO_RETRY = {'x-should-retry': 'false'}  # a header the openai library obeys

# Its debug lines have the headers of answers, in which a server might repeat the key.
logging.getLogger('httpcore2').setLevel(logging.INFO)


class LimitedTransport(httpx2.BaseTransport):
    """Report every request; cut off an answer that is too long, give up one that is too slow.

    Requests go through the proxies of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY,
    NO_PROXY), as httpx reads them; to a loopback host they go directly.

    Args:
        host: of the server.
        timeout: seconds from the request to the end of the answer.
        on_request: called before every request.
        options: names of request options; a failure that names one isn't worth a repetition.

    Raises:
        ImportError: a proxy needs a package that isn't there.
        ValueError, httpx2.InvalidURL: a proxy is none.
    """

    def __init__(
        self, host: str, timeout: float, on_request: Callable[[], None], options: Sequence[str]
    ) -> None:
        # A client in a client: with a transport of its own httpx would read no environment.
        self._client = httpx2.Client(
            transport=httpx2.HTTPTransport() if is_loopback(host) else None
        )
        self._timeout = timeout
        self._on_request = on_request
        self._options = options

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its answer, read; status 408 stands for none in time.

        An error sent under status 200 gets the status it speaks of, and is repeated like that.
        """
        deadline = time.monotonic() + self._timeout
        request.headers['Accept-Encoding'] = 'identity'
        self._on_request()
        try:
            response = self._client.send(request, stream=True)
            body = _read(response, deadline)
        except httpx2.TimeoutException:  # asked again the model would be just as slow
            return httpx2.Response(408, headers=NO_RETRY)
        headers = {
            name: response.headers[name]
            for name in ('Content-Type', 'Location', 'Retry-After', 'Retry-After-Ms')
            if name in response.headers
        }
        status = (in_band_status(body) if response.is_success else None) or response.status_code
        if any(option.encode() in body for option in self._options):
            headers |= NO_RETRY
        return httpx2.Response(status, headers=headers, content=body)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open_transport(
    host: str, timeout: float, on_request: Callable[[], None], options: Sequence[str]
) -> LimitedTransport | str:
    """Return a transport, or a sentence on which proxy of the environment is of no use."""
    try:
        return LimitedTransport(host, timeout, on_request, options)
    except (ImportError, ValueError, httpx2.InvalidURL):  # not passed on: it repeats the proxy
        return _unusable_proxy()


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its name or address."""
    try:
        address = ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host.rstrip('.').lower() == 'localhost'


def proxy_variable(scheme: str, host: str) -> str:
    """Name the variable whose proxy requests may go through; empty where there is none."""
    proxies = {} if is_loopback(host) else getproxies()
    return next((f'{key.upper()}_PROXY' for key in (scheme, 'all') if proxies.get(key)), '')


def _unusable_proxy() -> str:
    """Say in a sentence, without its secrets, which proxy of the environment is of no use."""
    for key, url in getproxies().items():
        variable = f'{key.upper()}_PROXY'
        if key not in ('http', 'https', 'all'):
            continue
        try:
            proxy = httpx2.Proxy(url if '://' in url else f'http://{url}')
        except (ValueError, httpx2.InvalidURL):
            return f'{variable} is no proxy: write it like http://proxy.example:3128, or unset it'
        if proxy.url.scheme.startswith('socks'):
            return f'{variable} is a SOCKS proxy: install the package socksio, or unset it'
    return 'a proxy of the environment can not be used: check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY'


def _read(response: httpx2.Response, deadline: float) -> bytes:
    """Read a body up to the limits, as it is sent: compressed it might expand without end."""
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk[: MAX_BODY_BYTES - len(body)]
            if len(body) >= MAX_BODY_BYTES:
                break
            if time.monotonic() > deadline:
                raise httpx2.ReadTimeout('the answer takes too long')
    finally:
        response.close()
    return bytes(body)
