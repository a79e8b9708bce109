"""RGB-D frames through the segmenter and into a map."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from llmseg_ros.mapping.agreement import AgreementMeter, View
from llmseg_ros.mapping.rgbd import RgbdFrame, frame_points
from llmseg_ros.mapping.voxels import VoxelMap
from llmseg_ros.segmentation import Segmentation, frame_before
from llmseg_ros.segmenter import Segmenter


class Mapped(NamedTuple):
    """A frame that is in the map, and what was seen in it; its times have those of the map."""

    frame: RgbdFrame
    result: Segmentation


def map_frames(
    frames: Iterable[RgbdFrame],
    segmenter: Segmenter,
    voxels: VoxelMap,
    meter: AgreementMeter,
    farthest_m: float = np.inf,
) -> Iterator[Mapped]:
    """Segment the frames, add them to the map, and compare their views.

    Args:
        frames: in order.
        segmenter: with its classes.
        voxels: to add to.
        meter: of the agreement between the views.
        farthest_m: depth beyond does not go into the map.

    Raises:
        GeometryError: depth is of another aspect than its image, or a pose jumps out of the map.
    """
    last: tuple[int, Segmentation] | None = None
    for frame in frames:
        begin = time.perf_counter()
        points = frame_points(frame, farthest_m)
        points_ms = 1000 * (time.perf_counter() - begin)
        result = segmenter.segment(frame.rgb, previous=frame_before(last, frame.stamp))
        last = frame.stamp, result
        begin = time.perf_counter()
        voxels.add(points, result.labels, result.confidence, frame.rgb, frame.pose)
        map_ms = 1000 * (time.perf_counter() - begin)
        height, width = result.labels.shape
        meter.add(View(points, result.labels, frame.camera.scaled(width, height), frame.pose))
        timings_ms = {**result.timings_ms, 'points': points_ms, 'map': map_ms}
        yield Mapped(frame, dataclasses.replace(result, timings_ms=timings_ms))
