"""The demo: a bag of camera frames through the real node over DDS, every part a process."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmseg_ros.demo.bags import IMAGE_TOPIC, write_camera_bag
from llmseg_ros.demo.scenes import camera_frames
from llmseg_ros.ros.isolation import isolated_graph

FIRST_CLASSES = ('cat', 'cup', 'person', 'rocket', 'dog', 'chair')
LATER_CLASSES = ('rocket', 'person', 'cup', 'cat', 'table', 'dog')
OWN_FILES = ('frames', 'received', 'logs', 'contact_sheet.png', 'summary.json', 'sent.json')
STOP_SECONDS = 5.0
DRAIN_SECONDS = 30.0  # for the recorder to hear what is still under way


class DemoError(RuntimeError):
    """The demo failed; the message is one sentence that says where to look."""


@dataclass(frozen=True)
class Recording:
    """What a run of the demo leaves for its report.

    Attributes:
        frames: bag of the camera frames.
        received: bag of what the third process received.
        sent: JSON file, when each frame went out.
        peak_memory_mb: of the largest of the processes.
    """

    frames: Path
    received: Path
    sent: Path
    peak_memory_mb: float


def prepare_folder(folder: Path) -> None:
    """Make the output folder; what an earlier demo left in it goes, all else stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*(folder / name for name in OWN_FILES), *folder.glob('overlay_*.png')):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / 'logs').mkdir()


def record_demo(folder: Path, config: Path, per_scene: int, rate: float) -> Recording:
    """Play the frames into the node and record what it answers, into `folder`.

    Ctrl-C, SIGTERM and SIGHUP end every process that was started.

    Raises:
        DemoError: one of the processes failed.
    """
    folder = folder.resolve()
    frames, received, sent = folder / 'frames', folder / 'received', folder / 'sent.json'
    print(f'writing {frames}', flush=True)
    write_camera_bag(frames, (frame for _, frame in camera_frames(per_scene)), rate)
    with ExitStack() as running, interruptible(), isolated_graph() as graph:
        environment = {**os.environ, **graph}
        print('starting the node, the recorder and the camera', flush=True)
        node = running.enter_context(process('node', node_arguments(config), folder, environment))
        recorder = running.enter_context(
            process('demo_recorder', [str(received)], folder, environment)
        )
        arguments = [str(frames), '--log', str(sent)]
        arguments += ['--classes', *FIRST_CLASSES, '--then', *LATER_CLASSES]
        camera = running.enter_context(process('demo_camera', arguments, folder, environment))
        wait_for_camera(camera, {'node': node, 'demo_recorder': recorder}, folder)
        recorder.terminate()
        check(recorder.wait(DRAIN_SECONDS), 'demo_recorder', folder)
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Recording(frames, received, sent, kilobytes / 1024)


def node_arguments(config: Path) -> list[str]:
    """Return the command line of the node: its parameters and where the images come from."""
    return ['--ros-args', '--params-file', str(config.resolve()), '-r', f'image:={IMAGE_TOPIC}']


@contextmanager
def process(
    module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of llmseg_ros.ros; it writes to logs/MODULE.log and ends with the block."""
    command = [sys.executable, '-m', f'llmseg_ros.ros.{module}', *arguments]
    with open(folder / 'logs' / f'{module}.log', 'wb') as log:
        started = None
        try:
            with deferring_interrupts():  # one in the middle of the start would leave it behind
                # Away from the source tree, whose llmseg_ros has no messages, and in a session of
                # its own, so that Ctrl-C reaches it through us alone.
                started = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
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


def wait_for_camera(
    camera: subprocess.Popen[bytes], others: Mapping[str, subprocess.Popen[bytes]], folder: Path
) -> None:
    """Wait until the camera has played its bag, saying how far it is.

    Raises:
        DemoError: the camera or one of the others failed.
    """
    said = ''
    while camera.poll() is None:
        for name, other in others.items():
            if other.poll() is not None:
                check(other.returncode or 1, name, folder)
        now = last_line(folder / 'logs' / 'demo_camera.log')
        if now != said and (sys.stdout.isatty() or not said):
            print(now, flush=True)
        said = now
        time.sleep(0.2)
    check(camera.returncode, 'demo_camera', folder)


def last_line(log: Path) -> str:
    """Return the last complete line of a log, empty where there is none."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
    return next((line.strip() for line in reversed(lines) if line.endswith('\n')), '')


def check(code: int, module: str, folder: Path) -> None:
    """Raise DemoError where a process ended with a code other than 0."""
    if code:
        log = folder / 'logs' / f'{module}.log'
        raise DemoError(f'{module} ended with code {code}, see {log}: {last_line(log)}')


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
