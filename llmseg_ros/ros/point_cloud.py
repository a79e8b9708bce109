"""Points, maps and cameras as ROS messages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header

from llmseg_ros.mapping.geometry import Camera, Floats
from llmseg_ros.mapping.point_cloud2 import (
    FIELDS,
    POINT_BYTES,
    VOXEL_BYTES,
    VOXEL_FIELDS,
    pack_cloud,
    pack_voxels,
)
from llmseg_ros.mapping.voxels import Voxels
from llmseg_ros.segmentation import Segmentation


def points_to_cloud(
    points: Floats,
    rgb: NDArray[np.uint8],
    segmentation: Segmentation,
    header: Header,
    last: PointCloud2 | None = None,
) -> PointCloud2:
    """Make a labelled cloud of (H, W, 3) points, organised like the image of the labels.

    It is written over the one of the frame before, where that is given and of the same size: new
    memory for each frame costs more than what is written to it.
    """
    labels, confidence = segmentation.labels, segmentation.confidence
    height, width = labels.shape
    if last is None or (last.height, last.width) != (height, width):
        data = pack_cloud(points, rgb, labels, confidence)
        return make_cloud(FIELDS, POINT_BYTES, (height, width), data, header)
    pack_cloud(points, rgb, labels, confidence, np.frombuffer(last.data, np.uint8))
    last.header = header
    return last


def voxels_to_cloud(voxels: Voxels, header: Header) -> PointCloud2:
    """Make a cloud of the middles of voxels."""
    shape = 1, len(voxels.labels)
    message = make_cloud(VOXEL_FIELDS, VOXEL_BYTES, shape, pack_voxels(voxels), header)
    message.is_dense = True
    return message


def make_cloud(
    fields: Iterable[tuple[str, int, int]],
    point_bytes: int,
    shape: tuple[int, int],
    data: NDArray[np.uint8],
    header: Header,
) -> PointCloud2:
    """Make a little-endian cloud of rows and columns from its bytes, without padding."""
    height, width = shape
    message = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=offset, datatype=kind, count=1)
            for name, offset, kind in fields
        ],
        point_step=point_bytes,
        row_step=point_bytes * width,
    )
    # One copy; what is assigned to `data` is copied once more, or walked number by number.
    message.data.frombytes(data)
    return message


def camera_to_info(camera: Camera, header: Header) -> CameraInfo:
    """Make the camera_info of a camera whose images are not rectified."""
    model = 'rational_polynomial' if len(camera.distortion) > 5 else 'plumb_bob'
    info = CameraInfo(header=header, height=camera.height, width=camera.width)
    info.distortion_model = model
    info.d = [*camera.distortion, *(0.0,) * (5 - len(camera.distortion))]
    info.k = camera.matrix.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel()
    return info
