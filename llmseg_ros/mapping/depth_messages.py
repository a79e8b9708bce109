"""Depth out of image messages, of rclpy or of rosbags: no ROS needed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from llmseg_ros.formats.decoding import BadImage, decode
from llmseg_ros.formats.image_messages import ENCODINGS, check_size
from llmseg_ros.mapping.geometry import Floats, depth_in_metres

KINDS = {'16UC1': 'u2', 'mono16': 'u2', '32FC1': 'f4'}
HEADER = struct.Struct('<iff')  # of compressedDepth: format, and of floats their quantisation
COMPRESSED_DEPTH = '/compressedDepth'  # how topics of compressed_depth_image_transport end
PNG = b'\x89PNG\r\n\x1a\n'


def message_to_depth(message: Any) -> Floats:
    """Return the (H, W) float32 metres of a depth image, raw or compressedDepth; NaN unknown.

    Raises:
        BadImage: it is of another encoding, its sizes do not fit, or its PNG is damaged.
    """
    if hasattr(message, 'format'):
        return decompressed_depth(message)
    kind = KINDS.get(message.encoding)
    if kind is None:
        raise BadImage(
            f'depth of encoding {message.encoding[:32]!a} is not supported; '
            f'these are: {", ".join(KINDS)}'
        )
    height, width, step = message.height, message.width, message.step
    check_size(width, height, ENCODINGS['mono8'])
    item = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    if step < width * item.itemsize or len(message.data) != height * step:
        raise BadImage(
            f'depth of {width}x{height} {message.encoding} pixels with step {step} '
            f'in {len(message.data)} bytes'
        )
    view = np.ndarray((height, width), item, message.data, strides=(step, item.itemsize))
    return depth_in_metres(np.ascontiguousarray(view, item.newbyteorder('=')))


def decompressed_depth(message: Any) -> Floats:
    """Decode a message of compressed_depth_image_transport.

    32FC1 travels as PNG of inverse depth: depth = A / (value - B), A and B before the PNG.

    Raises:
        BadImage: it is no PNG of 16UC1 or 32FC1, or is damaged.
    """
    encoding = message.format.partition(';')[0].strip()
    data = bytes(message.data)
    if encoding not in ('16UC1', '32FC1') or data[HEADER.size :][: len(PNG)] != PNG:
        raise BadImage(
            f'compressed depth of format {message.format[:64]!a} is not supported: '
            '16UC1 and 32FC1 as PNG are'
        )
    values = decode(data[HEADER.size :])
    if values.ndim != 2 or values.dtype != np.uint16:
        raise BadImage('a depth PNG has 16 bits and one channel, this has not')
    if encoding == '16UC1':
        return depth_in_metres(values)
    _, scale, shift = HEADER.unpack_from(data)
    with np.errstate(divide='ignore', invalid='ignore'):
        depth = np.float32(scale) / (values.astype(np.float32) - np.float32(shift))
    return depth_in_metres(np.where(values, depth, np.float32(0)))


def info_beside(topic: str) -> str:
    """Return where a camera driver publishes the camera_info of an image topic."""
    for transport in (COMPRESSED_DEPTH, '/compressed'):
        topic = topic.removesuffix(transport)
    return f'{topic.rpartition("/")[0]}/camera_info'
