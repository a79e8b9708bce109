"""What the node allocates for the pixels of a frame on their way in and out, and how long it takes.

.venv/bin/python bench/node_copies.py
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.formats.image_messages import ENCODINGS, image_to_rgb
from llmseg_ros.ros.conversions import (
    array_to_image,
    confidence_to_image,
    labels_to_image,
    segmentation_to_masks,
)
from llmseg_ros.segmentation import ClassResult, Segmentation

WIDTH, HEIGHT = 640, 480
PIXELS = WIDTH * HEIGHT
REPEATS = 50


def main() -> None:
    """Print a line for each encoding and each output."""
    print('| what | bytes a pixel, at most at once | ms |')
    print('|---|---|---|')
    for name, run in (*inputs(), *outputs()):
        run()
        tracemalloc.start()
        kept = run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del kept
        begin = time.perf_counter()
        for _ in range(REPEATS):
            run()
        mean_ms = 1000 * (time.perf_counter() - begin) / REPEATS
        print(f'| {name} | {peak / PIXELS:.1f} | {mean_ms:.2f} |')


def inputs() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the conversion of a camera message of each encoding."""
    random = np.random.default_rng(0)
    for name, encoding in ENCODINGS.items():
        rows = HEIGHT * 3 // 2 if encoding.name.startswith('nv') else HEIGHT
        message = Image(encoding=name, width=WIDTH, height=HEIGHT)
        message.step = WIDTH * encoding.pixel_bytes
        message.data.frombytes(random.integers(0, 256, rows * message.step, np.uint8))
        yield f'{name} in', lambda message=message: image_to_rgb(message)


def outputs() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the making of each message the node publishes."""
    header = Header(frame_id='camera')
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[100:300, 200:500] = 1
    found = ClassResult(1, 'cat', 0.5, 200 * 300, (200, 100, 300, 200))
    confidence = np.full(labels.shape, 0.5, np.float32)
    result = Segmentation(labels, confidence, (found,), 1, {})
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    yield 'labels out, mono8', lambda: labels_to_image(labels, 'mono8', header)
    yield 'labels out, mono16', lambda: labels_to_image(labels, 'mono16', header)
    yield 'confidence out', lambda: confidence_to_image(confidence, header)
    yield 'mask of 300x200 out', lambda: segmentation_to_masks(result, header)
    yield 'overlay out', lambda: array_to_image(picture, 'rgb8', header)


if __name__ == '__main__':
    main()
