"""The node in a process of its own, a camera beside it, and what both see."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from llmseg_ros.srv import SetClasses
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.isolation import isolated_graph
from llmseg_ros.ros.transport import PROFILE_VARIABLES

LOAD_S = 300.0


@dataclass
class Rig:
    """A graph with the node under test.

    Attributes:
        node: of this process.
        seg: process of the node under test.
        values: the newest diagnostics of the node.
        message: their one sentence.
        arrivals: seconds by the monotonic clock, and age in seconds, of every label image.
    """

    node: Node
    seg: subprocess.Popen[bytes]
    values: dict[str, str] = field(default_factory=dict)
    message: str = ''
    arrivals: list[tuple[float, float]] = field(default_factory=list)

    def count(self, name: str) -> int:
        """Return one of the node's counts of frames, not older than a second."""
        time.sleep(2.1)
        return int(self.values[f'frames {name}'])

    def memory_mib(self) -> float:
        """Return the node's resident memory."""
        for line in Path(f'/proc/{self.seg.pid}/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) / 1024
        raise OSError('the node is gone')

    def cpu_seconds(self) -> float:
        """Return the node's time on the processors so far."""
        after_name = Path(f'/proc/{self.seg.pid}/stat').read_text().rpartition(')')[2].split()
        return sum(map(int, after_name[11:13])) / os.sysconf('SC_CLK_TCK')

    def set_parameter(self, name: str, value: object) -> None:
        """Set one of the node's parameters."""
        client = self.node.create_client(SetParameters, '/seg/set_parameters')
        client.wait_for_service()
        parameter = Parameter(name, value=value).to_parameter_msg()
        time_call(client, SetParameters.Request(parameters=[parameter]))

    def listen(self, topic: str = '/seg/labels') -> list[tuple[float, float]]:
        """Subscribe to label images; return their arrivals, the rig's own unless told a topic."""
        arrivals = self.arrivals if topic == '/seg/labels' else []

        def note(message: Image) -> None:
            stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
            arrivals.append((time.monotonic(), time.time() - stamp))

        self.node.create_subscription(Image, topic, note, 10)
        return arrivals

    def set_classes(self, names: Sequence[str]) -> None:
        """Put a class list in force."""
        client = self.node.create_client(SetClasses, '/seg/set_classes')
        client.wait_for_service()
        time_call(client, SetClasses.Request(names=list(names)))

    def film(
        self,
        width: int,
        height: int,
        rate_hz: float,
        seconds: float,
        reliable: bool,
        ended: threading.Event | None = None,
        topic: str = '/image',
        encoding: str = 'rgb8',
    ) -> int:
        """Publish a photograph as a camera does, until `ended` is set; return how often."""
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        publisher = self.node.create_publisher(
            Image, topic, QoSProfile(depth=5, reliability=reliability)
        )
        pixels = cv2.resize(np.ascontiguousarray(data.chelsea()), (width, height))
        message = array_to_image(pixels, 'rgb8', Header(frame_id='camera'))
        message.encoding = encoding
        wait_until(lambda: publisher.get_subscription_count() > 0)
        time.sleep(1)
        begin = time.monotonic()
        frames = round(rate_hz * seconds)
        for index in range(frames):
            if ended and ended.is_set():
                frames = index
                break
            time.sleep(max(0.0, begin + index / rate_hz - time.monotonic()))
            message.header.stamp = self.node.get_clock().now().to_msg()
            publisher.publish(message)
        time.sleep(1)
        self.node.destroy_publisher(publisher)
        return frames

    @contextlib.contextmanager
    def filming(
        self, rate_hz: float, topic: str = '/image', encoding: str = 'rgb8'
    ) -> Iterator[None]:
        """Publish frames of 640x480 in the background until the end of the block."""
        ended = threading.Event()
        given = (640, 480, rate_hz, 1e6, False, ended, topic, encoding)
        camera = threading.Thread(target=self.film, args=given)
        camera.start()
        try:
            yield
        finally:
            ended.set()
            camera.join()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == '/seg':
                self.values = {pair.key: pair.value for pair in status.values}
                self.message = status.message


def wait_until(condition, timeout_s: float = LOAD_S) -> None:  # type: ignore[no-untyped-def]
    """Sleep until a condition holds.

    Raises:
        TimeoutError: it doesn't within the time.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f'not within {timeout_s} s')
        time.sleep(0.02)


def time_call(client: Client, request: object) -> float:
    """Return the milliseconds until a service has answered.

    Raises:
        TimeoutError: it has not.
    """
    answered = threading.Event()
    begin = time.perf_counter()
    client.call_async(request).add_done_callback(lambda _: answered.set())
    if not answered.wait(LOAD_S):
        raise TimeoutError(f'{client.srv_name} has not answered in {LOAD_S} s')
    return 1000 * (time.perf_counter() - begin)


@contextlib.contextmanager
def rig(*ros_arguments: str, profile: bool = True, node_profile: str = '') -> Iterator[Rig]:
    """Start the node under test.

    Args:
        ros_arguments: of the node.
        profile: whether this process, which films, has the shipped Fast DDS profile.
        node_profile: file of the node's own; empty leaves the choice to the node.
    """
    with isolated_graph() as environment:
        os.environ.update(environment)
        if not profile:
            for name in PROFILE_VARIABLES:
                os.environ.pop(name)
        command = [sys.executable, '-m', 'llmseg_ros.ros.node', '--ros-args', *ros_arguments]
        own = dict.fromkeys(PROFILE_VARIABLES, node_profile) if node_profile else {}
        seg = subprocess.Popen(
            command,
            cwd=tempfile.gettempdir(),
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, **own),
        )
        rclpy.init()
        node = Node('bench')
        made = Rig(node, seg)
        node.create_subscription(DiagnosticArray, '/diagnostics', made._on_diagnostics, 10)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spinning = threading.Thread(target=_spin, args=(executor,), daemon=True)
        spinning.start()
        try:
            wait_until(lambda: made.values.get('state') == 'active')
            yield made
        finally:
            seg.send_signal(signal.SIGINT)
            seg.wait(10)
            rclpy.try_shutdown()
            spinning.join(5)


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()
