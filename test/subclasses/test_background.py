import itertools
import threading
import time

import pytest

from llmseg_ros.subclasses import background
from llmseg_ros.subclasses.background import MOST_WAITING_TOO, BackgroundAsker
from llmseg_ros.subclasses.llm import MAX_AT_ONCE, BudgetSpent, LlmError


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(background, 'FIRST_PAUSE', 0.02)


@pytest.fixture
def make():
    askers = []

    def build(ask):
        askers.append(BackgroundAsker(ask))
        return askers[-1]

    yield build
    for asker in askers:
        asker.close()


def test_all_are_answered_four_at_a_time(make, until):
    at_once, most, answers = [], [], {}

    def ask(name):
        at_once.append(name)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.remove(name)
        return name.upper()

    asker = make(ask)
    names = [f'class {i}' for i in range(20)]
    asker.want(names, answers.__setitem__)
    assert asker.status.pending > 0
    until(lambda: len(answers) == 20)
    assert answers == {name: name.upper() for name in names}
    assert max(most) == 4
    until(lambda: asker.status.pending == 0)


def test_a_new_list_replaces_what_waits_and_keeps_what_is_asked(make, until):
    gate, asked, answers = threading.Event(), [], {}

    def ask(name):
        asked.append(name)
        gate.wait(10)
        return name

    asker = make(ask)
    asker.want([f'old {i}' for i in range(10)], answers.__setitem__)
    until(lambda: len(asked) == 4)
    asker.want(['old 0', 'new'], answers.__setitem__)
    gate.set()
    until(lambda: 'new' in answers)
    until(lambda: asker.status.pending == 0)
    assert sorted(asked) == ['new', 'old 0', 'old 1', 'old 2', 'old 3']


def test_a_failing_server_is_probed_by_one_and_recovers(make, until):
    down, tries, answers, at_once, most = [True], [], {}, [], []

    def ask(name):
        tries.append(name)
        at_once.append(name)
        if len(tries) > 4:
            most.append(len(at_once))
        time.sleep(0.01)
        at_once.remove(name)
        if down[0]:
            raise LlmError('the server is down')
        return name

    asker = make(ask)
    names = [f'class {i}' for i in range(8)]
    asker.want(names, answers.__setitem__)
    until(lambda: len(tries) > 7)
    assert asker.status.problem == 'the server is down'
    assert asker.status.pending == 8
    assert max(most) == 1
    down[0] = False
    until(lambda: len(answers) == 8)
    until(lambda: asker.status == background.AskingStatus(0, ''))


def test_pause_grows_and_retry_after_is_a_minimum(make, until):
    times = []

    def ask(name):
        times.append(time.monotonic())
        raise LlmError('busy', retry_after=0.3 if len(times) == 1 else None)

    asker = make(ask)
    asker.want(['cat'], lambda name, answer: None)
    until(lambda: len(times) == 5)
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert gaps[0] >= 0.3
    assert gaps[3] > 0.02 * 8 * 0.75


def test_spent_budget_ends_the_asking(make, until):
    asked = []

    def ask(name):
        asked.append(name)
        raise BudgetSpent('the budget is used up')

    asker = make(ask)
    asker.want([f'class {i}' for i in range(10)], lambda name, answer: None)
    until(lambda: asker.status == background.AskingStatus(0, 'the budget is used up'))
    assert len(asked) <= 4


@pytest.mark.parametrize('breaks', ['ask', 'callback'])
def test_one_broken_name_does_not_stop_the_others(make, until, caplog, breaks):
    answers = {}

    def ask(name):
        if breaks == 'ask' and name == 'bad':
            raise ZeroDivisionError
        return name

    def on_answer(name, answer):
        if breaks == 'callback' and name == 'bad':
            raise ZeroDivisionError
        answers[name] = answer

    asker = make(ask)
    asker.want(['bad', 'cat', 'dog', 'cow', 'hen', 'ox'], on_answer)
    until(lambda: len(answers) == 5)
    until(lambda: asker.status.pending == 0)
    assert "'bad'" in caplog.text


def test_nothing_is_delivered_after_closing(make, until):
    gate, asked, answers = threading.Event(), [], {}

    def ask(name):
        asked.append(name)
        gate.wait(10)
        return name

    asker = make(ask)
    asker.want(['cat'], answers.__setitem__)
    until(lambda: asked == ['cat'])
    asker.close()
    gate.set()
    until(lambda: not any(thread.is_alive() for thread in asker._threads))
    assert answers == {}


def test_what_is_wanted_too_waits_behind_the_list_and_goes_with_it(make, until):
    gate, asked, answers = threading.Event(), [], {}

    def ask(name):
        asked.append(name)
        gate.wait(10)
        return name

    asker = make(ask)
    asker.want_too(['nobody takes the answer'])
    asker.want([f'list {i}' for i in range(5)], answers.__setitem__)
    until(lambda: len(asked) == 4)
    asker.want_too(['list 4', 'beside 0', 'list 0', 'beside 1'])
    assert asker.status.pending == 7  # none twice
    gate.set()
    until(lambda: len(answers) == 7)
    assert sorted(asked[5:]) == ['beside 0', 'beside 1']
    gate.clear()
    asker.want([f'other {i}' for i in range(4)], answers.__setitem__)
    until(lambda: len(asked) == 11)
    asker.want_too(['given up'])
    asker.want([], answers.__setitem__)
    gate.set()
    until(lambda: asker.status.pending == 0)
    assert 'given up' not in answers


def test_names_beside_the_list_do_not_pile_up(make, until):
    gate = threading.Event()
    answers = {}
    asker = make(lambda name: gate.wait(10) and name)
    asker.want([], answers.__setitem__)
    for call in range(2 * MOST_WAITING_TOO // 100):
        asker.want_too([f'thing {call} {i}' for i in range(100)])
    assert asker.status.pending <= MOST_WAITING_TOO + MAX_AT_ONCE
    gate.set()
    until(lambda: asker.status.pending == 0)
    asker.want_too(['asked once more'])
    until(lambda: 'asked once more' in answers)
