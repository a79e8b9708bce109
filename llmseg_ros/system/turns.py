"""A lock that goes to those who want it in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Let threads work one at a time, first come, first served.

    With a plain lock the thread that gives it back and wants it again has it again before those
    who wait have woken.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()  # the first of them works

    @contextmanager
    def turn(self, timeout_s: float | None = None) -> Iterator[None]:
        """Wait until it is this thread's turn, and have it until the end of the block.

        Raises:
            TimeoutError: it was not within the time.
        """
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            if not self._changed.wait_for(lambda: self._queue[0] is ticket, timeout_s):
                self._queue.remove(ticket)
                raise TimeoutError(f'not its turn within {timeout_s} s')
        try:
            yield
        finally:
            with self._changed:
                self._queue.popleft()
                self._changed.notify_all()
