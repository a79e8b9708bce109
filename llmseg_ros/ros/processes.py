"""Parts of this package as processes of their own, none of which is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

STOP_SECONDS = 5.0
# As `python -m MODULE`, but not with the working folder first where modules are looked for: the
# source tree's llmseg_ros has no messages.
RUN_MODULE = (
    'import runpy, sys; sys.path.pop(0); sys.argv.pop(0); '
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


class ProcessError(RuntimeError):
    """A process failed; the message is one sentence that says where to look.

    Attributes:
        module: that ran in it.
        code: that it ended with.
        last_words: the last line of its log.
    """

    def __init__(self, module: str, code: int, log: Path, last_words: str) -> None:
        super().__init__(f'{module} ended with code {code}, see {log}: {last_words}')
        self.module, self.code, self.last_words = module, code, last_words


@contextmanager
def process(
    module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of llmseg_ros.ros; it writes to logs/MODULE.log and ends with the block."""
    command = [sys.executable, '-c', RUN_MODULE, f'llmseg_ros.ros.{module}', *arguments]
    with open(log_of(module, folder), 'wb') as log:
        started = None
        try:
            with deferring_interrupts():  # one in the middle of the start would leave it behind
                # In a session of its own, so that Ctrl-C reaches it through us alone.
                started = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            yield started
        finally:
            if started is not None:
                stop(started)


def stop(started: subprocess.Popen[bytes], patience: float = STOP_SECONDS) -> None:
    """End a process and wait for it; a second Ctrl-C does not leave it behind."""
    with ignoring_interrupts():
        if started.poll() is None:
            started.terminate()
            try:
                started.wait(patience)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def last_line(log: Path) -> str:
    """Return the last complete line of a log, empty where there is none."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
    return next((line.strip() for line in reversed(lines) if line.endswith('\n')), '')


def wait_for(
    leader: str,
    running: Mapping[str, subprocess.Popen[bytes]],
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Wait until the process of a module has ended, and hand on what it says.

    Raises:
        ProcessError: it failed, or one of the others ended before it.
    """
    said = ''
    while running[leader].poll() is None:
        for module, other in running.items():
            if module != leader and other.poll() is not None:
                check(other.returncode or 1, module, folder)
        now = last_line(log_of(leader, folder))
        if now != said:
            say(now)
        said = now
        time.sleep(0.1)
    check(running[leader].returncode, leader, folder)


def check(code: int, module: str, folder: Path) -> None:
    """Raise ProcessError where a process ended with a code other than 0."""
    if code:
        log = log_of(module, folder)
        raise ProcessError(module, code, log, last_line(log))


def log_of(module: str, folder: Path) -> Path:
    """Return where the process of a module writes to."""
    return folder / 'logs' / f'{module}.log'


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferring_interrupts() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP have their effect at the end of the block.

    By handlers, not by a mask: a process started in the block would inherit a mask and be deaf.
    """
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Hold off Ctrl-C, SIGTERM and SIGHUP until the block is through."""
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
