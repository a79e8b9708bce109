"""The demo's camera: plays a bag of images over DDS and changes the class list midway."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from llmseg_ros.bags.reading import opened_bag
from llmseg_ros.bags.topics import CLASSES_TOPIC, IMAGE_TOPIC, LABEL_MAP_TOPIC, LABELS_TOPIC
from llmseg_ros.msg import ClassList, LabelMap
from llmseg_ros.ros import qos

READY_SECONDS = 240.0  # on a machine busy with other things
FIRST_ANSWER_SECONDS = 20.0


def main() -> None:
    """Play the bag named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bag', type=Path)
    parser.add_argument('--classes', nargs='+', required=True, help='class list to begin with')
    parser.add_argument('--then', nargs='+', required=True, help='class list from the middle on')
    parser.add_argument('--log', type=Path, required=True, help='JSON file: when frames went out')
    arguments = parser.parse_args()
    rclpy.init()
    camera = Camera()
    camera.announce(arguments.classes)
    camera.wait_for_the_others(arguments.classes)
    sent = camera.play(arguments.bag, arguments.then)
    log = {'rmw': rclpy.get_rmw_implementation_identifier(), 'sent': sent}
    arguments.log.write_text(json.dumps(log), encoding='utf-8')
    camera.spin_until(lambda: False, 1.0)  # best effort: what is under way needs us alive
    rclpy.try_shutdown()


class Camera(Node):
    """A camera driver with a class list to go with its images."""

    def __init__(self) -> None:
        super().__init__('demo_camera')
        self._images = self.create_publisher(Image, IMAGE_TOPIC, qos_profile_sensor_data)
        self._classes = self.create_publisher(ClassList, CLASSES_TOPIC, qos.LATCHED)
        self._names_in_force: set[str] = set()
        self._answered = False
        self.create_subscription(LabelMap, LABEL_MAP_TOPIC, self._on_label_map, qos.LATCHED)

    def announce(self, names: Sequence[str]) -> None:
        """Publish a class list."""
        message = ClassList(names=list(names))
        message.header.stamp = self.get_clock().now().to_msg()
        self._classes.publish(message)

    def wait_for_the_others(self, names: Sequence[str]) -> None:
        """Return once the node has the classes and listens, and somebody listens to the node.

        Raises:
            SystemExit: that took too long.
        """

        def ready() -> bool:
            return (
                self._names_in_force == set(names)
                and self._images.get_subscription_count() > 0
                and self.count_subscribers(LABELS_TOPIC) > 0
            )

        if not self.spin_until(ready, READY_SECONDS):
            raise SystemExit(f'the node did not take up the classes within {READY_SECONDS:.0f} s')

    def play(self, bag: Path, later_names: Sequence[str]) -> dict[int, int]:
        """Publish the images at the times of their bag; the first is waited for.

        Returns:
            When each image went out, by its time in the bag, both in nanoseconds.
        """
        sent: dict[int, int] = {}
        with opened_bag(bag) as reader:
            begin = time.monotonic()
            for index, (_, stamp, raw) in enumerate(reader.messages(reader.connections)):
                if index == reader.message_count // 2:
                    self.announce(later_names)
                due = begin + (stamp - reader.start_time) / 1e9
                self.spin_until(lambda: False, due - time.monotonic())
                sent[stamp] = time.time_ns()
                self._images.publish(raw)
                if index == 0:
                    self._wait_for_first_answer()
                    begin = time.monotonic()
                print(f'sent frame {index + 1} of {reader.message_count}', flush=True)
        return sent

    def spin_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Handle messages until the condition holds or the time is over; tell which it was."""
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))
        return True

    def _wait_for_first_answer(self) -> None:
        """Wait until the model has run once: its first run is slow, on every machine."""
        answers = self.create_subscription(Image, LABELS_TOPIC, self._on_labels, 1)
        self.spin_until(lambda: self._answered, FIRST_ANSWER_SECONDS)
        self.destroy_subscription(answers)

    def _on_label_map(self, message: LabelMap) -> None:
        self._names_in_force = {entry.name for entry in message.classes}

    def _on_labels(self, message: Image) -> None:
        self._answered = True


if __name__ == '__main__':
    main()
