"""How long the node's services take to answer while it segments without a pause.

.venv/bin/python bench/node_services.py [--calls 300] [--rate 30] [-- ROS arguments of the node]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext

import cv2
import numpy as np
from llmseg_ros.srv import GetClasses, SegmentImage, SetClasses
from node_rig import Rig, rig, time_call
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.ros.conversions import array_to_image

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
                segment(made, arguments.calls // 5, busy)


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
    tell('get_classes', got)
    tell('set_classes', set_ms)


def segment(made: Rig, calls: int, busy: bool) -> None:
    """Time calls of one image each beside as long a time without any."""
    client = made.node.create_client(SegmentImage, '/seg/segment')
    pixels = cv2.resize(np.ascontiguousarray(data.chelsea()), (640, 480))
    image = array_to_image(pixels, 'rgb8', Header())
    requests = {
        'segment, an image': SegmentImage.Request(image=image),
        'segment, an image and names': SegmentImage.Request(image=image, names=['cup', 'lamp']),
    }
    if busy:
        requests['segment, the newest frame'] = SegmentImage.Request(names=['cup', 'lamp'])
    random = np.random.default_rng(0)
    for name, request in requests.items():
        time_call(client, request)
        rates = []
        for calling in (False, True):
            first, begin, spent = len(made.arrivals), time.monotonic(), []
            for _ in range(calls):
                pause_s = 3 * PAUSE_S * (1 + random.random())
                if calling:
                    spent.append(time_call(client, request))
                    pause_s -= spent[-1] / 1000
                time.sleep(max(0.0, pause_s))
            seconds = time.monotonic() - begin
            rates.append((len(made.arrivals) - first) / seconds)
        tell(name, spent)
        without, beside = rates
        print(
            f'    {calls / seconds:.2f} calls/s; results/s {without:.2f} without them, '
            f'{beside:.2f} beside them, {(without - beside) * seconds / calls:.2f} less a call',
            flush=True,
        )


def tell(name: str, values: Sequence[float]) -> None:
    """Print how long calls took."""
    p50, p95, p99, most = np.percentile(values, (50, 95, 99, 100))
    print(
        f'  {name}: {len(values)} calls, ms p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, '
        f'most {most:.1f}',
        flush=True,
    )


if __name__ == '__main__':
    main()
