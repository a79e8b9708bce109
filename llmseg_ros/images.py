"""Pictures out of camera messages, of rclpy or of rosbags: no ROS needed."""

from __future__ import annotations

import functools
import importlib.util
import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

MAX_PIXELS = 1 << 25  # a header may announce more than memory holds
Converter = Callable[[NDArray[np.uint8], str, str], NDArray[np.uint8]]


class BadImage(ValueError):
    """An image message can't be used; the message is one sentence that says why."""


class Encoding(NamedTuple):
    """How an encoding lies in memory.

    Attributes:
        name: under which cv_bridge and rosbags-image know its colours.
        pixel_bytes: bytes of a pixel in a row.
        block: width and height must be multiples of these.
        smallest: width and height below this have no defined colours.
    """

    name: str
    pixel_bytes: int
    block: tuple[int, int] = (1, 1)
    smallest: int = 1


ENCODINGS = {
    'rgb8': Encoding('rgb8', 3),
    'bgr8': Encoding('bgr8', 3),
    'rgba8': Encoding('rgba8', 4),
    'bgra8': Encoding('bgra8', 4),
    'mono8': Encoding('mono8', 1),
    'mono16': Encoding('mono8', 2),  # its high bytes are the mono8 image
    '8UC1': Encoding('mono8', 1),
    '8UC3': Encoding('bgr8', 3),
    '8UC4': Encoding('bgra8', 4),
    'uyvy': Encoding('yuv422', 2, block=(2, 1)),
    'yuv422': Encoding('yuv422', 2, block=(2, 1)),
    'yuyv': Encoding('yuv422_yuy2', 2, block=(2, 1)),
    'yuv422_yuy2': Encoding('yuv422_yuy2', 2, block=(2, 1)),
    'nv12': Encoding('nv12', 1, block=(2, 2)),
    'nv21': Encoding('nv21', 1, block=(2, 2)),
    'bayer_rggb8': Encoding('bayer_rggb8', 1, smallest=3),
    'bayer_bggr8': Encoding('bayer_bggr8', 1, smallest=3),
    'bayer_gbrg8': Encoding('bayer_gbrg8', 1, smallest=3),
    'bayer_grbg8': Encoding('bayer_grbg8', 1, smallest=3),
}


def image_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Return a message's pixels as (H, W, 3) uint8 RGB; an rgb8 message's are not copied.

    Raises:
        BadImage: the encoding is not supported, or the sizes do not fit each other.
    """
    pixels = pixel_view(message)
    encoding = ENCODINGS[message.encoding]
    if encoding.name == 'rgb8':
        return pixels
    reason: Exception | str = 'neither cv_bridge nor rosbags-image is here'
    for convert in color_converters():
        try:
            return convert(pixels, encoding.name, 'rgb8')
        except Exception as error:  # each raises types of its own for what it can't convert
            reason = error
    raise BadImage(f'encoding {message.encoding!a} could not be converted: {reason}')


def pixel_view(message: Any) -> NDArray[np.uint8]:
    """Return a message's pixels without a copy where the layout allows, checked.

    Returns:
        (H, W) or (H, W, channels) uint8 over the message's memory, row padding left out; for
        nv12 and nv21 (H * 3 / 2, W); for mono16 the high bytes, copied.

    Raises:
        BadImage: the encoding is not supported, or the sizes do not fit each other.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise BadImage(
            f'encoding {message.encoding[:32]!a} is not supported; '
            f'these are: {", ".join(ENCODINGS)}'
        )
    height, width, step = message.height, message.width, message.step
    check_size(width, height, encoding)
    rows = height * 3 // 2 if encoding.name.startswith('nv') else height
    if step < width * encoding.pixel_bytes:
        raise BadImage(
            f'step {step} is less than the {width * encoding.pixel_bytes} bytes of a row of '
            f'{width} {message.encoding} pixels'
        )
    if len(message.data) != rows * step:
        raise BadImage(
            f'data has {len(message.data)} bytes, but {rows} rows of step {step} are {rows * step}'
        )
    if message.encoding == 'mono16':
        high = 0 if message.is_bigendian else 1
        view = np.ndarray((rows, width), np.uint8, message.data, high, (step, 2))
        return np.ascontiguousarray(view)
    if encoding.pixel_bytes == 1:
        return np.ndarray((rows, width), np.uint8, message.data, strides=(step, 1))
    channels = encoding.pixel_bytes
    return np.ndarray((rows, width, channels), np.uint8, message.data, strides=(step, channels, 1))


def check_size(width: int, height: int, encoding: Encoding) -> None:
    """Check that an image of this size can be and has defined colours.

    Raises:
        BadImage: it is empty, too large, or not a multiple of what the encoding needs.
    """
    if not width or not height:
        raise BadImage(f'the image is empty: {width} x {height} pixels')
    if width * height > MAX_PIXELS:
        raise BadImage(f'{width} x {height} pixels are more than the {MAX_PIXELS} allowed')
    if (
        width % encoding.block[0]
        or height % encoding.block[1]
        or (min(width, height) < encoding.smallest)
    ):
        raise BadImage(f'{width} x {height} pixels are not a whole {encoding.name} image')


def compressed_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG message into (H, W, 3) uint8 RGB.

    Raises:
        BadImage: the data is neither, is cut off or damaged, or announces too many pixels.
    """
    data = bytes(message.data)
    try:
        with PillowImage.open(io.BytesIO(data), formats=('JPEG', 'PNG')) as header:
            width, height = header.size
            kind = header.format
    except (OSError, ValueError, PillowImage.DecompressionBombError) as error:
        raise BadImage(
            f'compressed image of format {message.format[:64]!a} is no readable JPEG or PNG'
        ) from error
    check_size(width, height, ENCODINGS['rgb8'])
    # Decoders fill what is missing of a cut-off frame with grey, and don't say so.
    end = b'\xff\xd9' if kind == 'JPEG' else b'IEND\xaeB`\x82'
    if not data.rstrip(b'\0').endswith(end):
        raise BadImage(f'{kind} data of {len(data)} bytes is cut off')
    pixels = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if pixels is None:
        raise BadImage(f'{kind} data of {len(data)} bytes is damaged')
    rgb: NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return rgb


@functools.cache
def color_converters() -> tuple[Converter, ...]:
    """Return the colour conversions that work here: cv_bridge's first, then rosbags-image's.

    Neither knows all encodings in all its versions.
    """
    found = (cv_bridge_converter(), rosbags_converter())
    return tuple(converter for converter in found if converter is not None)


def cv_bridge_converter() -> Converter | None:
    """Return cv_bridge's colour conversion, None where it isn't here or doesn't work.

    Its compiled part, built against another NumPy, may take its process down: it is tried in a
    process of its own.
    """
    if importlib.util.find_spec('cv_bridge') is None:
        return None
    trial = (
        'import numpy; from cv_bridge.boost.cv_bridge_boost import cvtColor2;'
        "cvtColor2(numpy.zeros((2, 2, 3), numpy.uint8), 'bgr8', 'rgb8')"
    )
    if subprocess.run([sys.executable, '-c', trial], capture_output=True).returncode != 0:
        return None
    from cv_bridge.boost.cv_bridge_boost import cvtColor2

    return cvtColor2  # type: ignore[no-any-return]


def rosbags_converter() -> Converter | None:
    """Return the colour conversion of rosbags-image, None where it isn't here."""
    try:
        from rosbags.image.image import convert_color
    except ImportError:
        return None
    return convert_color  # type: ignore[return-value]
