"""The bytes of a labelled sensor_msgs/PointCloud2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.mapping.geometry import Floats

UINT16, UINT32, FLOAT32 = 4, 6, 7  # of sensor_msgs/PointField
FIELDS = (
    ('x', 0, FLOAT32),
    ('y', 4, FLOAT32),
    ('z', 8, FLOAT32),
    ('rgba', 12, UINT32),
    ('label', 16, UINT16),
    ('confidence', 20, FLOAT32),
)  # name, offset in bytes, datatype
POINT_BYTES = 24
LAYOUT = np.dtype(
    {
        'names': ['xyz', 'bgra', 'label', 'confidence'],
        'formats': [('<f4', 3), ('u1', 4), '<u2', '<f4'],
        'offsets': [0, 12, 16, 20],
        'itemsize': POINT_BYTES,
    }
)  # rgba is 0xAARRGGBB, as PCL has it


def pack_cloud(
    points: Floats, rgb: NDArray[np.uint8], labels: NDArray[np.uint16], confidence: Floats
) -> NDArray[np.uint8]:
    """Return the data of a labelled cloud, organised like its image.

    Args:
        points: (H, W, 3) metres, NaN where unknown.
        rgb: (H, W, 3).
        labels: (H, W).
        confidence: (H, W).
    """
    cloud: NDArray[Any] = np.zeros(labels.shape, LAYOUT)
    cloud['xyz'] = points
    cloud['bgra'][..., :3] = rgb[..., ::-1]
    cloud['bgra'][..., 3] = 255
    cloud['label'] = labels
    cloud['confidence'] = confidence
    return cloud.reshape(-1).view(np.uint8)
