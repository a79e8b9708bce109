"""How long the node's services take to answer while it segments without a pause.

.venv/bin/python bench/node_services.py [--calls 300] [--rate 30] [-- ROS arguments of the node]
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext

import numpy as np
from llmseg_ros.srv import GetClasses, SetClasses
from node_rig import Rig, rig, time_call

PAUSE_S = 0.1  # between calls, and a random part of as much again: no frame's rhythm
LISTS = (('cat', 'person', 'chair'), ('cat', 'person', 'table'))  # described already, in turns


def main() -> None:
    """Call the services beside a camera and print how long they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--calls', type=int, default=300)
    parser.add_argument('--rate', type=float, default=30.0, help='of the camera, in Hz')
    parser.add_argument('ros_arguments', nargs='*')
    arguments = parser.parse_args()
    with rig(*arguments.ros_arguments) as made:
        made.listen()
        for names in LISTS:
            made.set_classes(names)
        for busy in (False, True):
            with made.filming(arguments.rate) if busy else nullcontext():
                time.sleep(3)
                run(made, arguments.calls, 'frames come' if busy else 'no frames')


def run(made: Rig, calls: int, when: str) -> None:
    """Time two services, and print what the node does beside."""
    get = made.node.create_client(GetClasses, '/seg/get_classes')
    put = made.node.create_client(SetClasses, '/seg/set_classes')
    got, set_ms = [], []
    random = np.random.default_rng(0)
    first = len(made.arrivals)
    begin = time.monotonic()
    for index in range(calls):
        time.sleep(PAUSE_S * (1 + random.random()))
        got.append(time_call(get, GetClasses.Request()))
        if index % 5 == 0:
            names = LISTS[index // 5 % len(LISTS)]
            set_ms.append(time_call(put, SetClasses.Request(names=list(names))))
    seconds = time.monotonic() - begin
    print(f'{when}: {(len(made.arrivals) - first) / seconds:.1f} results/s', flush=True)
    for name, values in (('get_classes', got), ('set_classes', set_ms)):
        p50, p95, p99, most = np.percentile(values, (50, 95, 99, 100))
        print(
            f'  {name}: {len(values)} calls, ms p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, '
            f'most {most:.1f}',
            flush=True,
        )


if __name__ == '__main__':
    main()
