"""Input rate x image size x classes: output rate, drop rate, age of the results.

.venv/bin/python bench/node_load.py [--seconds 20] [-- ROS arguments of the node]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from node_rig import Rig, rig

from llmseg_ros.files import shipped_path

RATES_HZ = (1.0, 5.0, 30.0)
SIZES = ((640, 480), (1280, 720))
CLASS_COUNTS = (5, 80)


def main() -> None:
    """Measure all cases on one node and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('ros_arguments', nargs='*')
    arguments = parser.parse_args()
    lines = shipped_path('config/classes/coco_object.txt').read_text().splitlines()
    names = [line for line in lines if line and not line.startswith('#')]
    names.sort(key=lambda name: name != 'cat')  # the frame's: where nothing is found no CRF runs
    print('| size | classes | in, Hz | out, Hz | dropped | age p50, ms | age p95, ms |')
    print('|---|---|---|---|---|---|---|')
    with rig(*arguments.ros_arguments) as made:
        made.listen()
        for (width, height), count in itertools.product(SIZES, CLASS_COUNTS):
            made.set_classes(names[:count])
            made.film(width, height, 5.0, 3.0, False)  # the first frames of a size are slow
            for rate_hz in RATES_HZ:
                row = measure(made, width, height, rate_hz, arguments.seconds)
                print(f'| {width}x{height} | {count} | {rate_hz:g} | {row} |', flush=True)
        stages = {k: v for k, v in made.values.items() if k.endswith(' ms')}
        print('\nlast 100 frames:', stages)


def measure(made: Rig, width: int, height: int, rate_hz: float, seconds: float) -> str:
    """Return one row's measurements."""
    dropped = made.count('dropped')
    made.arrivals.clear()
    sent = made.film(width, height, rate_hz, seconds, False)
    ages_ms = 1000 * np.array([age for _, age in made.arrivals])
    dropped = made.count('dropped') - dropped
    p50, p95 = np.percentile(ages_ms, (50, 95))
    return f'{len(ages_ms) / seconds:.1f} | {100 * dropped / sent:.0f} % | {p50:.0f} | {p95:.0f}'


if __name__ == '__main__':
    main()
