"""Turns are given in the order they were asked for."""

from __future__ import annotations

import threading
import time

import pytest

from llmseg_ros.system.turns import Turns


def wait_for_queue(turns: Turns, length: int) -> None:
    end = time.monotonic() + 10
    while len(turns._queue) < length:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_who_waits_comes_before_who_gives_the_turn_back_and_wants_it_again() -> None:
    turns, order = Turns(), []

    def work(name: str) -> None:
        with turns.turn():
            order.append(name)

    with turns.turn():
        others = []
        for number in range(3):
            others.append(threading.Thread(target=work, args=(f'other {number}',)))
            others[-1].start()
            wait_for_queue(turns, number + 2)
    work('again')
    for other in others:
        other.join()
    assert order == ['other 0', 'other 1', 'other 2', 'again']


def test_who_has_waited_long_enough_goes_without_and_holds_up_nobody() -> None:
    turns = Turns()
    entered = threading.Event()

    def work() -> None:
        with turns.turn():
            entered.set()

    with turns.turn():
        with pytest.raises(TimeoutError, match='within 0'):
            wait_in_another_thread(turns)
        follower = threading.Thread(target=work)
        follower.start()
        wait_for_queue(turns, 2)
        assert not entered.is_set()
    follower.join()
    assert entered.is_set()


def wait_in_another_thread(turns: Turns) -> None:
    failures: list[TimeoutError] = []

    def wait() -> None:
        try:
            with turns.turn(0.05):
                pass
        except TimeoutError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    raise failures[0]


def test_an_error_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.turn():
        raise KeyError
    with turns.turn(0):
        pass
