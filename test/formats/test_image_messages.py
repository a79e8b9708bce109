"""What CompressedImage's format says, 16 bits in messages and files: no ROS needed."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from llmseg_ros.formats.image_files import ImageFileError, read_image_file
from llmseg_ros.formats.image_messages import (
    BadImage,
    compressed_to_rgb,
    image_to_rgb,
    to_eight_bits,
)

COLOUR = np.array([180, 90, 30], np.uint8)
SCENE = np.broadcast_to(COLOUR, (32, 48, 3))
RED_FIRST = {'rggb': (0, 0), 'grbg': (0, 1), 'gbrg': (1, 0), 'bggr': (1, 1)}


def encoded(kind: str, bgr: np.ndarray) -> bytes:
    return bytes(cv2.imencode(kind, bgr)[1])


def compressed(form: str, data: bytes) -> SimpleNamespace:
    return SimpleNamespace(format=form, data=data)


def mosaic(order: str) -> np.ndarray:
    """Make the Bayer mosaic of the scene."""
    row, column = RED_FIRST[order]
    values = np.full(SCENE.shape[:2], COLOUR[1], np.uint8)
    values[row::2, column::2] = COLOUR[0]
    values[1 - row :: 2, 1 - column :: 2] = COLOUR[2]
    return values


def raw(encoding: str, values: np.ndarray, big: bool = False, padding: int = 0) -> SimpleNamespace:
    """Make a message of values, each row followed by padding."""
    order = '>u2' if big else '<u2'
    if values.dtype == np.uint16:
        values = values.astype(order)
    rows = [row.tobytes() + b'\xaa' * padding for row in values]
    return SimpleNamespace(
        encoding=encoding,
        height=values.shape[0],
        width=values.shape[1],
        step=len(rows[0]),
        is_bigendian=int(big),
        data=b''.join(rows),
    )


AS_USUAL, RED_AND_BLUE_SWAPPED = SCENE[..., ::-1], SCENE


@pytest.mark.parametrize('kind', ['.jpg', '.png', '.tiff'])
@pytest.mark.parametrize(
    ('form', 'handed_over'),
    [
        ('', AS_USUAL),
        ('{}', AS_USUAL),
        ('no format anyone knows', AS_USUAL),
        ('bgr8; compressed', AS_USUAL),
        ('rgb8; {} compressed bgr8', AS_USUAL),
        ('bgr8; {} compressed bgr8', AS_USUAL),
        ('rgba8; {} compressed bgr8', AS_USUAL),
        ('bgra8; {} compressed bgra8', AS_USUAL),
        ('RGB8; {} compressed BGR8', AS_USUAL),
        ('rgb16; {} compressed bgr16', AS_USUAL),
        ('8UC3; {} compressed ', AS_USUAL),
        ('yuv422; {} compressed bgr8', AS_USUAL),
        ('bayer_rggb8; {} compressed bgr8', AS_USUAL),
        ('rgb8; {} compressed rgb8', RED_AND_BLUE_SWAPPED),
        ('bgr8; {} compressed rgb8', RED_AND_BLUE_SWAPPED),
        ('bgra8; {} compressed rgba8', RED_AND_BLUE_SWAPPED),
        ('rgb8; {} compressed ', RED_AND_BLUE_SWAPPED),
    ],
)
def test_colours_lie_as_the_format_says(kind: str, form: str, handed_over: np.ndarray) -> None:
    codec = {'.jpg': 'jpeg', '.png': 'png', '.tiff': 'tiff'}[kind]
    rgb = compressed_to_rgb(compressed(form.format(codec), encoded(kind, handed_over)))
    np.testing.assert_allclose(rgb, SCENE, atol=4 if kind == '.jpg' else 0)


@pytest.mark.parametrize('order', RED_FIRST)
@pytest.mark.parametrize('kind', ['jpeg', 'png', 'tiff'])
def test_a_bayer_mosaic_gets_its_colours(order: str, kind: str) -> None:
    message = compressed(f'bayer_{order}8; {kind} compressed ', encoded(f'.{kind}', mosaic(order)))
    rgb = compressed_to_rgb(message)
    np.testing.assert_allclose(rgb[2:-2, 2:-2], SCENE[2:-2, 2:-2], atol=6 * (kind == 'jpeg'))


@pytest.mark.parametrize('form', ['mono8; png compressed ', '8UC1; png compressed ', 'png'])
def test_grey_is_grey(form: str) -> None:
    grey = mosaic('rggb')
    rgb = compressed_to_rgb(compressed(form, encoded('.png', grey)))
    np.testing.assert_array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))


def test_a_mosaic_too_small_for_colours_is_refused() -> None:
    data = encoded('.png', np.zeros((2, 2), np.uint8))
    with pytest.raises(BadImage, match='2 x 2 pixels are not a whole bayer_rggb8 image'):
        compressed_to_rgb(compressed('bayer_rggb8; png compressed ', data))


EIGHT = np.random.default_rng(0).integers(0, 256, (32, 48), np.uint8)
EIGHT[0, :2] = 0, 255  # so that it fills the range, and stretching it changes nothing
FULL = EIGHT.astype(np.uint16) * 257
TWELVE = np.rint(EIGHT / 255 * 4095).astype(np.uint16)  # 12 of 16 bits
BY_RULE = [(FULL, 'high_byte', EIGHT), (FULL, 'stretch', EIGHT), (TWELVE, 'stretch', EIGHT)]
BY_RULE += [(TWELVE, 'high_byte', (TWELVE >> 8).astype(np.uint8))]


@pytest.mark.parametrize(('values', 'rule', 'expected'), BY_RULE)
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 3])
def test_sixteen_bits_in_messages(
    values: np.ndarray, rule: str, expected: np.ndarray, big: bool, padding: int
) -> None:
    grey = np.repeat(expected[..., None], 3, axis=2)
    coloured = np.stack([values, values[::-1], values[:, ::-1]], axis=-1)
    rgb = np.stack([expected, expected[::-1], expected[:, ::-1]], axis=-1)
    alpha = np.full_like(values[..., None], 65535)
    for encoding, pixels, result in (
        ('mono16', values, grey),
        ('rgb16', coloured, rgb),
        ('bgr16', coloured[..., ::-1], rgb),
        ('rgba16', np.concatenate([coloured, alpha], axis=-1), rgb),
        ('bgra16', np.concatenate([coloured[..., ::-1], alpha], axis=-1), rgb),
    ):
        got = image_to_rgb(raw(encoding, pixels, big, padding), rule)
        np.testing.assert_array_equal(got, result, err_msg=encoding)
    got = image_to_rgb(raw('bayer_gbrg16', values, big, padding), rule)
    np.testing.assert_array_equal(got, image_to_rgb(raw('bayer_gbrg8', expected), rule))


@pytest.mark.parametrize(('values', 'rule', 'expected'), BY_RULE)
@pytest.mark.parametrize('kind', ['.png', '.tiff'])
def test_sixteen_bits_in_compressed_messages(
    values: np.ndarray, rule: str, expected: np.ndarray, kind: str
) -> None:
    codec, grey = kind[1:], np.repeat(expected[..., None], 3, axis=2)
    for form in (f'mono16; {codec} compressed ', f'16UC1; {codec} compressed ', codec, ''):
        got = compressed_to_rgb(compressed(form, encoded(kind, values)), rule)
        np.testing.assert_array_equal(got, grey)
    coloured = np.stack([values, values[::-1], values[:, ::-1]], axis=-1)
    message = compressed(f'rgb16; {codec} compressed bgr16', encoded(kind, coloured[..., ::-1]))
    rgb = np.stack([expected, expected[::-1], expected[:, ::-1]], axis=-1)
    np.testing.assert_array_equal(compressed_to_rgb(message, rule), rgb)
    message = compressed(f'bayer_grbg16; {codec} compressed ', encoded(kind, values))
    got = compressed_to_rgb(message, rule)
    np.testing.assert_array_equal(got, image_to_rgb(raw('bayer_grbg8', expected)))


def test_16uc1_has_no_scale_unless_it_is_stretched() -> None:
    with pytest.raises(BadImage, match='may be depth; publish mono16, or set images'):
        image_to_rgb(raw('16UC1', TWELVE))
    np.testing.assert_array_equal(image_to_rgb(raw('16UC1', TWELVE), 'stretch')[..., 0], EIGHT)


@pytest.mark.parametrize('value', [0, 4095, 65535])
def test_a_picture_of_one_value_is_not_stretched(value: int) -> None:
    values = np.full((4, 4), value, np.uint16)
    assert (to_eight_bits(values, 'stretch') == value >> 8).all()


@pytest.mark.parametrize(('values', 'rule', 'expected'), BY_RULE)
@pytest.mark.parametrize('name', ['x.png', 'x.tif', 'x.pgm', 'big.tif'])
def test_sixteen_bit_grey_files(
    tmp_path: Path, name: str, values: np.ndarray, rule: str, expected: np.ndarray
) -> None:
    if name == 'big.tif':
        Image.fromarray(values.astype('>u2')).save(tmp_path / name)
    else:
        cv2.imwrite(str(tmp_path / name), values)
    rgb = read_image_file(tmp_path / name, rule)
    np.testing.assert_array_equal(rgb, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize(('values', 'rule', 'expected'), BY_RULE)
@pytest.mark.parametrize('name', ['x.png', 'x.tif'])
def test_sixteen_bit_colour_files(
    tmp_path: Path, name: str, values: np.ndarray, rule: str, expected: np.ndarray
) -> None:
    coloured = np.stack([values, values[::-1], values[:, ::-1]], axis=-1)
    cv2.imwrite(str(tmp_path / name), coloured[..., ::-1])
    rgb = np.stack([expected, expected[::-1], expected[:, ::-1]], axis=-1)
    np.testing.assert_array_equal(read_image_file(tmp_path / name, rule), rgb)


def test_sixteen_bit_files_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(FULL)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'x.png', exif=exif)
    assert read_image_file(tmp_path / 'x.png').shape == (48, 32, 3)
    assert read_image_file(tmp_path / 'x.png', upright=False).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (np.ones((4, 4), np.float32), 'float values'),
        (np.full((4, 4), 1 << 20, np.int32), '16 bits'),
    ],
)
def test_other_values_are_no_picture(tmp_path: Path, values: np.ndarray, message: str) -> None:
    Image.fromarray(values).save(tmp_path / 'x.tif')
    with pytest.raises(ImageFileError, match=message):
        read_image_file(tmp_path / 'x.tif')


def test_a_gif_is_its_first_picture(tmp_path: Path) -> None:
    first, second = (Image.new('RGB', (8, 6), colour) for colour in ('red', 'blue'))
    first.save(tmp_path / 'x.gif', save_all=True, append_images=[second])
    assert (read_image_file(tmp_path / 'x.gif') == (255, 0, 0)).all()


@pytest.mark.parametrize('after', [b'', b'\xff\xd9', bytes(2000)])
def test_a_jpeg_file_that_is_cut_off_is_refused(tmp_path: Path, after: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'x.jpg')
    data = (tmp_path / 'x.jpg').read_bytes()
    (tmp_path / 'x.jpg').write_bytes(data[: len(data) * 2 // 3] + after)
    with pytest.raises(ImageFileError, match=r'cut off|truncated'):
        read_image_file(tmp_path / 'x.jpg')


@pytest.mark.parametrize('kind', ['JPEG', 'MPO'])
def test_bytes_after_a_jpeg_file_do_not_matter(tmp_path: Path, kind: str) -> None:
    grey = Image.new('RGB', (64, 48), (128, 128, 128))
    grey.save(tmp_path / 'x.jpg', kind)
    (tmp_path / 'x.jpg').write_bytes((tmp_path / 'x.jpg').read_bytes() + b'tail' * 100)
    assert (read_image_file(tmp_path / 'x.jpg') == 128).all()


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """Write (H, W) or (3, H, W) uint16 as a TIFF with one strip a plane."""
    planes = values.reshape(-1, *values.shape[-2:]).astype('<u2')
    count, height, width = planes.shape
    strips = [8 + plane * width * height * 2 for plane in range(count)]
    entries = {256: [width], 257: [height], 258: [16] * count, 259: [1], 262: [2], 273: strips}
    entries |= {277: [count], 278: [height], 279: [width * height * 2] * count, 284: [2]}
    entries |= {int(number): [value] for number, value in tags.items()}
    end = 8 + planes.nbytes
    lists = end + 2 + 12 * len(entries) + 4
    directory, beside = len(entries).to_bytes(2, 'little'), b''
    for number, given in sorted(entries.items()):
        packed = np.array(given, '<u4').tobytes()
        if len(given) > 1:
            packed, beside = (lists + len(beside)).to_bytes(4, 'little'), beside + packed
        directory += struct.pack('<HHI', number, 4, len(given)) + packed
    return b'II*\0' + end.to_bytes(4, 'little') + planes.tobytes() + directory + bytes(4) + beside


def test_a_grey_tiff_of_sixteen_bits_in_which_white_is_zero(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8)
    (tmp_path / 'x.tif').write_bytes(tiff(values, **{'262': 0, '284': 1}))
    grey = read_image_file(tmp_path / 'x.tif')[..., 0]
    np.testing.assert_array_equal(grey, (65535 - values) >> 8)


def test_a_tiff_with_planes_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    data = tiff(np.zeros((3, 8, 8), np.uint16))
    (tmp_path / 'x.tif').write_bytes(data)
    with pytest.raises(ImageFileError, match='in planes: write the colours side by side'):
        read_image_file(tmp_path / 'x.tif')
    with pytest.raises(BadImage, match='in planes: write the colours side by side'):
        compressed_to_rgb(SimpleNamespace(format='tiff', data=data))
