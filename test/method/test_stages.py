"""What settings share on one image, and what their stages are said to take."""

import time

import pytest
import torch

from llmseg_ros.method.stages import Shared, StageClock


def test_what_has_one_key_is_computed_once():
    shared, computed = Shared(), []

    def compute(value):
        return lambda: computed.append(value) or value

    assert [shared.once(('a', 1), compute(5)) for _ in range(3)] == [5, 5, 5]
    assert shared.once(('a', 2), compute(6)) == 6
    assert computed == [5, 6]


def test_what_fails_is_computed_again():
    shared = Shared()
    with pytest.raises(ZeroDivisionError):
        shared.once('a', lambda: 1 // 0)
    assert shared.once('a', lambda: 1) == 1


def test_the_first_equal_tensor_stands_for_all():
    shared = Shared()
    first, other = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert shared.first_equal(first) is first
    assert shared.first_equal(first.clone()) is first
    assert shared.first_equal(other) is other
    assert shared.first_equal(torch.tensor([1.0])).shape == (1,)


def test_times_are_what_each_would_take_alone():
    """Of a kernel (50 ms) used by two refinements (20 ms each), one of them done twice."""
    shared = Shared()

    def refine(which):
        def compute():
            shared.once('kernel', lambda: time.sleep(0.05))
            time.sleep(0.02)

        clock = StageClock(shared)
        clock.lap('encode')
        shared.once(('refine', which), compute)
        clock.lap('refine')
        return clock.timings_ms['refine']

    started = time.perf_counter()
    times = [refine(1), refine(2), refine(1)]
    assert 1000 * (time.perf_counter() - started) < sum(times) - 100
    assert min(times) >= 70
    assert times[2] == pytest.approx(times[0], abs=5)
