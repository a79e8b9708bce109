"""How many frames reach the node's callback, by the Fast DDS profiles of camera and node.

Runs each case in a process of its own, since Fast DDS reads its profile once; 16 cases of
--seconds each, and the loading of the node:
.venv/bin/python bench/node_delivery.py [--seconds 60] [--rate 30] [--runs 1]
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from node_rig import rig

from llmseg_ros.files import shipped_path
from llmseg_ros.ros.transport import SHARED_PROFILE, UDP_PROFILE

SIZES = ((640, 480), (1280, 720))
NODE_PROFILES = {'shared memory': SHARED_PROFILE, 'UDP': UDP_PROFILE}


def main() -> None:
    """Measure all cases, or the one named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--rate', type=float, default=30.0, help='of the camera, in Hz')
    parser.add_argument('--runs', type=int, default=1, help='of every case')
    parser.add_argument('--case', nargs=5, help='width, height, profile, reliable, node profile')
    arguments = parser.parse_args()
    if arguments.case:
        *numbers, node = arguments.case
        print(json.dumps(measure(*map(int, numbers), node, arguments.rate, arguments.seconds)))
        return
    print('| frame | camera: profile | camera: QoS | node receives by | sent | arrived |')
    print('|---|---|---|---|---|---|')
    for (width, height), profile, reliable, node in itertools.product(
        SIZES, (0, 1), (0, 1), NODE_PROFILES
    ):
        case = [*(str(value) for value in (width, height, profile, reliable)), node]
        options = ['--seconds', str(arguments.seconds), '--rate', str(arguments.rate)]
        command = [sys.executable, __file__, *options, '--case', *case]
        arrived = []
        for _ in range(arguments.runs):
            answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            sent, received = json.loads(answer.stdout.splitlines()[-1])
            arrived.append(received)
        print(
            f'| {width}x{height} rgb8 | {"shipped" if profile else "none"} '
            f'| {"reliable" if reliable else "best effort"} | {node} | {sent} '
            f'| {", ".join(map(str, arrived))} |',
            flush=True,
        )


def measure(
    width: int, height: int, profile: int, reliable: int, node: str, rate_hz: float, seconds: float
) -> tuple[int, int]:
    """Return how many frames were sent and how many the node counted; nobody wants results."""
    with tempfile.TemporaryDirectory() as folder:
        # A copy, or the node would take it for its own default and choose for itself.
        own = shutil.copy(shipped_path(NODE_PROFILES[node]), Path(folder) / 'profile.xml')
        options = ('-p', 'imagenet.model:=lite0')
        with rig(*options, profile=bool(profile), node_profile=str(own)) as made:
            before = made.count('in')
            sent = made.film(width, height, rate_hz, seconds, bool(reliable))
            return sent, made.count('in') - before


if __name__ == '__main__':
    main()
