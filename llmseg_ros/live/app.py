"""The web application: the page, the socket that frames go over, and files to save."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from llmseg_ros.live.actions import few_sentences, parse_request, serve_request
from llmseg_ros.live.frames import LiveFrame, encode_frame
from llmseg_ros.live.guard import Guard
from llmseg_ros.live.hub import Hub, Viewer
from llmseg_ros.live.page import render_page
from llmseg_ros.live.saving import FILES
from llmseg_ros.live.session import LiveError, Session

STATE_PERIOD_S = 1.0
MOST_REQUESTS = 20  # waiting of one viewer
PRIVATE = {
    'Cache-Control': 'no-store',
    'Cross-Origin-Resource-Policy': 'same-origin',  # no picture in a page of another site
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}
UNACCEPTABLE, FULL = 1003, 1013  # codes of closed sockets


class LiveApp:
    """A session on pages.

    The session is asked and changed on one thread of its own, so that a long class list holds up
    neither frames nor other pages.
    """

    def __init__(self, session: Session, token: str = '') -> None:
        self._session = session
        self._pool = ThreadPoolExecutor(1, 'live')
        self._hub = Hub(self._on_watch)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.asgi = Starlette(
            routes=[
                Route('/', self._page),
                Route('/save/{name}', self._save),
                WebSocketRoute('/socket', self._socket),
            ],
            middleware=[Middleware(Guard, token=token)],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._session.start(self._on_frame)
        telling = asyncio.create_task(self._tell_state())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.to_thread(self._session.close)
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _on_frame(self, frame: LiveFrame) -> None:
        """Encode a frame once for all, on the session's thread."""
        loop = self._loop
        if self._hub.watched and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._hub.send_frame, encode_frame(frame))

    def _on_watch(self, watched: bool) -> None:
        with contextlib.suppress(RuntimeError):  # the server is ending
            self._pool.submit(self._session.watch, watched)

    async def _tell_state(self) -> None:
        while True:
            if self._hub.watched:
                await self._send_state()
            await asyncio.sleep(STATE_PERIOD_S)

    async def _send_state(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            state = await loop.run_in_executor(self._pool, self._session.describe)
        except Exception as error:  # whatever it is, the pages and the next state go on
            trouble = f'{type(error).__name__}: {error}'
            self._hub.send_state('state', json.dumps({'trouble': trouble}))
            return
        state['notes'] = few_sentences(state['notes'])
        classes = {'classes': state.pop('classes'), 'kind': state['kind']}  # long, seldom new
        self._hub.send_state('classes', json.dumps(classes))
        self._hub.send_state('state', json.dumps({'state': state}))

    async def _page(self, request: Request) -> Response:
        html, policy = render_page()
        return HTMLResponse(html, headers={'Content-Security-Policy': policy, **PRIVATE})

    async def _save(self, request: Request) -> Response:
        make = FILES.get(request.path_params['name'])
        if make is None:
            return PlainTextResponse('there is no such file\n', status_code=404)
        loop = asyncio.get_running_loop()
        try:
            kind, content = await loop.run_in_executor(self._pool, make, self._session)
        except LiveError as error:
            return PlainTextResponse(f'{error}\n', status_code=409)
        return Response(content, media_type=kind, headers=PRIVATE)

    async def _socket(self, socket: WebSocket) -> None:
        await socket.accept()
        if self._hub.full:
            await socket.close(FULL, 'too many pages look already')
            return
        viewer = self._hub.join()
        sending = asyncio.create_task(send_to(socket, viewer))
        serving = asyncio.create_task(self._serve(viewer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        try:
            while await self._receive(socket, viewer):
                pass
        except WebSocketDisconnect:
            pass
        finally:
            self._hub.leave(viewer)
            sending.cancel()
            viewer.requests.put_nowait(None)  # what was asked for before is still done

    async def _receive(self, socket: WebSocket, viewer: Viewer) -> bool:
        """Serve a request; False once the socket is closed."""
        message = await socket.receive()
        if message['type'] == 'websocket.disconnect':
            return False
        try:
            request = parse_request(message.get('text') or '')
        except LiveError as error:
            await socket.close(UNACCEPTABLE, str(error))
            return False
        if request['do'] == 'shown':
            viewer.shown()
        elif request['do'] == 'look':
            self._hub.look(viewer, request.get('looking') is not False)
        elif viewer.requests.qsize() < MOST_REQUESTS:
            viewer.requests.put_nowait(request)
        else:
            viewer.tell(request, 'not done: too much is asked for at once')
        return True

    async def _serve(self, viewer: Viewer) -> None:
        """Serve what a viewer asks for, while its frames go on."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError):  # the server is ending
            await self._send_state()
            while (request := await viewer.requests.get()) is not None:
                told = await loop.run_in_executor(self._pool, serve_request, self._session, request)
                viewer.tell(request, told)
                await self._send_state()


async def send_to(socket: WebSocket, viewer: Viewer) -> None:
    """Send a viewer what comes, at the speed of its link."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # closed in the middle
        while True:
            message = await viewer.next()
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_text(message)
