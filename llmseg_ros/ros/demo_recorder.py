"""The demo's third process: writes what the node sends into a bag until it is asked to end."""

from __future__ import annotations

import argparse
import signal
import time
from functools import partial
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import Image

from llmseg_ros.bags.topics import (
    DIAGNOSTICS_TOPIC,
    LABEL_MAP_TOPIC,
    LABELS_TOPIC,
    MASKS_TOPIC,
    RECEIVED_TYPES,
    message_types,
)
from llmseg_ros.msg import ClassMaskArray, LabelMap

SILENCE_SECONDS = 2.0  # the node is done when no labels came for so long
LONGEST_SECONDS = 15.0
CLASSES = {
    LABELS_TOPIC: Image,
    MASKS_TOPIC: ClassMaskArray,
    LABEL_MAP_TOPIC: LabelMap,
    DIAGNOSTICS_TOPIC: DiagnosticArray,
}
QUEUE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def main() -> None:
    """Record into the bag named on the command line until SIGTERM, and what is still to come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bag', type=Path)
    arguments = parser.parse_args()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with Writer(arguments.bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        recorder = Recorder(writer)
        signal.signal(signal.SIGTERM, recorder.end)
        while not recorder.done():
            rclpy.spin_once(recorder, timeout_sec=0.1)
    rclpy.try_shutdown()


class Recorder(Node):
    """Write the messages of the demo's topics, as they come over the wire, into a bag."""

    def __init__(self, writer: Writer) -> None:
        super().__init__('demo_recorder')
        self._writer = writer
        self._last = time.monotonic()
        self._end: float | None = None
        types = message_types()
        for topic, name in RECEIVED_TYPES.items():
            connection = writer.add_connection(topic, name, typestore=types)
            qos = LATCHED if topic == LABEL_MAP_TOPIC else QUEUE
            write = partial(self._write, connection)
            self.create_subscription(CLASSES[topic], topic, write, qos, raw=True)

    def end(self, *_: object) -> None:
        """End once no labels have come for a while."""
        self._end = time.monotonic()

    def done(self) -> bool:
        """Tell whether the end was asked for and has come."""
        if self._end is None:
            return False
        now = time.monotonic()
        return now - self._last > SILENCE_SECONDS or now - self._end > LONGEST_SECONDS

    def _write(self, connection: Connection, raw: bytes) -> None:
        self._writer.write(connection, time.time_ns(), raw)
        if connection.topic == LABELS_TOPIC:
            self._last = time.monotonic()


if __name__ == '__main__':
    main()
