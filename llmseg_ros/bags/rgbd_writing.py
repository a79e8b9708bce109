"""Bags out of images with depth and poses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from llmseg_ros.bags.reading import COMPRESSED_TYPE
from llmseg_ros.bags.topics import (
    CAMERA_INFO_TOPIC,
    CAMERA_INFO_TYPE,
    DEPTH_TOPIC,
    FRAME_ID,
    IMAGE_TOPIC,
    IMAGE_TYPE,
    NANOSECONDS,
    TF_TOPIC,
    TF_TYPES,
    WORLD_ID,
)
from llmseg_ros.evaluation.datasets import read_rgb
from llmseg_ros.mapping.geometry import Camera, Floats, GeometryError, Matrix
from llmseg_ros.mapping.rgbd_folder import FrameFiles, RgbdError, RgbdFolder, read_depth

FARTHEST_M = 65.535  # in whole millimetres of 16 bits


class _Messages:
    """The messages of a frame."""

    def __init__(self) -> None:
        self.types = get_typestore(Stores.ROS2_JAZZY)

    def make(self, kind: str, **fields: Any) -> Any:
        package, _, name = kind.partition('/')
        return self.types.types[f'{package}/msg/{name}'](**fields)

    def header(self, stamp: int, frame_id: str = FRAME_ID) -> Any:
        seconds, nanoseconds = divmod(stamp, NANOSECONDS)
        time = self.make('builtin_interfaces/Time', sec=seconds, nanosec=nanoseconds)
        return self.make('std_msgs/Header', stamp=time, frame_id=frame_id)

    def image(self, pixels: Any, encoding: str, header: Any) -> Any:
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        return self.make(
            'sensor_msgs/Image',
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // height,
            data=data,
        )

    def compressed(self, data: bytes, kind: str, header: Any) -> Any:
        values = np.frombuffer(data, np.uint8)
        return self.make('sensor_msgs/CompressedImage', header=header, format=kind, data=values)

    def info(self, camera: Camera, header: Any) -> Any:
        names = ('x_offset', 'y_offset', 'height', 'width')
        roi = self.make('sensor_msgs/RegionOfInterest', **dict.fromkeys(names, 0), do_rectify=False)
        model = 'rational_polynomial' if len(camera.distortion) > 5 else 'plumb_bob'
        projection = np.concatenate([camera.matrix, np.zeros((3, 1))], axis=1)
        return self.make(
            'sensor_msgs/CameraInfo',
            header=header,
            height=camera.height,
            width=camera.width,
            distortion_model=model,
            d=np.array(camera.distortion or (0.0,) * 5),
            k=camera.matrix.ravel(),
            r=np.eye(3).ravel(),
            p=projection.ravel(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def transform(self, pose: Matrix, stamp: int) -> Any:
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
        moved = dict(zip('xyz', pose[:3, 3].tolist(), strict=True))
        transform = self.make(
            'geometry_msgs/Transform',
            translation=self.make('geometry_msgs/Vector3', **moved),
            rotation=self.make('geometry_msgs/Quaternion', x=x, y=y, z=z, w=w),
        )
        stamped = self.make(
            'geometry_msgs/TransformStamped',
            header=self.header(stamp, WORLD_ID),
            child_frame_id=FRAME_ID,
            transform=transform,
        )
        return self.make('tf2_msgs/TFMessage', transforms=[stamped])


def write_rgbd_bag(
    path: Path, folder: RgbdFolder, frames: Iterable[FrameFiles], rate: float, compressed: bool
) -> None:
    """Write frames with depth, camera_info and, where they have one, their pose on /tf.

    Args:
        path: of the new bag.
        folder: they are of.
        frames: in order.
        rate: of them in a second.
        compressed: keep the colour files as they are, and write depth as compressedDepth.

    Raises:
        RgbdError: a file is of another kind or aspect than expected.
        DatasetError: one does not open.
    """
    make = _Messages()
    images, depths = (IMAGE_TOPIC, IMAGE_TYPE), (DEPTH_TOPIC, IMAGE_TYPE)
    if compressed:
        images = f'{IMAGE_TOPIC}/compressed', COMPRESSED_TYPE
        depths = f'{DEPTH_TOPIC}/compressedDepth', COMPRESSED_TYPE
    infos, poses = (CAMERA_INFO_TOPIC, CAMERA_INFO_TYPE), (TF_TOPIC, TF_TYPES[0])
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=make.types)
            for topic, kind in (images, depths, infos, poses)
        }

        def write(to: tuple[str, str], message: Any, stamp: int) -> None:
            raw = make.types.serialize_cdr(message, to[1])
            writer.write(connections[to[0]], stamp, raw)

        for index, files in enumerate(frames):
            stamp = NANOSECONDS + round(index * NANOSECONDS / rate)  # 0 means no stamp
            header = make.header(stamp)
            rgb = read_rgb(files.color)
            try:
                camera = folder.camera.scaled(rgb.shape[1], rgb.shape[0])
            except GeometryError as error:
                raise RgbdError(f'{files.color}: {error}') from error
            values = in_millimetres(read_depth(files.depth, folder.unit_m))
            if files.pose is not None:
                write(poses, make.transform(files.pose, stamp), stamp)
            write(infos, make.info(camera, header), stamp)
            if compressed:
                kind = 'png' if files.color.suffix.lower() == '.png' else 'jpeg'
                picture = make.compressed(files.color.read_bytes(), kind, header)
                png = bytes(12) + cv2.imencode('.png', values)[1].tobytes()
                depth = make.compressed(png, '16UC1; compressedDepth png', header)
            else:
                picture = make.image(rgb, 'rgb8', header)
                depth = make.image(values, '16UC1', header)
            write(depths, depth, stamp)
            write(images, picture, stamp)


def in_millimetres(depth: Floats) -> Any:
    """Return depth as (H, W) uint16 millimetres, 0 where it is unknown or too far for 16 bits."""
    known = depth <= FARTHEST_M
    return np.rint(1000 * np.where(known, depth, 0)).astype(np.uint16)
