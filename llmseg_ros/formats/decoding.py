"""Pixels out of JPEG, PNG and TIFF bytes: of whole pictures only, whatever follows them."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

MAX_PIXELS = 1 << 25  # a header may announce more than memory holds
AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
TIFF_HEADS = (b'II*\0', b'MM\0*')
BITS_PER_SAMPLE, PLANES, APART = 258, 284, 2  # tags of TIFF, and a value of the second

PNG_HEAD = b'\x89PNG\r\n\x1a\n'
PNG_CHUNK_FRAME = 12  # bytes of a chunk beside its content: length, type, checksum

JPEG_HEAD = b'\xff\xd8\xff'
JPEG_END = b'\xff\xd9'
JPEG_END_MARKER, JPEG_SCAN_MARKER = 0xD9, 0xDA
JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_MARKER = re.compile(rb'\xff+([\xc0-\xcf\xd9-\xfe])')  # none that stands for a new picture
JPEG_AFTER_SCAN = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
JPEG_NOTHING_LEFT = 128  # what decoders make of pixels whose data is not there


class BadImage(ValueError):
    """A picture can't be used; the message is one sentence that says why."""


class NotAnImage(BadImage):
    """The data is of no format that is read."""


def decode(data: bytes) -> NDArray[Any]:
    """Decode the JPEG, PNG or TIFF that data begins with; bytes after its end don't matter.

    Of several pictures in one file it is the first. Its orientation is left as it is.

    Returns:
        (H, W) grey or (H, W, 3) BGR, uint8 or, of PNG and TIFF, uint16; alpha is left out.

    Raises:
        BadImage: it is cut off, damaged, of other values, or announces too many pixels.
        NotAnImage: it is of no such format.
    """
    kind, width, height, end = extent(data)
    if not width or not height:
        raise BadImage(f'the image is empty: {width} x {height} pixels')
    if width * height > MAX_PIXELS:
        raise BadImage(f'{width} x {height} pixels are more than the {MAX_PIXELS} allowed')
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8, end), AS_STORED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise BadImage(f'{kind} data of {len(data)} bytes is damaged')
    if pixels.dtype not in (np.uint8, np.uint16):
        raise BadImage(f'{kind} data has {pixels.dtype} values, which are no picture')
    if kind == 'JPEG' and ran_out(data[:end], pixels):
        raise BadImage(f'{kind} data of {len(data)} bytes is cut off')
    return pixels


def extent(data: bytes) -> tuple[str, int, int, int]:
    """Return the format, width, height and length in bytes of the picture data begins with.

    Raises:
        BadImage: it is cut off.
        NotAnImage: it is of no such format.
    """
    if data.startswith(JPEG_HEAD):
        return 'JPEG', *jpeg_extent(data)
    if data.startswith(PNG_HEAD):
        return 'PNG', *png_extent(data)
    if data.startswith(TIFF_HEADS):
        return 'TIFF', *tiff_size(data), len(data)
    raise NotAnImage('the data is no JPEG, PNG or TIFF')


def jpeg_extent(data: bytes) -> tuple[int, int, int]:
    """Return width and height of a JPEG, and its length up to the end mark (ITU-T T.81, annex B).

    The first end mark in the data may be that of a thumbnail, so its segments are walked.

    Raises:
        BadImage: it is cut off.
        NotAnImage: it ends before its size.
    """
    width = height = 0
    at = 2
    while found := JPEG_MARKER.match(data, at):
        marker, at = found[1][0], found.end()
        if marker == JPEG_END_MARKER:
            return width, height, at
        if marker in JPEG_SIZE_MARKERS:
            height, width = (int.from_bytes(data[i : i + 2], 'big') for i in (at + 3, at + 5))
        at += int.from_bytes(data[at : at + 2], 'big')
        if marker == JPEG_SCAN_MARKER:
            after = JPEG_AFTER_SCAN.search(data, at)
            at = after.start() if after else len(data)
    if not width:
        raise NotAnImage('the JPEG ends before its size')
    raise BadImage(f'JPEG data of {len(data)} bytes is cut off')


def check_jpeg_is_whole(data: bytes, pixels: NDArray[Any]) -> None:
    """Check a JPEG that a decoder made pixels of, which may have filled up what is missing.

    Raises:
        BadImage: it is cut off.
    """
    *_, end = jpeg_extent(data)
    if ran_out(data[:end], pixels):
        raise BadImage(f'JPEG data of {len(data)} bytes is cut off')


def ran_out(data: bytes, pixels: NDArray[Any]) -> bool:
    """Tell whether a JPEG's pixels ended before its end mark, which some drivers always write.

    Decoders make grey of what is not there and don't say so. Where the last pixels are that grey,
    more data before the end mark would change them.
    """
    if (pixels[-8:, -8:] != JPEG_NOTHING_LEFT).any():
        return False
    continued = (data[: -len(JPEG_END)] + byte * 64 + JPEG_END for byte in (b'\xaa', b'\x55'))
    try:
        first, second = (
            np.asarray(PillowImage.open(io.BytesIO(jpeg), formats=('JPEG',))) for jpeg in continued
        )
    except (OSError, ValueError):  # of a kind that OpenCV reads and Pillow doesn't
        return False
    return not np.array_equal(first, second)


def png_extent(data: bytes) -> tuple[int, int, int]:
    """Return width and height of a PNG, and its length up to its last chunk (ISO/IEC 15948).

    Raises:
        BadImage: it is cut off.
        NotAnImage: it ends before its size.
    """
    if data[12:16] != b'IHDR' or len(data) < 24:
        raise NotAnImage('the PNG ends before its size')
    width, height = (int.from_bytes(data[i : i + 4], 'big') for i in (16, 20))
    at = len(PNG_HEAD)
    while at + PNG_CHUNK_FRAME <= len(data):
        kind = data[at + 4 : at + 8]
        at += int.from_bytes(data[at : at + 4], 'big') + PNG_CHUNK_FRAME
        if kind == b'IEND' and at <= len(data):
            return width, height, at
    raise BadImage(f'PNG data of {len(data)} bytes is cut off')


def tiff_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a TIFF; its parts may lie in any order, so it has no end.

    Raises:
        BadImage: its colours would be mixed up.
        NotAnImage: its directory can't be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PillowImage.open(io.BytesIO(data), formats=('TIFF',)) as header:
                check_tiff_colours(header)
                return header.size
    except BadImage:
        raise
    except Exception as error:  # Pillow's parser raises what it runs into
        raise NotAnImage('the TIFF has no directory that can be read') from error


def check_tiff_colours(image: PillowImage.Image) -> None:
    """Check that the colours of a TIFF are read: of 16 bits in planes neither reader here is right.

    Raises:
        BadImage: they are not.
    """
    deep = 16 in tiff_tag(image, BITS_PER_SAMPLE)
    if deep and tiff_tag(image, PLANES) == APART and len(image.getbands()) > 1:
        raise BadImage('the TIFF has 16 bits a colour in planes: write the colours side by side')


def tiff_tag(image: PillowImage.Image, number: int) -> Any:
    """Return the value of a tag of a TIFF, an empty tuple where it has none."""
    return image.tag_v2.get(number, ())  # type: ignore[attr-defined]
