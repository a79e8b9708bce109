"""Which thread of a process goes first."""

from __future__ import annotations

import os
import sys
import threading


def lower_priority(niceness: int) -> None:
    """Let this thread, and those it starts from now on, go after the others of the process.

    Args:
        niceness: 1 to 19; 5 gives about a third of another thread's time where both want all of
            it, 19 next to nothing. Without effect but on Linux, where a thread is a task.
    """
    if sys.platform == 'linux':
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
