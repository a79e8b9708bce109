"""How long a frame takes into points, into their cloud and into the map, on one core.

On a folder of RGB-D frames; of several rounds the best median
counts, as what else runs on a machine only ever adds:

    .venv/bin/python bench/mapping.py --rgbd kitchen
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'  # before numpy is there

import cv2
import numpy as np

from llmseg_ros.cli.common import print_table
from llmseg_ros.mapping.geometry import depth_in_metres, depth_to_points
from llmseg_ros.mapping.point_cloud2 import pack_cloud
from llmseg_ros.mapping.rgbd import RgbdFrame
from llmseg_ros.mapping.rgbd_folder import open_rgbd_folder, read_rgbd_folder
from llmseg_ros.mapping.voxels import VoxelMap

BLOCK = 40  # pixels of a square of labels: more edges than most segmentations have


def main() -> None:
    """Time every frame into points and maps of several voxels and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rgbd', type=Path, required=True, help='folder of RGB-D frames')
    parser.add_argument('--voxels', type=float, nargs='+', default=[0.1, 0.05, 0.02])
    parser.add_argument('--rounds', type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    frames = list(read_rgbd_folder(open_rgbd_folder(arguments.rgbd)))
    height, width = frames[0].depth.shape
    rows = [
        (f'{100 * voxel_m:g} cm', *time_map(frames, voxel_m, arguments.rounds))
        for voxel_m in arguments.voxels
    ]
    columns = ('voxels', 'points ms', 'cloud ms', 'map ms', 'map ms CPU', 'voxels of the map')
    print_table(columns, rows)
    print(f'best median of {arguments.rounds} rounds over {len(frames)} frames of {width}x{height}')


def time_map(
    frames: list[RgbdFrame], voxel_m: float, rounds: int
) -> tuple[str, str, str, str, int]:
    """Return the best median times of a frame into points, cloud and map, and voxels."""
    medians = []
    for _ in range(rounds):
        voxels = VoxelMap(voxel_m)
        laps = [time_frame(frame, voxels) for frame in frames]
        medians.append(np.median(laps, axis=0))
    points_ms, cloud_ms, map_ms, cpu_ms = (f'{ms:.1f}' for ms in 1000 * np.min(medians, axis=0))
    return points_ms, cloud_ms, map_ms, cpu_ms, len(voxels)


def time_frame(frame: RgbdFrame, voxels: VoxelMap) -> tuple[float, float, float, float]:
    """Return seconds of a frame into points, cloud and map, and of the CPU for the latter."""
    height, width = frame.depth.shape
    millimetres = np.rint(1000 * np.nan_to_num(frame.depth)).astype(np.uint16)
    rows, columns = np.mgrid[:height, :width] // BLOCK
    labels = ((rows + columns) % 20).astype(np.uint16)
    confidence = np.full((height, width), 0.8, np.float32)
    rgb = cv2.resize(frame.rgb, (width, height))
    begin = time.perf_counter()
    points = depth_to_points(depth_in_metres(millimetres), frame.camera.scaled(width, height))
    with_points = time.perf_counter()
    pack_cloud(points, rgb, labels, confidence)
    with_cloud, cpu = time.perf_counter(), time.thread_time()
    voxels.add(points, labels, confidence, rgb, frame.pose)
    end, cpu_s = time.perf_counter(), time.thread_time() - cpu
    return with_points - begin, with_cloud - with_points, end - with_cloud, cpu_s


if __name__ == '__main__':
    main()
