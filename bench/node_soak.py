"""Frames at 30 Hz for a long time, class lists changing meanwhile: memory and age of results.

.venv/bin/python bench/node_soak.py [--frames 20000] [--changes-per-minute 1000]
    [-- ROS arguments of the node]
"""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np
from llmseg_ros.msg import ClassList
from node_rig import Rig, rig
from rclpy.qos import QoSProfile

RATE_HZ = 30.0
WARM_UP_S = 60.0  # allocators and caches fill first


def main() -> None:
    """Run the soak and print what grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=20_000)
    parser.add_argument('--changes-per-minute', type=float, default=0.0)
    parser.add_argument('ros_arguments', nargs='*')
    arguments = parser.parse_args()
    with rig(*arguments.ros_arguments) as made:
        made.listen()
        made.set_classes(['cat', 'cup', 'person'])
        ended = threading.Event()
        if arguments.changes_per_minute:
            period_s = 60 / arguments.changes_per_minute
            threading.Thread(target=change, args=(made, period_s, ended), daemon=True).start()
        made.film(640, 480, RATE_HZ, WARM_UP_S, False)
        made.arrivals.clear()
        samples = [made.memory_mib()]
        watching = threading.Thread(target=watch, args=(made, samples, ended), daemon=True)
        watching.start()
        sent = made.film(640, 480, RATE_HZ, arguments.frames / RATE_HZ, False)
        ended.set()
        watching.join()
        report(made, sent, samples)


def change(made: Rig, period_s: float, ended: threading.Event) -> None:
    """Publish ever new class lists until the end."""
    publisher = made.node.create_publisher(ClassList, '/seg/classes', QoSProfile(depth=1))
    number = 0
    while not ended.wait(period_s):
        number += 1
        publisher.publish(ClassList(names=['cat', f'thing {number % 300}', f'other {number}']))


def watch(made: Rig, samples: list[float], ended: threading.Event) -> None:
    """Sample the node's memory every ten seconds."""
    while not ended.wait(10.0):
        samples.append(made.memory_mib())


def report(made: Rig, sent: int, samples: list[float]) -> None:
    """Print the memory at the beginning and the end, and how old results were."""
    times, ages = np.array(made.arrivals).T
    processing = np.diff(times)
    print(f'frames sent {sent}, results {len(ages)}')
    print(f'memory MiB: first {samples[0]:.0f}, last {samples[-1]:.0f}, most {max(samples):.0f}')
    print(f'growth {100 * (samples[-1] / samples[0] - 1):.2f} %')
    print(f'time between results ms: p50 {1000 * np.median(processing):.0f}', end=', ')
    print(f'p95 {1000 * np.percentile(processing, 95):.0f}')
    p50, p95, most = 1000 * np.percentile(ages, (50, 95, 100))
    print(f'age ms: p50 {p50:.0f}, p95 {p95:.0f}, most {most:.0f}')
    share = np.mean(ages[1:] <= 2 * np.maximum(processing, np.median(processing)))
    print(f'results at most two processing times old: {100 * share:.2f} %')
    print({key: made.values[key] for key in made.values if key.startswith(('frames', 'class'))})
    time.sleep(0.1)


if __name__ == '__main__':
    main()
