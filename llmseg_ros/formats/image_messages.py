"""Pictures out of camera messages, of rclpy or of rosbags: no ROS needed."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.formats.decoding import MAX_PIXELS, NotAnImage, decode
from llmseg_ros.formats.decoding import BadImage as BadImage  # of messages as of files

FORMAT = re.compile(r'(?P<encoding>\w+) *; *(jpeg|jpg|png|tiff?) compressed *(?P<target>.*)')
Converter = Callable[[NDArray[np.uint8], str, str], NDArray[np.uint8]]


class Encoding(NamedTuple):
    """How an encoding lies in memory.

    Attributes:
        name: under which cv_bridge and rosbags-image know its colours, those of 16 bits once
            they have 8.
        pixel_bytes: bytes of a pixel in a row.
        block: width and height must be multiples of these.
        smallest: width and height below this have no defined colours.
        value_bytes: 2 where a value has 16 bits.
    """

    name: str
    pixel_bytes: int
    block: tuple[int, int] = (1, 1)
    smallest: int = 1
    value_bytes: int = 1


ENCODINGS = {
    'rgb8': Encoding('rgb8', 3),
    'bgr8': Encoding('bgr8', 3),
    'rgba8': Encoding('rgba8', 4),
    'bgra8': Encoding('bgra8', 4),
    'mono8': Encoding('mono8', 1),
    'rgb16': Encoding('rgb8', 6, value_bytes=2),
    'bgr16': Encoding('bgr8', 6, value_bytes=2),
    'rgba16': Encoding('rgba8', 8, value_bytes=2),
    'bgra16': Encoding('bgra8', 8, value_bytes=2),
    'mono16': Encoding('mono8', 2, value_bytes=2),
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
    'bayer_rggb16': Encoding('bayer_rggb8', 2, smallest=3, value_bytes=2),
    'bayer_bggr16': Encoding('bayer_bggr8', 2, smallest=3, value_bytes=2),
    'bayer_gbrg16': Encoding('bayer_gbrg8', 2, smallest=3, value_bytes=2),
    'bayer_grbg16': Encoding('bayer_grbg8', 2, smallest=3, value_bytes=2),
}


def image_to_rgb(message: Any, sixteen_bit: str = 'high_byte') -> NDArray[np.uint8]:
    """Return a message's pixels as (H, W, 3) uint8 RGB; an rgb8 message's are not copied.

    Args:
        message: sensor_msgs/Image.
        sixteen_bit: high_byte or stretch: how 16 bits become 8, as to_eight_bits has it.

    Raises:
        BadImage: the encoding is not supported, or the sizes do not fit each other.
    """
    if message.encoding == '16UC1' and sixteen_bit == 'stretch':
        encoding = ENCODINGS['mono16']
    elif message.encoding == '16UC1':
        raise BadImage(
            "encoding '16UC1' is not supported: its values have no scale, and may be depth; "
            'publish mono16, or set images.sixteen_bit to stretch'
        )
    elif message.encoding in ENCODINGS:
        encoding = ENCODINGS[message.encoding]
    else:
        raise BadImage(
            f'encoding {message.encoding[:32]!a} is not supported; '
            f'these are: {", ".join(ENCODINGS)}'
        )
    values = pixel_view(message, encoding)
    if encoding.value_bytes == 2:
        values = to_eight_bits(values, sixteen_bit)
    return to_rgb(values, encoding.name)


def to_rgb(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Return pixels of an encoding of 8 bits as (H, W, 3) RGB.

    Raises:
        BadImage: they could not be converted.
    """
    if name == 'rgb8':
        return pixels
    reason: Exception | str = 'neither cv_bridge nor rosbags-image is here'
    for convert in color_converters():
        try:
            return convert(pixels, name, 'rgb8')
        except Exception as error:  # each raises types of its own for what it can't convert
            reason = error
    raise BadImage(f'encoding {name} could not be converted: {reason}')


def pixel_view(message: Any, encoding: Encoding) -> NDArray[Any]:
    """Return a message's pixels without a copy, checked.

    Returns:
        (H, W) or (H, W, channels) uint8, or uint16 in the message's byte order, over its memory,
        row padding left out; for nv12 and nv21 (H * 3 / 2, W).

    Raises:
        BadImage: the sizes do not fit each other.
    """
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
    size, kind = encoding.value_bytes, f'u{encoding.value_bytes}'
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    channels = encoding.pixel_bytes // size
    if channels == 1:
        return np.ndarray((rows, width), dtype, message.data, strides=(step, size))
    strides = (step, encoding.pixel_bytes, size)
    return np.ndarray((rows, width, channels), dtype, message.data, strides=strides)


def to_eight_bits(values: NDArray[np.uint16], rule: str) -> NDArray[np.uint8]:
    """Return values of 16 bits as 8 bits.

    Args:
        values: (H, W) or (H, W, channels) uint16 of any byte order; a fourth channel is alpha.
        rule: high_byte drops the lower 8 bits, so that 65535 is white. stretch makes the
            picture's lowest value 0 and its highest 255, over all colours together; it is for
            cameras that fill 10, 12 or 14 of the bits. A picture of one value has its high byte.
    """
    low = high = 0
    if rule == 'stretch':
        colours = values[..., :3] if values.ndim == 3 else values
        low, high = int(colours.min()), int(colours.max())
    if low == high:
        first = 0 if values.dtype.str.startswith('>') else 1
        return np.ascontiguousarray(values.view(np.uint8)[..., first::2])
    scale = 255 / (high - low)
    native = np.ascontiguousarray(values, np.uint16)
    stretched: NDArray[np.uint8] = cv2.convertScaleAbs(native, alpha=scale, beta=-low * scale)
    return stretched


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


def compressed_to_rgb(message: Any, sixteen_bit: str = 'high_byte') -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or TIFF message into (H, W, 3) uint8 RGB.

    Its `format` is read as compressed_image_transport writes it: `ENCODING; CODEC compressed
    TARGET`. A grey picture of a Bayer encoding is the mosaic. Of an encoding in colours, red and
    blue are swapped where TARGET is not BGR, as the transport's subscriber does. In any other
    form, such as `jpeg` or nothing, it says nothing about the pixels.

    Args:
        message: sensor_msgs/CompressedImage.
        sixteen_bit: high_byte or stretch: how 16 bits become 8, as to_eight_bits has it.

    Raises:
        BadImage: the data is none of these, is cut off or damaged, or announces too many pixels.
    """
    try:
        pixels = decode(bytes(message.data))
    except NotAnImage as error:
        raise BadImage(
            f'compressed image of format {message.format[:64]!a} '
            'is no readable JPEG or PNG, and no TIFF'
        ) from error
    if pixels.dtype == np.uint16:
        pixels = to_eight_bits(pixels, sixteen_bit)
    encoding, swapped = read_format(message.format)
    if pixels.ndim == 2 and encoding.startswith('bayer_'):
        mosaic = ENCODINGS[encoding]
        check_size(pixels.shape[1], pixels.shape[0], mosaic)
        return to_rgb(pixels, mosaic.name)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if swapped:
        return pixels
    rgb: NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return rgb


def picture_to_rgb(message: Any, sixteen_bit: str = 'high_byte') -> NDArray[np.uint8]:
    """Return the pixels of an Image or a CompressedImage, of rclpy or rosbags, as (H, W, 3) RGB.

    Raises:
        BadImage: it can't be used.
    """
    compressed = hasattr(message, 'format')  # which an Image has not
    return (compressed_to_rgb if compressed else image_to_rgb)(message, sixteen_bit)


def read_format(text: str) -> tuple[str, bool]:
    """Return the encoding that a CompressedImage's format names, and whether red is first.

    Red is first where the picture was handed to the encoder as RGB, though encoders take BGR.
    """
    found = FORMAT.fullmatch(text.strip().lower())
    if not found or found['encoding'] not in ENCODINGS:
        return '', False
    in_colours = found['encoding'].startswith(('rgb', 'bgr'))
    return found['encoding'], in_colours and not found['target'].startswith('bgr')


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
