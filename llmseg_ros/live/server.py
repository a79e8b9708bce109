"""Serving a session on a port, until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Callable, Iterator

import uvicorn

from llmseg_ros.live.app import LiveApp
from llmseg_ros.live.guard import LOOPBACK
from llmseg_ros.live.session import LiveError, Session

CLOSE_S = 2  # for pages to take note of the end
PING_S = 10.0  # after which, twice, a page that is gone is forgotten
MOST_BYTES = 1 << 20  # of one request: a class list of 1000 names has 300 kB at most


@contextlib.contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Take a port, before the model is loaded.

    Raises:
        LiveError: it is in use, or may not be taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family)
    except UnicodeError as error:
        raise LiveError(f'--host {host[:40]!a} is no address') from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f'port {port} is in use: give another with --port, or end what uses it'
        elif error.errno == errno.EACCES:
            reason = f'port {port} may not be taken by this user: give one above 1023 with --port'
        else:
            reason = f'--host {host}: {error.strerror or error}'
        raise LiveError(reason) from error
    with bound:
        yield bound


def new_token(host: str) -> str:
    """Return the token that a host needs; none on loopback."""
    return '' if host in LOOPBACK else secrets.token_urlsafe(18)


def serve(session: Session, bound: socket.socket, token: str, on_start: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; the session is closed then."""
    app = LiveApp(session, token)
    config = uvicorn.Config(
        app.asgi,
        log_level='warning',
        access_log=False,
        server_header=False,
        ws='wsproto',
        ws_max_size=MOST_BYTES,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=CLOSE_S,
    )
    on_start()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[bound])
