"""What the demo shows: overlays, a contact sheet and a summary made from its two bags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llmseg_ros.demo.received import Received, read_camera_frames, read_received
from llmseg_ros.demo.run import FIRST_CLASSES, LATER_CLASSES, DemoError, Recording
from llmseg_ros.demo.scenes import SCENES
from llmseg_ros.files import replacing
from llmseg_ros.visualize import add_legend, add_line, contact_sheet, overlay

SHEET_COLUMNS = 4
SHEET_TILE_WIDTH = 400
STRIP_TILE_WIDTH = 415  # four are 1660, twice the column of a README on GitHub: sharp on any screen
NOT_FOUND = (
    'The embedded encoder finds things, best one at a time. It does not find walls, floors and '
    'sky, people but for what they wear, and small things beside large ones.'
)
STRIP_LEGEND_SCALE = 2.0  # read at half its size


def write_report(recording: Recording, folder: Path) -> dict[str, Any]:
    """Write overlay_SCENE.png, contact_sheet.png, strip.jpg and summary.json; return the summary.

    Raises:
        DemoError: no labels came back.
    """
    received = read_received(recording.received)
    log = json.loads(recording.sent.read_text(encoding='utf-8'))
    sent = {int(stamp): int(at) for stamp, at in log['sent'].items()}
    if not received.labels:
        raise DemoError(f'no labels came back, see {folder / "logs" / "node.log"}')
    by_scene = answered_by_scene(sorted(sent), received)
    write_pictures(recording.frames, received, by_scene, folder)
    summary = {
        'frames_sent': len(sent),
        'frames_received': len(received.labels),
        'frames_dropped': len(sent) - len(received.labels),
        'classes': {'first': list(FIRST_CLASSES), 'later': list(LATER_CLASSES)},
        'masks_per_class': dict(Counter(chain.from_iterable(received.masks.values()))),
        'label_versions_seen': sorted(set(received.versions.values())),
        'latency_ms': latency(sent, received),
        'encoder': received.encoder,
        'rmw': log['rmw'],
        'scenes': {name: describe(stamps, received) for name, stamps in by_scene.items()},
        'peak_memory_mb': round(recording.peak_memory_mb),
    }
    with replacing(folder / 'summary.json') as partial:
        partial.write_text(json.dumps(summary, indent=2) + '\n', encoding='utf-8')
    return summary


def answered_by_scene(stamps: Sequence[int], received: Received) -> dict[str, list[int]]:
    """Return the stamps of the frames that came back as labels, by scene."""
    per_scene = len(stamps) // len(SCENES)
    return {
        scene.name: [
            stamp
            for stamp in stamps[index * per_scene : (index + 1) * per_scene]
            if stamp in received.labels
        ]
        for index, scene in enumerate(SCENES)
    }


def latency(sent: Mapping[int, int], received: Received) -> dict[str, float]:
    """Return the median and 95th percentile from publishing a frame to having its labels."""
    delays = [(at - sent[stamp]) / 1e6 for stamp, at in received.arrivals.items()]
    p50, p95 = np.percentile(delays, [50, 95])
    return {'p50': round(float(p50), 1), 'p95': round(float(p95), 1)}


def describe(stamps: Sequence[int], received: Received) -> dict[str, Any]:
    """Return how many frames of a scene came back, and in how many of them, and on what mean share
    of the pixels of all of them, each class was found.
    """
    shares: Counter[str] = Counter()
    found_in: Counter[str] = Counter()
    for stamp in stamps:
        for name, share in shares_of(received.labels[stamp], received.names).items():
            shares[name] += share / len(stamps)  # type: ignore[assignment]
            found_in[name] += 1
    return {
        'frames': len(stamps),
        'found_in': {name: found_in[name] for name, _ in shares.most_common()},
        'shares': {name: round(share, 4) for name, share in shares.most_common()},
    }


def shares_of(labels: NDArray[np.integer], names: Mapping[int, str]) -> dict[str, float]:
    """Return the share of the pixels of every class found in a label image."""
    ids, counts = np.unique(labels, return_counts=True)
    pairs = zip(ids.tolist(), counts.tolist(), strict=True)
    return {names[i]: count / labels.size for i, count in pairs if i in names}


def write_pictures(
    frames: Path, received: Received, by_scene: Mapping[str, Sequence[int]], folder: Path
) -> None:
    """Write the middle frame of every scene as an overlay, all of these as a strip, and a sheet."""
    rows = {name: spread(stamps, SHEET_COLUMNS) for name, stamps in by_scene.items() if stamps}
    middles = {name: stamps[len(stamps) // 2] for name, stamps in by_scene.items() if stamps}
    wanted = {*chain.from_iterable(rows.values()), *middles.values()}
    photographs = read_camera_frames(frames, wanted)
    pictures = {stamp: overlay(rgb, received.labels[stamp]) for stamp, rgb in photographs.items()}
    ids = {name: class_id for class_id, name in received.names.items()}
    for scene, stamp in middles.items():
        shares = shares_of(received.labels[stamp], received.names)
        legend = [(ids[name], f'{name} {100 * share:.1f} %') for name, share in shares.items()]
        save(add_legend(pictures[stamp], legend), folder / f'overlay_{scene}.png')
    classes = sorted(received.names.items())
    tiles = [pictures[stamp] for stamps in rows.values() for stamp in stamps]
    sheet = contact_sheet(tiles, SHEET_COLUMNS, SHEET_TILE_WIDTH)
    sheet = add_legend(sheet, classes)
    if received.encoder.startswith('imagenet'):
        sheet = add_line(sheet, NOT_FOUND)
    save(sheet, folder / 'contact_sheet.png')
    tiles = [images[stamp] for images in (photographs, pictures) for stamp in middles.values()]
    strip = contact_sheet(tiles, len(middles), STRIP_TILE_WIDTH)
    save(add_legend(strip, classes, STRIP_LEGEND_SCALE), folder / 'strip.jpg')


def spread(stamps: Sequence[int], count: int) -> list[int]:
    """Return `count` of the stamps, evenly spread; the last one repeated where there are less."""
    return [stamps[min(i * len(stamps) // count, len(stamps) - 1)] for i in range(count)]


def save(rgb: NDArray[np.uint8], path: Path) -> None:
    """Write a PNG or, by the name, a JPEG that is there complete or not at all."""
    image_format = 'JPEG' if path.suffix == '.jpg' else 'PNG'
    with replacing(path) as partial:
        Image.fromarray(rgb).save(partial, format=image_format, quality=85)
