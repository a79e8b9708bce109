"""What the encoder sees at each patch of a frame, as a message."""

from __future__ import annotations

import numpy as np
from std_msgs.msg import Header

from llmseg_ros.candidates import Found, grid_features
from llmseg_ros.method.patches import patch_strides
from llmseg_ros.msg import PatchFeatures


def found_to_features(found: Found, header: Header) -> PatchFeatures:
    """Make a message of the patches that the classes of an image were compared with."""
    import torch

    assert found.features is not None
    with torch.inference_mode():
        patches_hwd, _ = grid_features(found.features)
        data = patches_hwd.half().cpu().numpy()
    height, width = found.rgb.shape[:2]
    rows, columns, dimension = data.shape
    stride_y, stride_x = patch_strides(found.features.axes, (rows, columns), (height, width))
    message = PatchFeatures(
        header=header,
        encoder=found.encoder,
        height=height,
        width=width,
        rows=rows,
        columns=columns,
        dimension=dimension,
        stride_x=stride_x,
        stride_y=stride_y,
        offset_x=stride_x / 2 - 0.5,  # pixels are counted by their centres
        offset_y=stride_y / 2 - 0.5,
    )
    message.data.frombytes(np.ascontiguousarray(data).view(np.uint8))
    return message
