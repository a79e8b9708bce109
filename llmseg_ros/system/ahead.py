"""Work done ahead of the one who waits for it, in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield function(item) in order, at most 2 * workers of them computed ahead on threads.

    Items are taken on the thread that asks for results. An error among them comes in its turn,
    after the results before it.

    Args:
        function: of an item; on one thread, in order, with one worker.
        items: to take.
        workers: threads; without any nothing is computed ahead.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix='ahead')

    def submit() -> None:
        try:
            for item in itertools.islice(remaining, 1):
                pending.append(pool.submit(function, item))
        except Exception as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            pending.append(failed)

    try:
        for _ in range(2 * workers):
            submit()
        while pending:
            result = pending.popleft().result()
            submit()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
