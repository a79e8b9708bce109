"""The newest item is worked on, older ones give way."""

from __future__ import annotations

import threading

import pytest

from llmseg_ros.system.worker import Worker


class Gate:
    """A process function that holds each item until it is let through."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, item: int) -> None:
        self.entered.release()
        assert self.go.acquire(timeout=10)
        self.done.append(item)


def test_the_older_of_two_waiting_items_is_dropped_and_counted() -> None:
    gate = Gate()
    worker = Worker(gate, 'test')
    worker.start()
    worker.put(1)
    assert gate.entered.acquire(timeout=10)  # 1 is in work
    for item in (2, 3, 4):
        worker.put(item)
    for _ in range(2):
        gate.go.release()
    assert gate.entered.acquire(timeout=10)
    assert worker.stop(10)
    assert gate.done == [1, 4]
    assert worker.dropped == 2


def test_sources_have_their_turn_with_the_newest_of_each() -> None:
    gate = Gate()
    worker = Worker(gate, 'test')
    worker.start()
    worker.put(0, 'busy')
    assert gate.entered.acquire(timeout=10)  # 0 is in work
    for source, item in (('busy', 1), ('busy', 2), ('rare', 10), ('busy', 3), ('other', 20)):
        worker.put(item, source)
    for item in (4, 5, 6):  # though it came first, one that had its turn waits for the others
        gate.go.release()
        assert gate.entered.acquire(timeout=10)  # the next is in work
        worker.put(item, 'busy')
    gate.go.release()
    assert gate.entered.acquire(timeout=10)
    gate.go.release()
    assert worker.wait_idle(10)
    assert worker.stop(10)
    assert gate.done == [0, 10, 20, 5, 6]
    assert worker.dropped == 4


def test_frequent_sources_share_what_rare_ones_leave() -> None:
    gate = Gate()
    worker = Worker(gate, 'test')
    periods = {0: 1, 1: 1, 2: 5, 3: 30}  # items taken between two items of a source
    worker.start()
    worker.put(0, 0)
    for turn in range(120):
        assert gate.entered.acquire(timeout=10)
        for source, period in periods.items():
            if turn % period == 0:
                worker.put(source, source)
        gate.go.release()
    assert gate.entered.acquire(timeout=10)
    worker.stop(0)
    gate.go.release()
    assert worker.stop(10)
    shares = [gate.done.count(source) for source in periods]
    assert shares[2:] == [24, 4]  # every one that came
    assert abs(shares[0] - shares[1]) <= 1
    assert sum(shares) == 121


def test_an_item_may_be_let_wait_only_in_the_place_of_another() -> None:
    gate = Gate()
    worker = Worker(gate, 'test')
    worker.start()
    worker.put(1)
    assert gate.entered.acquire(timeout=10)
    assert not worker.put(2, anew=False)
    assert worker.put(3)
    assert worker.put(4, anew=False)
    for _ in range(2):
        gate.go.release()
    assert worker.wait_idle(10)
    assert worker.stop(10)
    assert gate.done == [1, 4]
    assert worker.dropped == 1


def test_beside_an_item_what_waits_of_other_sources_can_be_taken() -> None:
    taken: list[tuple[int, ...]] = []
    gate = Gate()

    def process(item: int) -> None:
        gate(item)
        taken.append((item, *worker.take_beside(f'of {item % 10}', 2)))

    def bring(*items: int) -> None:
        for item in items:
            worker.put(item, f'of {item % 10}')

    worker = Worker(process, 'test')
    worker.start()
    bring(1)
    assert gate.entered.acquire(timeout=10)  # 1 is in work
    bring(2, 11, 3, 12, 4)
    gate.go.release()
    assert gate.entered.acquire(timeout=10)  # 4, which alone had no turn so far
    bring(13, 21)
    gate.go.release()
    assert not gate.entered.acquire(timeout=0.05)  # nothing is left
    bring(31)
    assert gate.entered.acquire(timeout=10)
    bring(41, 5)
    for _ in range(2):
        gate.go.release()
    assert worker.wait_idle(10)
    assert worker.stop(10)
    assert taken == [(1, 12, 3), (4, 21, 13), (31, 5), (41,)]
    assert worker.dropped == 2


def test_what_is_dropped_is_handed_back() -> None:
    gate, dropped = Gate(), []
    worker = Worker(gate, 'test', dropped.append)
    worker.start()
    worker.put(1)
    assert gate.entered.acquire(timeout=10)
    for item in (2, 3):
        worker.put(item)
    worker.put(4, 'another source')
    worker.stop(0)
    gate.go.release()
    assert worker.stop(10)
    worker.put(5)
    assert (dropped[0], sorted(dropped[1:])) == (2, [3, 4, 5])


def test_what_waits_at_the_stop_is_dropped() -> None:
    gate = Gate()
    worker = Worker(gate, 'test')
    worker.start()
    worker.put(1)
    assert gate.entered.acquire(timeout=10)
    worker.put(2)
    assert not worker.stop(0.05)  # 1 is still in work
    gate.go.release()
    assert worker.stop(10)
    assert gate.done == [1]
    assert worker.dropped == 1


def test_idle_is_when_nothing_waits_or_is_in_work() -> None:
    gate = Gate()
    worker = Worker(gate, 'test')
    worker.start()
    assert worker.wait_idle(0)
    worker.put(1)
    assert gate.entered.acquire(timeout=10)
    worker.put(2)
    assert not worker.wait_idle(0.05)
    gate.go.release()
    assert gate.entered.acquire(timeout=10)
    assert not worker.wait_idle(0.05)
    gate.go.release()
    assert worker.wait_idle(10)
    assert gate.done == [1, 2]
    assert worker.stop(10)


def test_items_given_while_stopped_are_dropped() -> None:
    worker = Worker(lambda item: None, 'test')
    worker.put(1)
    assert worker.dropped == 1


def test_a_start_while_the_last_item_is_in_work_leaves_one_thread() -> None:
    gate = Gate()
    worker = Worker(gate, 'only one of this name')
    worker.start()
    worker.put(1)
    assert gate.entered.acquire(timeout=10)
    worker.stop(0)
    worker.start()
    worker.put(2)
    for _ in range(2):
        gate.go.release()
    assert gate.entered.acquire(timeout=10)
    assert worker.stop(10)
    for thread in threading.enumerate():
        if thread.name == 'only one of this name':  # of the first start, not waited for by stop
            thread.join(10)
    assert sorted(gate.done) == [1, 2]
    assert not any(t.name == 'only one of this name' for t in threading.enumerate())


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_thread_that_died_is_started_again() -> None:
    results: list[int] = []
    finished = threading.Event()

    def process(item: int) -> None:
        if item == 0:
            raise SystemExit  # ends a thread without a word
        results.append(item)
        finished.set()

    worker = Worker(process, 'test')
    worker.start()
    thread = worker._thread
    assert thread is not None
    worker.put(0)
    thread.join(10)
    assert not worker.alive
    worker.start()
    worker.put(1)
    assert finished.wait(10)
    worker.stop(10)
    assert results == [1]
