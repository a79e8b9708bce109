"""How many frames reach the node's callback: with and without the shipped Fast DDS profile.

Runs each case in a process of its own, since Fast DDS reads its profile once:
.venv/bin/python bench/node_delivery.py [--seconds 60]
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys

from node_rig import rig

SIZES = ((640, 480), (1280, 720))
RATE_HZ = 30.0


def main() -> None:
    """Measure all cases, or the one named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--case', nargs=4, help='width, height, profile, reliable')
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*map(int, arguments.case), arguments.seconds)))
        return
    print('| frame | profile | QoS | sent | reached the callback |')
    print('|---|---|---|---|---|')
    for (width, height), profile, reliable in itertools.product(SIZES, (1, 0), (0, 1)):
        case = [str(value) for value in (width, height, profile, reliable)]
        command = [sys.executable, __file__, '--seconds', str(arguments.seconds), '--case', *case]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        sent, received = json.loads(answer.stdout.splitlines()[-1])
        print(
            f'| {width}x{height} rgb8 | {"shipped" if profile else "none"} '
            f'| {"reliable" if reliable else "best effort"} | {sent} '
            f'| {received} ({100 * received / sent:.1f} %) |',
            flush=True,
        )


def measure(
    width: int, height: int, profile: int, reliable: int, seconds: float
) -> tuple[int, int]:
    """Return how many frames were sent and how many the node counted; nobody wants results."""
    reliability = 'reliable' if reliable else 'best_effort'
    options = ('-p', f'node.image_reliability:={reliability}', '-p', 'imagenet.model:=lite0')
    with rig(*options, profile=bool(profile)) as made:
        before = made.count('in')
        sent = made.film(width, height, RATE_HZ, seconds, bool(reliable))
        return sent, made.count('in') - before


if __name__ == '__main__':
    main()
