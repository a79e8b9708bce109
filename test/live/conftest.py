"""One `llmseg live` server in a process of its own, as a user starts it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

START_S = 120.0  # loading the model on a busy machine
COMMAND = 'from llmseg_ros.cli.main import main; main()'


class LiveServer:
    """`llmseg live` on a free port; it can be killed and started again on the same."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        self.log = folder / 'live.log'
        self._command = [sys.executable, '-c', COMMAND, 'live', '--port', str(self.port)]
        self._command += arguments
        self._folder = folder
        self.start()

    def start(self) -> None:
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder
            )

    def wait(self) -> str:
        """Return the address it prints, once it does."""
        end = time.monotonic() + START_S
        while 'http://' not in (said := self.said()):
            assert self.process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)
        return next(line for line in said.splitlines() if line.startswith('http://'))

    def said(self) -> str:
        return self.log.read_text(errors='replace')

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope='module')
def server(
    tmp_path_factory: pytest.TempPathFactory, fast_config: Path, photographs: Path
) -> Iterator[LiveServer]:
    """Three photographs with the smallest model, and a class that none of them shows."""
    arguments = (str(photographs / 'images'), '--classes', 'zebra', '--config', str(fast_config))
    server = LiveServer(tmp_path_factory.mktemp('live'), *arguments)
    yield server
    server.close()
