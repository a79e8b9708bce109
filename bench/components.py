"""Connected components: how many there are by least area, and the milliseconds they take.

    .venv/bin/python bench/components.py IMAGES --classes coco.txt

The times, of the CPU on one thread, are of 640x480 pixels that belong to 20 classes everywhere, and
to 3 in a tenth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.cli.common import parse_classes
from llmseg_ros.formats.image_files import images_below, read_image_file
from llmseg_ros.method.components import LEAST_SHARE, find_components
from llmseg_ros.segmentation import ClassResult, Segmentation
from llmseg_ros.segmenter import Segmenter

SHARES = (0.0, 0.0001, 0.0005, LEAST_SHARE, 0.002, 0.005, 0.01)
HEIGHT, WIDTH = 480, 640
REPEATS = 60


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', type=Path, nargs='?', help='folder of pictures')
    parser.add_argument('--classes', default='cat, cup', help='names or a class file')
    parser.add_argument('--config', default='config/offline.yaml')
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    for classes, share in ((20, 1.0), (3, 0.1)):
        made = blobs(classes, share)
        laps = []
        for _ in range(REPEATS):
            begin = time.process_time()
            found = find_components(made)
            laps.append(1000 * (time.process_time() - begin))
        p50, least = np.median(laps), min(laps)
        print(f'{classes} classes: {len(found)} components, ms p50 {p50:.1f}, least {least:.1f}')
    if arguments.images:
        count(arguments.images, arguments.classes, arguments.config)


def count(folder: Path, classes: str, config: str) -> None:
    """Print components and their share of the classes' pixels, by least area."""
    segmenter = Segmenter.from_config(config, parse_classes(classes))
    paths = images_below(folder, Path('/nowhere'))
    results = [segmenter.segment(read_image_file(path)) for path in paths]
    covered = sum(c.area / result.labels.size for result in results for c in result.found)
    for share in SHARES:
        found = [
            (one.area / result.labels.size)
            for result in results
            for one in find_components(result, share, most=1 << 30)
        ]
        kept = sum(found) / covered
        print(f'{share:7} {len(found) / len(paths):6.2f} an image, {100 * kept:5.1f} % of pixels')


def blobs(classes: int, share: float) -> Segmentation:
    """Return a segmentation of so many classes in blobs, which have a share of the image."""
    rng = np.random.default_rng(0)
    noise_chw = np.stack([smooth(rng) for _ in range(classes)])
    best = noise_chw.max(axis=0)
    labels = (noise_chw.argmax(axis=0) + 1).astype(np.uint16)
    labels[best < np.quantile(best, 1 - share)] = 0
    results = []
    for number in range(1, classes + 1):
        mask = (labels == number).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        area = int(np.count_nonzero(mask))
        results.append(ClassResult(number, str(number), 0.5, area, (x, y, width, height)))
    confidence = rng.random(labels.shape, dtype=np.float32)
    return Segmentation(labels, confidence, tuple(results), 1, {})


def smooth(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (H, W) noise with features of some 40 pixels."""
    noise = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 15))


if __name__ == '__main__':
    main()
