"""Asking in the background, until every class has its answer."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmseg_ros.subclasses.llm import MAX_AT_ONCE, BudgetSpent, LlmError, NoAnswer

K = TypeVar('K', bound=Hashable)
T = TypeVar('T')

FIRST_PAUSE = 2.0  # seconds after a failure; doubled with every further one
LONGEST_PAUSE = 60.0
MOST_WAITING_TOO = 400  # names beside the class list: those of a call are asked for again with it
MOST_TRIES = 3  # for a name to which the model, which is there, gives no answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskingStatus:
    """How the asking goes.

    Attributes:
        pending: names without an answer yet.
        problem: why nothing comes at the moment, one sentence; empty where all is well.
    """

    pending: int = 0
    problem: str = ''


class BackgroundAsker(Generic[K, T]):
    """Ask for names on threads of its own, 4 at a time, one at a time while the server fails.

    A name to which the model gives no answer is tried 3 times.

    Args:
        ask: answers a name, however long that takes; raises LlmError where it can't for now.
    """

    def __init__(self, ask: Callable[[K], T]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._queue: deque[K] = deque()
        self._asking: set[K] = set()
        self._on_answer: Callable[[K, T], None] | None = None
        self._unanswered: Counter[K] = Counter()
        self._failures = 0
        self._resume_at = 0.0
        self._problem = ''
        self._closed = False
        self._threads: list[threading.Thread] = []

    @property
    def closed(self) -> bool:
        """Whether nothing is asked any more."""
        return self._closed

    @property
    def status(self) -> AskingStatus:
        """How the asking goes now."""
        with self._changed:
            return AskingStatus(len(self._queue) + len(self._asking), self._problem)

    def want(self, names: Iterable[K], on_answer: Callable[[K, T], None]) -> None:
        """Ask for these names and no others; `on_answer` is called on the asking threads.

        A name being asked already isn't asked again, its answer goes to the new `on_answer`.
        """
        with self._changed:
            self._on_answer = on_answer
            self._queue = deque(name for name in names if name not in self._asking)
            while self._queue and len(self._threads) < MAX_AT_ONCE and not self._closed:
                thread = threading.Thread(target=self._work, name='subclasses', daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def want_too(self, names: Iterable[K]) -> None:
        """Ask for these names as well, after those that wait; `want` gives them up again.

        While `MOST_WAITING_TOO` names wait, as with a server that is down, no more are taken.
        """
        with self._changed:
            if self._on_answer is None:
                return
            room = max(0, MOST_WAITING_TOO - len(self._queue))
            new = [name for name in names if name not in self._queue][:room]
            self.want((*self._queue, *new), self._on_answer)

    def close(self) -> None:
        """Ask nothing more; what is under way ends on its own and is forgotten."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while (name := self._next_name()) is not None:
            try:
                answer = self._ask(name)
            except BudgetSpent as error:
                self._stop(name, str(error))
            except LlmError as error:
                self._put_back(name, error)
            except Exception:  # this name gets no answer, the others do
                if not self._closed:
                    logger.exception('asking for %a failed', name)
                self._done(name)
            else:
                self._deliver(name, answer)

    def _next_name(self) -> K | None:
        """Wait for a name to ask; None at the end."""
        with self._changed:
            while not self._closed:
                wait = self._resume_at - time.monotonic()
                probing = self._failures and self._asking
                if self._queue and wait <= 0 and not probing:
                    name = self._queue.popleft()
                    self._asking.add(name)
                    return name
                self._changed.wait(wait if self._queue and wait > 0 else None)
            return None

    def _deliver(self, name: K, answer: T) -> None:
        on_answer = self._done(name)
        if on_answer is not None:
            try:
                on_answer(name, answer)
            except Exception:  # of the caller's making: the asking goes on
                logger.exception('the answer for %a could not be used', name)

    def _done(self, name: K) -> Callable[[K, T], None] | None:
        with self._changed:
            self._asking.discard(name)
            self._failures = 0
            self._problem = ''
            self._changed.notify_all()
            return None if self._closed else self._on_answer

    def _put_back(self, name: K, error: LlmError) -> None:
        with self._changed:
            self._asking.discard(name)
            self._unanswered[name] += isinstance(error, NoAnswer)
            if self._unanswered[name] < MOST_TRIES:
                self._queue.append(name)
            else:
                logger.warning('%s; %a is not asked for again in this run', error, name)
            now = time.monotonic()
            if now >= self._resume_at:  # else another thread met the same failure just now
                pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
                pause = max(pause * random.uniform(0.75, 1.25), error.retry_after or 0.0)
                self._failures = min(self._failures + 1, 10)
                self._resume_at = now + pause
                if self._problem != str(error) and not self._closed:
                    logger.warning('%s; trying again in %.0f s', error, pause)
            self._problem = str(error)
            self._changed.notify_all()

    def _stop(self, name: K, problem: str) -> None:
        with self._changed:
            self._asking.discard(name)
            self._queue.clear()
            if self._problem != problem:
                logger.warning('%s', problem)
            self._problem = problem
            self._changed.notify_all()
