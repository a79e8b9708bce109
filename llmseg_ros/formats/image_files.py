"""Image files: which are taken for images, and reading them as people see them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from llmseg_ros.formats.decoding import (
    AS_STORED,
    BITS_PER_SAMPLE,
    BadImage,
    check_jpeg_is_whole,
    check_tiff_colours,
    tiff_tag,
)
from llmseg_ros.formats.image_messages import to_eight_bits

IMAGE_SUFFIXES = frozenset(
    ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
)
SIXTEEN_BIT_GREY = ('I;16', 'I;16B', 'I;16L', 'I;16N', 'I')  # modes of Pillow
ORIENTATION = 0x0112  # tag of EXIF
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and one of its values


class ImageFileError(ValueError):
    """An image file can't be used; the message says why and does not repeat the path."""


def is_image_name(path: Path) -> bool:
    """Tell whether a file is taken for an image by its name; hidden ones are not.

    macOS writes a hidden `._NAME` beside every file on disks that aren't its own.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')


def images_below(folder: Path, out: Path | None = None) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted, hidden ones left out.

    Args:
        folder: to look through.
        out: folder of results, of which none are taken.
    """
    return sorted(
        Path(parent, name)
        for parent, folders, names in os.walk(folder)
        for name in names
        if is_image_name(Path(name))
        and not any(part.startswith('.') for part in Path(parent, name).relative_to(folder).parts)
        and not (out and Path(parent).resolve().is_relative_to(out.resolve()))
    )


def read_image_file(
    path: Path, sixteen_bit: str = 'high_byte', upright: bool = True
) -> NDArray[np.uint8]:
    """Read an image, the first of several, as (H, W, 3) uint8 RGB.

    Args:
        path: of the file.
        sixteen_bit: high_byte or stretch: how 16 bits become 8, as to_eight_bits has it.
        upright: turn it as its EXIF says.

    Raises:
        ImageFileError: it does not open, or is cut off.
    """
    with opened_image(path) as image:
        if image.mode == 'F':
            raise ImageFileError('the image has float values, which are no picture')
        if image.format == 'TIFF':
            check_tiff_colours(image)
        if image.mode in SIXTEEN_BIT_GREY:
            picture = Image.fromarray(to_eight_bits(grey_values(image), sixteen_bit))
        elif sixteen_bit == 'stretch' and has_sixteen_bit_colours(image):
            picture = Image.fromarray(to_eight_bits(colour_values(path), sixteen_bit))
        else:
            picture = image
        if image.format in ('JPEG', 'MPO'):
            check_jpeg_is_whole(path.read_bytes(), np.asarray(image))
        if upright and (turned := image.getexif().get(ORIENTATION)):
            picture.getexif()[ORIENTATION] = turned
            picture = ImageOps.exif_transpose(picture)
        return np.array(picture.convert('RGB'))


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file.

    Raises:
        ImageFileError: it can't be read, here or in the block.
    """
    try:
        with Image.open(path) as image:
            yield image
    except (MemoryError, ImageFileError):
        raise
    except BadImage as error:
        raise ImageFileError(f'the image can not be used: {error}') from error
    except Image.UnidentifiedImageError as error:
        raise ImageFileError('this is not an image, or one of an unknown format') from error
    except Image.DecompressionBombError as error:
        raise ImageFileError('the image has too many pixels') from error
    except OSError as error:
        raise ImageFileError(f'the image does not open: {error.strerror or error}') from error
    except Exception as error:  # Pillow's plug-ins raise what their parsers run into
        raise ImageFileError(f'the image is damaged: {error}') from error


def grey_values(image: Image.Image) -> NDArray[np.uint16]:
    """Return the (H, W) values of a grey picture of more than 8 bits.

    Raises:
        ImageFileError: they have more than 16 bits.
    """
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ImageFileError('the image has values of more than 16 bits, which are no picture')
    if image.format == 'TIFF' and tiff_tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 65535 - values
    return values.astype(np.uint16)


def has_sixteen_bit_colours(image: Image.Image) -> bool:
    """Tell whether the file has 16 bits a colour, of which Pillow reads the high bytes."""
    if image.format == 'TIFF':
        return 16 in tiff_tag(image, BITS_PER_SAMPLE)
    how_stored = [part.args for part in image.tile]  # type: ignore[attr-defined]
    if image.format == 'PNG':
        return any(str(mode).endswith(';16B') for mode in how_stored)
    return image.format == 'PPM' and any(args[-1] > 255 for args in how_stored)


def colour_values(path: Path) -> NDArray[np.uint16]:
    """Return the (H, W, 3) values of a picture of 16 bits a colour as RGB.

    Raises:
        ImageFileError: OpenCV does not read it.
    """
    values = cv2.imdecode(np.fromfile(path, np.uint8), AS_STORED)
    if values is None or values.dtype != np.uint16:
        raise ImageFileError('the image has 16 bits a colour and is damaged')
    return values[..., ::-1] if values.ndim == 3 else values  # type: ignore[return-value]
