"""Seg, semantic_map and a player as processes: what comes through, and what grows.

The player sends the frames of an RGB-D folder over and over, with odometry. A tenth of the frames
has no depth, 9 of 100 have no odometry around them, and half of the way on depth and camera_info
are of half the size.

    .venv/bin/python bench/node_map.py --rgbd kitchen [--frames 1000] [--rate 6]
        [-- ROS arguments of seg]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, Pose, Quaternion
from nav_msgs.msg import Odometry
from node_rig import Rig, rig, wait_until
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from llmseg_ros.mapping.geometry import Matrix
from llmseg_ros.mapping.rgbd import RgbdFrame
from llmseg_ros.mapping.rgbd_folder import open_rgbd_folder, read_rgbd_folder
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.point_cloud import camera_to_info

CLASSES = ('wall', 'floor', 'cabinet', 'refrigerator', 'counter', 'chair', 'oven', 'sink')
CAMERA = 'camera_optical'
WARM_UP = 100  # frames, in which caches fill and the map gets its voxels
SAMPLE_S = 2.0


def main() -> None:
    """Play, or watch seg and semantic_map while another process plays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rgbd', type=Path, required=True, help='folder of RGB-D frames')
    parser.add_argument('--frames', type=int, default=1000)
    parser.add_argument('--rate', type=float, default=6.0)
    parser.add_argument('--file', default='', help='PLY file for the map')
    parser.add_argument('--play', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('ros_arguments', nargs='*')
    arguments = parser.parse_args()
    if arguments.play:
        play(arguments.rgbd, arguments.frames, arguments.rate)
        return
    with (
        rig('-p', 'node.depth:=/depth/image', *arguments.ros_arguments) as made,
        mapper(arguments.file) as maps,
    ):
        watch(made, maps, arguments)


@contextlib.contextmanager
def mapper(file: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start semantic_map on seg's points."""
    options = ('points:=/seg/points', 'label_map:=/seg/label_map', 'odometry:=/odom')
    remap = [part for option in options for part in ('-r', option)]
    command = [sys.executable, '-m', 'llmseg_ros.ros.semantic_map', '--ros-args', *remap]
    process = subprocess.Popen(
        [*command, '-p', 'map.poses:=odometry', '-p', f'map.file:={file!r}'],
        cwd=tempfile.gettempdir(),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def watch(made: Rig, maps: subprocess.Popen[bytes], arguments: argparse.Namespace) -> None:
    """Let the player play, and print what came of it."""
    values: dict[str, str] = {}

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == '/semantic_map':
                values.update({pair.key: pair.value for pair in status.values})

    made.node.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)
    made.node.create_subscription(PointCloud2, '/semantic_map/map', lambda _: None, 1)
    made.set_classes(CLASSES)
    made.listen()
    wait_until(lambda: values)
    command = [sys.executable, __file__, '--play', '--rgbd', str(arguments.rgbd)]
    command += ['--frames', str(arguments.frames), '--rate', str(arguments.rate)]
    samples: list[tuple[float, float]] = []
    player = subprocess.Popen(command, env=os.environ)
    while player.poll() is None:
        time.sleep(SAMPLE_S)
        if len(made.arrivals) > min(WARM_UP, arguments.frames // 2):
            samples.append((resident_mib(made.seg.pid), resident_mib(maps.pid)))
    time.sleep(2.1)
    report(made, values, np.array(samples), arguments.frames)


def report(made: Rig, values: dict[str, str], samples: Matrix, sent: int) -> None:
    """Print counts, times and memory."""
    seg = made.values
    print(f'frames sent {sent}, label images {len(made.arrivals)}')
    for name in ('frames in', 'frames out', 'frames dropped', 'clouds out', 'frames without depth'):
        print(f'seg {name}: {seg[name]}')
    for name, value in values.items():
        if name.startswith(('clouds', 'voxels', 'map', 'send', 'poses')):
            print(f'semantic_map {name}: {value}')
    for name in ('points', 'publish', 'total', 'age'):
        print(f'seg {name} p50 {seg[f"{name} p50 ms"]} ms, p95 {seg[f"{name} p95 ms"]} ms')
    for name, of in zip(('seg', 'semantic_map'), samples.T, strict=True):
        medians = ', '.join(f'{np.median(part):.0f}' for part in np.array_split(of, 5))
        print(f'{name} MiB: median of each fifth {medians}, most {of.max():.0f}')


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    text = Path(f'/proc/{pid}/status').read_text()
    return int(text.partition('VmRSS:')[2].split()[0]) / 1024


def play(folder: Path, count: int, rate_hz: float) -> None:
    """Send frames as a camera and the odometry of a robot."""
    frames = list(read_rgbd_folder(open_rgbd_folder(folder)))
    rclpy.init()
    player = Player()
    wait_until(lambda: all(p.get_subscription_count() for p in player.all))
    time.sleep(1)
    begin = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begin + number / rate_hz - time.monotonic()))
        player.send(frames[number % len(frames)], number, half=number >= count // 2)
    time.sleep(2)
    rclpy.shutdown()


class Player:
    """Publishers of a camera with depth and of odometry."""

    def __init__(self) -> None:
        self.node = Node('player')
        create, profile = self.node.create_publisher, QoSProfile(depth=5)
        self.image = create(Image, '/image', profile)
        self.depth = create(Image, '/depth/image', profile)
        self.info = create(CameraInfo, '/depth/camera_info', profile)
        self.odometry = create(Odometry, '/odom', QoSProfile(depth=100))
        self.all = (self.image, self.depth, self.info, self.odometry)

    def send(self, frame: RgbdFrame, number: int, half: bool) -> None:
        """Send a frame with all that belongs to it but what is left out on purpose."""
        now = self.node.get_clock().now()
        header = Header(stamp=now.to_msg(), frame_id=CAMERA)
        height, width = frame.depth.shape
        size = (width // 2, height // 2) if half else (width, height)
        millimetres = np.rint(1000 * np.nan_to_num(frame.depth)).astype(np.uint16)
        if half:
            millimetres = cv2.resize(millimetres, size, interpolation=cv2.INTER_NEAREST_EXACT)
        self.info.publish(camera_to_info(frame.camera.scaled(*size), header))
        if number % 10 != 5:
            self.depth.publish(array_to_image(millimetres, '16UC1', header))
        self.image.publish(array_to_image(frame.rgb, 'rgb8', header))
        if number % 100 >= 9:
            for later_ns in (0, 30_000_000):
                self.move(frame.pose, now.nanoseconds + later_ns)

    def move(self, pose: Matrix, stamp: int) -> None:
        """Send where the camera is."""
        turn = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
        message = Odometry(child_frame_id=CAMERA)
        message.header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id='odom')
        message.pose.pose = Pose(
            position=Point(**dict(zip('xyz', pose[:3, 3].tolist(), strict=True))),
            orientation=Quaternion(**dict(zip('xyzw', turn, strict=True))),
        )
        self.odometry.publish(message)


if __name__ == '__main__':
    main()
