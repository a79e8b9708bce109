"""Calls that wait: for how long, in what order, and what an error costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.srv import DescribeNames
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from llmseg_ros.ros import calls
from llmseg_ros.ros.calls import CallQueue, Refused
from llmseg_ros.ros.describe_service import describe_in_time
from llmseg_ros.ros.segment_service import newest_frame

Serve = Callable[[Callable[[Any, float], Any]], None]


@pytest.fixture
def serve(context: Any) -> Iterator[Serve]:
    """Give what answers `/slow/ask` by a function, on a node that spins in a thread."""
    node = Node('slow', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.02)

    thread = threading.Thread(target=spin)
    queues: list[CallQueue] = []

    def start(answer: Callable[[Any, float], Any]) -> None:
        queues.append(CallQueue(node, DescribeNames, '~/ask', answer))
        thread.start()

    yield start
    queues[0].stop()
    ended.set()
    thread.join()
    node.destroy_node()


def test_a_call_whose_turn_is_late_is_refused(
    serve: Serve, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, 'MOST_SECONDS', 0.3)

    def answer(request: Any, deadline: float) -> Any:
        if 'slow' in request.names:
            time.sleep(0.6)
        return DescribeNames.Response(success=True)

    serve(answer)
    assert peer.call(DescribeNames, '/slow/ask', DescribeNames.Request()).success
    client = peer._clients['/slow/ask']
    slow = client.call_async(DescribeNames.Request(names=['slow']))
    late = client.call_async(DescribeNames.Request())
    peer.spin_until(lambda: slow.done() and late.done())
    assert slow.result().success  # begun in time, it is not cut off
    assert not late.result().success
    assert late.result().message == 'its turn did not come within 0.3 s, try again later'


def test_an_error_costs_one_call(serve: Serve, peer: Any) -> None:
    def answer(request: Any, deadline: float) -> Any:
        if 'no' in request.names:
            raise Refused('not that')
        if 'bad' in request.names:
            raise KeyError('oh\nno')
        return DescribeNames.Response(success=True)

    serve(answer)
    said = [
        peer.call(DescribeNames, '/slow/ask', DescribeNames.Request(names=[name]))
        for name in ('no', 'bad', 'good')
    ]
    assert [one.success for one in said] == [False, False, True]
    assert [one.message for one in said] == ['not that', r"KeyError: 'oh\nno'", '']


@pytest.mark.parametrize('busy', [False, True])
def test_names_that_take_long_to_describe_are_not_waited_for(busy: bool) -> None:
    released, begun = threading.Event(), threading.Event()
    described: list[Any] = []

    def describe(names: Any, rules: Any) -> None:
        begun.set()
        released.wait(10)
        described.append(names)

    with ThreadPoolExecutor(1) as updates:
        if busy:
            updates.submit(released.wait, 10)
        else:
            begin = time.monotonic()
        sentence = 'its turn did not come' if busy else 'takes more than 10 s and goes on'
        segmenter: Any = SimpleNamespace(describe=describe)
        with pytest.raises(Refused, match=sentence):
            describe_in_time(updates, segmenter, ['cat'], (), time.monotonic() + 0.1)
        assert busy or time.monotonic() - begin < 5
        assert begun.is_set() is not busy
        released.set()
    assert described == ([] if busy else [['cat']])


def camera(name: str, age_s: float, message: Any = 'frame') -> Any:
    statistics = SimpleNamespace(since=lambda what: age_s)
    return SimpleNamespace(name=name, newest=message, statistics=statistics, topic=f'/seg/{name}')


def test_of_several_cameras_one_is_named() -> None:
    cameras = [camera('front', 0.1, 'f'), camera('rear', 4.0, 'r'), camera('top', 0.1, None)]
    assert newest_frame(cameras, 'front', 3.0) == 'f'
    assert newest_frame(cameras, 'rear', 5.0) == 'r'
    for name, sentence in {
        '': 'several cameras: name one of front, rear, top, or send an image',
        'left': "no camera 'left': its cameras are front, rear, top",
        'rear': 'the newest frame of /seg/rear came 4.0 s ago, max_age is 3 s',
        'top': 'no frame of /seg/top',
    }.items():
        with pytest.raises(Refused, match=sentence):
            newest_frame(cameras, name, 3.0)
