"""Who looks, and what each is sent: frames are dropped, never queued."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable

from llmseg_ros.live.actions import Request

MOST_VIEWERS = 32
MOST_REPLIES = 20  # waiting for one viewer


class Viewer:
    """A page that looks.

    It is sent a frame only once it has shown the one before: what a slow link holds up gives way
    to newer frames here, instead of waiting in the buffers of the way.

    Attributes:
        looking: the page can be seen.
        requests: that wait to be served; None after the last.
    """

    def __init__(self) -> None:
        self.looking = True
        self.requests: asyncio.Queue[Request | None] = asyncio.Queue()
        self._ready = True
        self._frame: bytes | None = None
        self._states: dict[str, str] = {}
        self._replies: deque[str] = deque(maxlen=MOST_REPLIES)
        self._changed = asyncio.Event()

    def put_frame(self, frame: bytes) -> None:
        """Take a frame in the place of one that waits."""
        self._frame = frame
        self._changed.set()

    def put_state(self, topic: str, state: str) -> None:
        """Take a state in the place of one of its topic that waits."""
        self._states[topic] = state
        self._changed.set()

    def tell(self, request: Request, told: str) -> None:
        """Take an answer to this viewer alone; empty where all is well."""
        self._replies.append(json.dumps({'done': request['do'], 'told': told}))
        self._changed.set()

    def shown(self) -> None:
        """Note that the last frame is on the page, so that it can take another."""
        self._ready = True
        self._changed.set()

    async def next(self) -> str | bytes:
        """Wait for what is to be sent next: answers, then the state, then a frame."""
        while True:
            if self._replies:
                return self._replies.popleft()
            if self._states:
                return self._states.pop(next(iter(self._states)))
            if self._frame is not None and self._ready and self.looking:
                frame, self._frame = self._frame, None
                self._ready = False
                return frame
            self._changed.clear()
            await self._changed.wait()


class Hub:
    """All viewers; used on the event loop only.

    Args:
        on_watch: called with True when the first begins to look, with False after the last.
    """

    def __init__(self, on_watch: Callable[[bool], None]) -> None:
        self._on_watch = on_watch
        self._viewers: set[Viewer] = set()
        self._frame: bytes | None = None
        self._states: dict[str, str] = {}
        self._watched = False

    @property
    def full(self) -> bool:
        """Whether no more viewers are taken."""
        return len(self._viewers) >= MOST_VIEWERS

    @property
    def watched(self) -> bool:
        """Whether anyone looks."""
        return self._watched

    def join(self) -> Viewer:
        """Take in a viewer, who sees at once what the others see."""
        viewer = Viewer()
        for topic, state in self._states.items():
            viewer.put_state(topic, state)
        if self._frame is not None:
            viewer.put_frame(self._frame)
        self._viewers.add(viewer)
        self._agree()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self._viewers.discard(viewer)
        self._agree()

    def look(self, viewer: Viewer, looking: bool) -> None:
        """Note whether a viewer's page can be seen."""
        viewer.looking = looking
        viewer.shown()
        self._agree()

    def send_frame(self, frame: bytes) -> None:
        """Send a frame to all."""
        self._frame = frame
        for viewer in self._viewers:
            viewer.put_frame(frame)

    def send_state(self, topic: str, state: str) -> None:
        """Send the state of a topic to all, unless they have it."""
        if state == self._states.get(topic):
            return
        self._states[topic] = state
        for viewer in self._viewers:
            viewer.put_state(topic, state)

    def _agree(self) -> None:
        watched = any(viewer.looking for viewer in self._viewers)
        if watched != self._watched:
            self._watched = watched
            self._on_watch(watched)
