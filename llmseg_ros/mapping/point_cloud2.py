"""The bytes of labelled sensor_msgs/PointCloud2, of frames and of maps."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.mapping.geometry import Floats, GeometryError
from llmseg_ros.mapping.voxels import Voxels

INT32, UINT16, UINT32, FLOAT32 = 5, 4, 6, 7  # of sensor_msgs/PointField
KINDS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}
PLACE = (('x', 0, FLOAT32), ('y', 4, FLOAT32), ('z', 8, FLOAT32), ('rgba', 12, UINT32))
FIELDS = (*PLACE, ('label', 16, UINT16), ('confidence', 20, FLOAT32))  # name, offset, datatype
POINT_BYTES = 24  # rgba is 0xAARRGGBB, as PCL has it
VOXEL_FIELDS = (
    *PLACE,
    ('label', 16, UINT16),
    ('probability', 20, FLOAT32),
    ('views', 24, INT32),
)
VOXEL_BYTES = 28
VOXEL_LAYOUT = np.dtype(
    {
        'names': ['xyz', 'bgra', 'label', 'probability', 'views'],
        'formats': [('<f4', 3), ('u1', 4), '<u2', '<f4', '<i4'],
        'offsets': [0, 12, 16, 20, 24],
        'itemsize': VOXEL_BYTES,
    }
)
MAX_POINTS = 1 << 25  # of a cloud, as of an image


def pack_cloud(
    points: Floats,
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    confidence: Floats,
    into: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Return the data of a labelled cloud, organised like its image.

    Args:
        points: (H, W, 3) metres, NaN where unknown.
        rgb: (H, W, 3).
        labels: (H, W).
        confidence: (H, W).
        into: the (H * W * POINT_BYTES,) bytes to write to; None for new ones.
    """
    if into is None:
        into = np.empty(labels.size * POINT_BYTES, np.uint8)
    cloud = into.view(np.float32).reshape(*labels.shape, POINT_BYTES // 4)
    bgra = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA).view(np.float32)
    padded = labels.astype(np.uint32).view(np.float32)  # two bytes behind the label are 0
    # Five times as fast as fields of a NumPy dtype: bits are moved, whatever they mean.
    parts = [points, bgra, padded, confidence]
    cv2.mixChannels(parts, [cloud], [n for channel in range(6) for n in (channel, channel)])
    return into


def pack_voxels(voxels: Voxels) -> NDArray[np.uint8]:
    """Return the data of a map, a point for the middle of each voxel, with VOXEL_FIELDS."""
    cloud: NDArray[Any] = np.zeros(len(voxels.labels), VOXEL_LAYOUT)
    cloud['xyz'] = voxels.centres
    cloud['bgra'][:, :3] = voxels.rgb[:, ::-1]
    cloud['bgra'][:, 3] = 255
    cloud['label'] = voxels.labels
    cloud['probability'] = voxels.probability
    cloud['views'] = voxels.views
    return cloud.view(np.uint8)


class LabelledCloud(NamedTuple):
    """An organised cloud with labels.

    Attributes:
        points: (H, W, 3) float32 metres, NaN where unknown.
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint16.
        confidence: (H, W) float32.
    """

    points: Floats
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    confidence: Floats


def read_cloud(message: Any) -> LabelledCloud:
    """Return what is in a labelled cloud, of rclpy or of rosbags, in any layout of its fields.

    Raises:
        GeometryError: a field is missing or of another type, the sizes do not fit, or a confidence
            is none.
    """
    table = cloud_table(message)
    wanted = {name: KINDS[kind] for name, _, kind in FIELDS}
    for name, kind in wanted.items():
        if name not in (table.dtype.names or ()):
            raise GeometryError(f'the cloud has no field {name}: expected {", ".join(wanted)}')
        if table.dtype[name].newbyteorder('=') != np.dtype(kind):
            raise GeometryError(
                f'the field {name} of the cloud is {table.dtype[name].name}, '
                f'expected {np.dtype(kind).name}'
            )
    confidence = np.ascontiguousarray(table['confidence'], np.float32)
    if not (confidence.min() >= 0 and confidence.max() <= 1):
        raise GeometryError('the confidence of the cloud is not within 0 and 1 everywhere')
    points = np.stack([table[axis] for axis in 'xyz'], axis=-1).astype(np.float32, copy=False)
    colours = table['rgba']
    rgb = np.stack([(colours >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=-1)
    return LabelledCloud(
        points,
        rgb,
        np.ascontiguousarray(table['label'], np.uint16),
        confidence,
    )


def cloud_table(message: Any) -> NDArray[Any]:
    """Return the (H, W) points of a cloud, a column for each field.

    Raises:
        GeometryError: the sizes do not fit.
    """
    height, width, step, row = message.height, message.width, message.point_step, message.row_step
    if not 0 < height * width <= MAX_POINTS:
        raise GeometryError(f'a cloud of {width}x{height} points is empty or too large')
    if row < width * step or len(message.data) != height * row:
        raise GeometryError(
            f'a cloud of {width}x{height} points of {step} bytes, rows of {row} bytes, '
            f'in {len(message.data)} bytes'
        )
    order: Literal['>', '<'] = '>' if message.is_bigendian else '<'
    known = [field for field in message.fields if field.count == 1 and field.datatype in KINDS]
    formats = [np.dtype(KINDS[field.datatype]).newbyteorder(order) for field in known]
    ends = [field.offset + kind.itemsize for field, kind in zip(known, formats, strict=True)]
    names = [field.name for field in known]
    if max(ends, default=0) > step or len(set(names)) < len(names):
        raise GeometryError('the fields of the cloud lie beyond its points, or repeat each other')
    layout: Any = {
        'names': names,
        'formats': formats,
        'offsets': [field.offset for field in known],
        'itemsize': step,
    }
    data = np.frombuffer(message.data, np.uint8)
    return np.ndarray((height, width), np.dtype(layout), data, strides=(row, step))
