"""When and by what a node's process ends."""

from __future__ import annotations

import os
import signal
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


def end_by(handler: Any) -> None:
    """Handle the signals that end the node."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
