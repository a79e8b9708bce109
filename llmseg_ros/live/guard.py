"""Who may see the page: those with the token, and no page of another site."""

from __future__ import annotations

import hmac
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ('127.0.0.1', 'localhost', '::1')


class Guard:
    """Answer 403 to who may not see the page.

    Without a token the server is bound to loopback, and the host in the address must be too:
    another site could give its own name this address. A socket is opened by pages of this server
    only, whatever site the browser shows beside.

    Args:
        app: what is guarded.
        token: that the address must have; empty for none.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope['type'] == 'lifespan' or not (reason := self.refusal(scope)):
            await self._app(scope, receive, send)
        elif scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008, 'reason': reason})
        else:
            await PlainTextResponse(f'{reason}\n', status_code=403)(scope, receive, send)

    def refusal(self, scope: Scope) -> str:
        """Return why a request is refused; empty where it isn't."""
        headers = Headers(scope=scope)
        host, origin = headers.get('host', ''), headers.get('origin')
        if self._token:
            given = parse_qs(scope['query_string'].decode('ascii', 'replace')).get('token', [''])
            if not hmac.compare_digest(given[-1].encode(), self._token.encode()):
                return 'the address lacks the token that llmseg live has printed'
        elif parts_of(f'//{host}').hostname not in LOOPBACK:
            return 'this page is for the machine it runs on: open it as localhost'
        if scope['type'] == 'websocket' and origin and parts_of(origin).netloc != host:
            return 'a page of another site may not look in'
        return ''


def parts_of(address: str) -> SplitResult:
    """Return the parts of an address, all empty where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit('')
