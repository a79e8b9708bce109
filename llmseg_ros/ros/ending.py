"""When and by what a node's process ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def launcher_gone() -> bool:
    """Return whether the launch process that is to outlive the node has ended."""
    launcher = os.environ.get('LLMSEG_LAUNCH_PID')
    if not launcher:
        return False
    try:
        os.kill(int(launcher), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs under another user
        return False
    return False


class Interrupt:
    """A handler of signals that raises KeyboardInterrupt, but not amid what has to be whole."""

    def __init__(self) -> None:
        self._held = False
        self._came = False

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal."""
        self._came = True
        if not self._held:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal wait for the end of the block.

        Raises:
            KeyboardInterrupt: one came; at the end of the block.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            raise KeyboardInterrupt


def end_by(handler: Any) -> None:
    """Handle the signals that end the node."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
