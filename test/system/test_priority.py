"""A thread that is patient, and those it starts; not the others."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from llmseg_ros.system.priority import lower_priority


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != 'linux', reason='a thread is no task of its own')
def test_only_this_thread_and_its_own_are_patient() -> None:
    before, seen = niceness(), []

    def work() -> None:
        lower_priority(before + 1)
        seen.append(niceness())
        started = threading.Thread(target=lambda: seen.append(niceness()))
        started.start()
        started.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before + 1] * 2
    assert niceness() == before
