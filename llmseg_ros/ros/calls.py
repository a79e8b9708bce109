"""Service calls whose answer takes a while: a few wait, the executor doesn't."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future as PoolFuture
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future

MOST_WAITING = 8  # calls beside the one in work; each holds its image
MOST_SECONDS = 10.0  # that a call waits before its work begins
MAX_MESSAGE = 4000  # characters: a list of a million bad names has a million reasons
CALLS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)  # unread: lost, unanswered


class Refused(Exception):
    """A call is not answered as asked; the message says why, and what to do."""


class CallQueue:
    """Answer the calls of a service one after the other, on a thread of its own.

    Beyond `MOST_WAITING` they are refused at once. A response has `success` and `message`.

    Args:
        node: whose service it is.
        kind: of the service.
        name: of the service.
        answer: makes the response to a request until a deadline by time.monotonic, after which it
            waits for nothing; raises Refused where it can't.
    """

    def __init__(
        self, node: Node, kind: Any, name: str, answer: Callable[[Any, float], Any]
    ) -> None:
        self._node = node
        self._answer = answer
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, name)
        self._name = node.resolve_service_name(name)
        create_waiting_service(node, kind, name, self._on_call, qos_profile=CALLS)

    def stop(self) -> None:
        """Answer nothing more; what is in work is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_call(self, request: Any, response: Any) -> Any:
        if self._waiting > MOST_WAITING:
            response.message = f'{MOST_WAITING} calls are waiting already, try again later'
            return response
        self._waiting += 1
        deadline = time.monotonic() + MOST_SECONDS
        try:
            return await awaitable(self._node, self._thread.submit(self._work, request, deadline))
        except Refused as error:
            response.message = str(error)[:MAX_MESSAGE]
        except Exception as error:  # told to whoever asked; the stream goes on
            response.message = f'{type(error).__name__}: {error}'.splitlines()[0][:MAX_MESSAGE]
            self._node.get_logger().error(f'{self._name}: {response.message}')
            self._node.get_logger().debug(traceback.format_exc())
        finally:
            self._waiting -= 1
        return response

    def _work(self, request: Any, deadline: float) -> Any:
        if time.monotonic() > deadline:
            raise late()
        return self._answer(request, deadline)


def create_waiting_service(node: Node, kind: Any, name: str, call: Any, **options: Any) -> None:
    """Create a service whose callback awaits something while the node does other things.

    In the node's own group of callbacks no other would be called meanwhile, not even for a frame.
    """
    node.create_service(kind, name, call, callback_group=ReentrantCallbackGroup(), **options)


def late() -> Refused:
    """Return what a call is refused by whose turn has not come."""
    return Refused(f'its turn did not come within {MOST_SECONDS:g} s, try again later')


def awaitable(node: Node, work: PoolFuture[Any]) -> Future:
    """Return a future of the node's executor, which is woken when the work is done."""
    executor = node.executor
    future = Future(executor=executor)

    def finish(done: PoolFuture[Any]) -> None:
        if done.cancelled():  # the process is ending
            return
        error = done.exception()
        future.set_result(done.result()) if error is None else future.set_exception(error)
        executor.wake()

    work.add_done_callback(finish)
    return future
