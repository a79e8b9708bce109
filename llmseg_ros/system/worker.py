"""A thread that always works on the newest item of each source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar('T')


class Worker(Generic[T]):
    """Run a function on the newest item given, in a thread of its own.

    One item of a source waits at most: a newer one takes its place, and the older is dropped and
    counted. Of the sources whose items wait it is the turn of the one whose last turn is longest
    ago: frequent ones have equal shares of what rare ones leave, and no rare one waits long.

    Args:
        process: called with each item taken; must not raise.
        name: of the thread.
        on_dropped: called with each item dropped, at once; must not raise, or call the worker.

    Attributes:
        dropped: items that gave way to a newer one, or were waiting when the work stopped.
    """

    def __init__(
        self,
        process: Callable[[T], None],
        name: str,
        on_dropped: Callable[[T], None] = lambda _: None,
    ) -> None:
        self.dropped = 0
        self._process = process
        self._name = name
        self._on_dropped = on_dropped
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, T] = {}  # by source
        self._turns = 0
        self._last_turn: dict[Hashable, int] = {}  # of each source
        self._busy = (
            0  # threads at work; two where one was stopped, not waited for, and another begun
        )
        self._running = False
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs; False after `start` means that it died."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; where it has died, start another."""
        with self._changed:
            if self._running and self.alive:
                return
            self._running = True
            # A daemon, so that a computation that can't be interrupted doesn't hold up the exit.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def put(self, item: T, source: Hashable = None, anew: bool = True) -> bool:
        """Hand over an item without waiting; once stopped, items are dropped.

        Args:
            item: to work on.
            source: it is of.
            anew: whether it may wait where no other of its source does.

        Returns:
            False where it might not.
        """
        with self._changed:
            if not self._running:
                self._drop(item)
                return True
            if source in self._waiting:
                self._drop(self._waiting[source])
            elif not anew:
                return False
            self._waiting[source] = item
            self._changed.notify_all()
            return True

    def take_beside(self, source: Hashable, most: int) -> list[T]:
        """Take what waits of other sources, as their turns come, to work on beside an item.

        Args:
            source: of the item in work; another of it stays where it is.
            most: how many to take.
        """
        with self._changed:
            waiting = len(self._waiting) - (source in self._waiting)
            return [self._next(source) for _ in range(min(most, waiting))]

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing waits or is in work; False where something still does or is.

        Args:
            timeout_s: how long at most, None for as long as it takes.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Drop what waits and end the thread; False where it is still at work after the wait."""
        with self._changed:
            self._running = False
            while self._waiting:
                self._drop(self._waiting.popitem()[1])
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def _drop(self, item: T) -> None:
        self.dropped += 1
        self._on_dropped(item)

    def _next(self, *others: Hashable) -> T:
        """Take the item of the source, none of these, whose last turn is longest ago."""
        waiting = [source for source in self._waiting if source not in others]
        source = min(waiting, key=lambda source: self._last_turn.get(source, 0))
        self._turns += 1
        self._last_turn[source] = self._turns
        return self._waiting.pop(source)

    def _run(self) -> None:
        def ended() -> bool:  # stopped, or started anew while the last item held this thread up
            return not self._running or self._thread is not threading.current_thread()

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or ended())
                if ended():
                    return
                item = self._next()
                self._busy += 1
            try:
                self._process(item)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
            del item  # while the thread waits, the last frame needn't stay in memory
