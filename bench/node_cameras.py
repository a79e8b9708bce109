"""Four cameras in one node: memory, labels, shares, harm done by one to the others, services.

.venv/bin/python bench/node_cameras.py [--seconds 20] [--calls 200] [-- ROS arguments of the node]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
from llmseg_ros.srv import GetClasses
from node_rig import Rig, rig, time_call, wait_until
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.ros.conversions import array_to_image

NAMES = ('front', 'rear', 'left', 'right')
CLASSES = ('cat', 'cup', 'person', 'rocket')
RATE_HZ = 30.0
LOW_HZ = 1.0  # that node.max_rate is tried with
UNEQUAL_HZ = dict(zip(NAMES, (30.0, 30.0, 5.0, 1.0), strict=True))
PICTURES = ('chelsea', 'coffee', 'astronaut', 'rocket')
Rates = Mapping[str, float]


def main() -> None:
    """Measure a node with one camera, then one with four, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=20.0, help='of each measurement')
    parser.add_argument('--calls', type=int, default=200, help='of the service')
    parser.add_argument('ros_arguments', nargs='*')
    arguments = parser.parse_args()
    with rig(*arguments.ros_arguments) as made:
        made.set_classes(CLASSES)
        expected = label_pictures(made, '/image', '/seg/labels')
        made.listen()
        with made.filming(RATE_HZ):
            time.sleep(arguments.seconds)
        alone, rate_hz = made.memory_mib(), float(made.values['results per second'])
    print(f'one camera: {alone:.0f} MiB, {rate_hz:.1f} results/s', flush=True)
    cameras = f'node.cameras:=[{", ".join(NAMES)}]'
    with rig('-p', cameras, *arguments.ros_arguments) as made:
        made.set_classes(CLASSES)
        for name in NAMES:
            got = label_pictures(made, f'/seg/{name}/image', f'/seg/{name}/labels')
            same = all(map(np.array_equal, got, expected))
            print(f'{name}: labels {"are" if same else "ARE NOT"} those of one camera', flush=True)
        measure(made, arguments.seconds, arguments.calls, alone)


def measure(made: Rig, seconds: float, calls: int, alone_mib: float) -> None:
    """Print what four cameras do at equal and other rates, and with one that fails."""
    arrivals = {name: made.listen(f'/seg/{name}/labels') for name in NAMES}
    equal = dict.fromkeys(NAMES, RATE_HZ)
    shares = run(made, arrivals, equal, seconds, 'all at 30 Hz')
    mean = np.mean(list(shares.values()))
    furthest = max(abs(share - mean) for share in shares.values()) / mean
    print(f'  furthest from the mean: {100 * furthest:.1f} %')
    together = made.memory_mib()
    print(f'  memory {together:.0f} MiB, {together / alone_mib:.3f} of one', flush=True)
    run(made, arrivals, UNEQUAL_HZ, seconds, 'at 30, 30, 5 and 1 Hz')
    without_last = dict.fromkeys(NAMES[:-1], RATE_HZ)
    run(made, arrivals, without_last, seconds, f'{NAMES[-1]} dead')
    run(made, arrivals, equal, seconds, f'{NAMES[-1]} rejected', rejected=NAMES[-1:])
    made.set_parameter('node.max_rate', LOW_HZ)
    run(made, arrivals, equal, seconds, f'all at 30 Hz, node.max_rate {LOW_HZ}')
    made.set_parameter('node.max_rate', 0.0)
    with contextlib.ExitStack() as filming:
        for name in NAMES:
            filming.enter_context(made.filming(RATE_HZ, f'/seg/{name}/image'))
        time.sleep(3)
        time_services(made, calls)


def label_pictures(made: Rig, image: str, labels: str) -> list[NDArray[np.uint8]]:
    """Return the labels of each picture sent on a topic, minutes apart by their stamps."""
    received: dict[int, Image] = {}
    subscription = made.node.create_subscription(
        Image, labels, lambda m: received.setdefault(m.header.stamp.sec, m), 10
    )
    publisher = made.node.create_publisher(Image, image, 5)
    found = []
    for number, picture in enumerate(PICTURES, 1):
        rgb = np.ascontiguousarray(getattr(data, picture)()[..., :3])
        message = array_to_image(rgb, 'rgb8', Header(frame_id='camera'))
        message.header.stamp.sec = 100 * number
        while 100 * number not in received:
            publisher.publish(message)
            time.sleep(0.3)
        found.append(np.frombuffer(received[100 * number].data, np.uint8))
    made.node.destroy_publisher(publisher)
    made.node.destroy_subscription(subscription)
    return found


def run(
    made: Rig,
    arrivals: Mapping[str, list[tuple[float, float]]],
    rates_hz: Rates,
    seconds: float,
    what: str,
    rejected: Sequence[str] = (),
) -> dict[str, float]:
    """Film with several cameras at once; print and return the results a second of each."""
    shares = {}
    with contextlib.ExitStack() as filming:
        for name, rate_hz in rates_hz.items():
            encoding = 'theora' if name in rejected else 'rgb8'
            filming.enter_context(made.filming(rate_hz, f'/seg/{name}/image', encoding))
        time.sleep(3)
        begin = {name: len(arrived) for name, arrived in arrivals.items()}
        worked = made.cpu_seconds()
        time.sleep(seconds)
        worked = made.cpu_seconds() - worked
        now = {name: list(arrived[begin[name] :]) for name, arrived in arrivals.items()}
    print(f'{what}:')
    for name, arrived in now.items():
        shares[name] = len(arrived) / seconds
        ages_ms = 1000 * np.array([age for _, age in arrived] or [np.nan])
        p50, p95 = np.percentile(ages_ms, (50, 95))
        print(f'  {name}: {shares[name]:.2f} results/s, age ms p50 {p50:.0f}, p95 {p95:.0f}')
    together = f'{sum(shares.values()):.2f} results/s, {worked / seconds:.2f} CPUs'
    print(f'  together {together}', flush=True)
    return shares


def time_services(made: Rig, calls: int) -> None:
    """Print how long the class list takes to be told."""
    client = made.node.create_client(GetClasses, '/seg/get_classes')
    wait_until(client.service_is_ready)
    random = np.random.default_rng(0)
    took_ms = []
    for _ in range(calls):
        time.sleep(0.1 * (1 + random.random()))  # no frame's rhythm
        took_ms.append(time_call(client, GetClasses.Request()))
    p50, p95, most = np.percentile(took_ms, (50, 95, 100))
    print(f'get_classes, four at 30 Hz: ms p50 {p50:.1f}, p95 {p95:.1f}, most {most:.1f}')


if __name__ == '__main__':
    main()
