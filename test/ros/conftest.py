"""A ROS graph of the tests' own, the node in a process of its own, and one node to talk to it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ANSWER_S = 20.0
HUMBLE = str(Path(__file__).with_name('humble.py'))
MATCHING_S = 0.3
OLD_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE value is used'  # says Kilted; Jazzy reads no other
START_S = 240.0  # loading the model on a busy machine


class SegProcess:
    """A node, seg unless another is named, running as robots run it.

    Attributes:
        begin: of Python's arguments; with LLMSEG_TEST_HUMBLE set, what takes from rclpy first.
    """

    begin = (HUMBLE,) if os.environ.get('LLMSEG_TEST_HUMBLE') else ('-m',)

    def __init__(self, folder: Path, *ros_arguments: str, module: str = 'node') -> None:
        self.log_path = folder / f'{module}.log'
        with self.log_path.open('wb') as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *self.begin,
                    f'llmseg_ros.ros.{module}',
                    '--ros-args',
                    *ros_arguments,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    @property
    def log(self) -> str:
        lines = self.log_path.read_text(errors='replace').splitlines(keepends=True)
        return ''.join(line for line in lines if OLD_VARIABLE not in line)

    def wait_for_log(self, text: str, timeout_s: float = START_S) -> None:
        """Return once the log has the text."""
        end = time.monotonic() + timeout_s
        while text not in self.log:
            assert self.process.poll() is None, f'the node ended:\n{self.log}'
            assert time.monotonic() < end, f'no {text!r} within {timeout_s} s:\n{self.log}'
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> tuple[int, float]:
        """Send a signal; return the exit code and the seconds the end took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(30)
        return code, time.monotonic() - begin

    def shared_memory(self) -> list[Path]:
        """Return the files of shared memory that Fast DDS made for this process."""
        links = []
        for link in Path(f'/proc/{self.process.pid}/fd').iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(link.readlink())
        lock_name = 'fast(rtps|dds)_[0-9a-f]{16}_el'  # of 2 and of 3
        locks = [link for link in links if re.fullmatch(lock_name, link.name)]
        return [lock.with_name(lock.name.removesuffix('_el')) for lock in locks]

    def stop(self) -> None:
        """End it in order, as what is killed leaves 35 MB of shared memory behind."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Peer:
    """A node of the tests' own, with shorthands for waiting."""

    def __init__(self, context: Any) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.node = rclpy.create_node('peer', context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._of_this_test: list[Callable[[], object]] = []

    def spin_until(self, condition: Callable[[], object], timeout_s: float = ANSWER_S) -> None:
        """Handle messages until the condition holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f'not within {timeout_s} s'
            self._executor.spin_once(timeout_sec=0.02)

    def spin_for(self, seconds: float) -> None:
        """Handle messages for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def call(self, kind: type, name: str, request: Any, timeout_s: float = ANSWER_S) -> Any:
        """Call a service and return its response.

        A service that has heard of who sends requests, but not yet of who reads the answers, waits
        0.1 s and drops its answer: on a busy machine that happens when the two have just met.
        """
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        if not client.service_is_ready():
            assert client.wait_for_service(timeout_s), f'no service {name}'
            self.spin_for(MATCHING_S)
        answer = client.call_async(request)
        self.spin_until(answer.done, timeout_s)
        return answer.result()

    def collect(self, kind: type, topic: str, qos: Any = 10) -> list[Any]:
        """Subscribe for this test; return the list that messages are appended to."""
        messages: list[Any] = []
        subscription = self.node.create_subscription(kind, topic, messages.append, qos)
        self._of_this_test.append(lambda: self.node.destroy_subscription(subscription))
        self.spin_until(lambda: self.node.count_publishers(topic))
        return messages

    def publisher(self, kind: type, topic: str, qos: Any = 10) -> Any:
        """Return a publisher for this test that is heard."""
        publisher = self.unheard_publisher(kind, topic, qos)
        self.spin_until(publisher.get_subscription_count)
        return publisher

    def unheard_publisher(self, kind: type, topic: str, qos: Any = 10) -> Any:
        """Return a publisher for this test at once, before anyone can hear it."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self._of_this_test.append(lambda: self.node.destroy_publisher(publisher))
        return publisher

    def diagnostics(self, name: str) -> dict[str, str]:
        """Return what a node says next: its message, and its values by name."""
        from diagnostic_msgs.msg import DiagnosticArray

        heard = self.collect(DiagnosticArray, '/diagnostics')
        found: list[Any] = []

        def said() -> bool:
            found[:] = [s for message in heard for s in message.status if s.name == name]
            return bool(found)

        self.spin_until(said)
        status = found[-1]
        return {'message': status.message} | {pair.key: pair.value for pair in status.values}

    def tidy(self) -> None:
        """Remove what was for one test."""
        while self._of_this_test:
            self._of_this_test.pop()()


@pytest.fixture(scope='session')
def graph() -> Iterator[None]:
    """Put this process and those it starts into a ROS domain of their own."""
    from llmseg_ros.ros.isolation import isolated_graph

    with isolated_graph() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope='session')
def context(graph: None) -> Iterator[Any]:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture(scope='session')
def only_peer(context: Any) -> Peer:
    return Peer(context)


@pytest.fixture
def peer(only_peer: Peer) -> Iterator[Peer]:
    """Give the tests' node; its publishers and subscriptions go with the test."""
    yield only_peer
    only_peer.tidy()


@pytest.fixture
def stranger(graph: None) -> Iterator[Peer]:
    """Give a node nobody in the graph knows of yet, as of a process just started."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    yield Peer(context)
    rclpy.shutdown(context=context)


@pytest.fixture(scope='session')
def seg(context: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SegProcess]:
    """Start the node with the embedded encoder; one process for all tests that need no other."""
    from llmseg_ros.files import shipped_path

    config = str(shipped_path('config/offline.yaml'))
    options = ('-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[160]')
    options += ('-p', 'node.depth:=/depth/image')
    process = SegProcess(tmp_path_factory.mktemp('seg'), '--params-file', config, *options)
    process.wait_for_log('listening to /image')
    yield process
    process.stop()


@pytest.fixture
def humble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the nodes of this test without the names that Humble's rclpy lacks."""
    import rclpy.lifecycle.publisher

    if 'event_handler' in Path(rclpy.lifecycle.publisher.__file__).read_text():
        pytest.skip('from Kilted on rclpy itself is made of names that Humble lacks')
    monkeypatch.setattr(SegProcess, 'begin', (HUMBLE,))


@pytest.fixture(scope='session')
def seg_process() -> type[SegProcess]:
    """Give what starts a node, for fixtures that keep one over several tests."""
    return SegProcess


@pytest.fixture
def start_seg(graph: None, tmp_path: Path) -> Iterator[Callable[..., SegProcess]]:
    """Start nodes that are ended with the test; unasked they load no model."""
    started: list[SegProcess] = []

    def start(*ros_arguments: str, autostart: bool = False) -> SegProcess:
        folder = tmp_path / f'seg{len(started)}'
        folder.mkdir()
        option = f'node.autostart:={"true" if autostart else "false"}'
        started.append(SegProcess(folder, *ros_arguments, '-p', option))
        return started[-1]

    yield start
    for process in started:
        process.stop()


def resident_kib(pid: int) -> int:
    """Return the memory of a process that is resident, in KiB."""
    for line in Path(f'/proc/{pid}/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1])
    raise OSError(f'no memory known of process {pid}')
