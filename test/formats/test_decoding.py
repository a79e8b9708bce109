"""JPEG, PNG and TIFF bytes, with what cameras, drivers and disks make of them."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llmseg_ros.formats.decoding import BadImage, NotAnImage, decode

PHOTOGRAPH = Image.fromarray(skimage.data.astronaut()[:200, :240])
OTHER = Image.fromarray(skimage.data.coffee()[:200, :240])
END = b'\xff\xd9'


def encode(kind: str = 'JPEG', picture: Image.Image = PHOTOGRAPH, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.copy().save(stream, kind, **options)  # Pillow keeps the encoder of the last save
    return stream.getvalue()


def with_thumbnail() -> bytes:
    """Make a JPEG whose EXIF has a whole JPEG in it, as cameras and telephones write them."""
    thumbnail = encode(picture=OTHER.resize((40, 30)))
    return encode(exif=b'Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0' + thumbnail)


WHOLE = {
    'baseline': encode(quality=90),
    'progressive': encode(progressive=True),
    'restart markers': encode(restart_marker_rows=1),
    'no subsampling': encode(subsampling=0, optimize=True),
    'grey': encode(picture=PHOTOGRAPH.convert('L')),
    'thumbnail': with_thumbnail(),
    'comment': encode(comment=b'a comment with \xff\xd9 in it'),
    'padded marker': encode()[:2] + b'\xff\xff' + encode()[2:],
    'grey corner': encode(picture=Image.new('RGB', (200, 120), (128, 128, 128))),
    'png': encode('PNG'),
    'png, interlaced palette': encode('PNG', PHOTOGRAPH.quantize(16)),
}
STALE = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
AFTER = {
    'zeros': bytes(1000),
    'stale bytes': STALE,
    'stale bytes and zeros': STALE + bytes(99),
    'ff': b'\xff' * 7,
    'line end': b'\r\n--boundary\r\n',
    'another JPEG': encode(picture=OTHER),
    'half a JPEG': encode(picture=OTHER)[:3000],
    'another PNG': encode('PNG', OTHER),
    'end marks': END * 3,
}


def as_seen(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    assert pixels is not None
    return pixels


@pytest.mark.parametrize('name', WHOLE)
@pytest.mark.parametrize('after', AFTER)
def test_bytes_after_the_end_do_not_matter(name: str, after: str) -> None:
    data = WHOLE[name]
    np.testing.assert_array_equal(decode(data + AFTER[after]), as_seen(data))


@pytest.mark.parametrize('kind', ['MPO', 'PNG', 'TIFF'])
def test_the_first_of_several_pictures_counts(kind: str) -> None:
    data = encode(kind, save_all=True, append_images=[OTHER.copy()])
    alone = encode('JPEG' if kind == 'MPO' else kind)
    np.testing.assert_array_equal(decode(data), as_seen(alone))


@pytest.mark.parametrize('name', WHOLE)
@pytest.mark.parametrize('after', ['nothing', 'zeros', 'stale bytes', 'ff', 'another JPEG'])
@pytest.mark.parametrize('left', [0.3, 0.7, 0.98])
def test_what_is_cut_off_stays_refused(name: str, after: str, left: float) -> None:
    data = WHOLE[name]
    with pytest.raises(BadImage):
        decode(data[: int(len(data) * left)] + AFTER.get(after, b''))


@pytest.mark.parametrize('name', ['baseline', 'restart markers', 'no subsampling', 'grey'])
def test_a_cut_off_jpeg_with_an_end_mark_stays_refused(name: str) -> None:
    data = WHOLE[name]
    with pytest.raises(BadImage, match='is cut off'):
        decode(data[: len(data) * 2 // 3] + END)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), cut=st.integers(1, 10**6))
def test_a_cut_anywhere_is_refused(name: str, cut: int) -> None:
    data = WHOLE[name]
    with pytest.raises(BadImage):
        decode(data[: cut % len(data)])


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\0', b'MM\0*', b'']),
    data=st.binary(max_size=300),
)
def test_any_bytes_are_refused_with_a_sentence(head: bytes, data: bytes) -> None:
    with pytest.raises(BadImage) as refusal:
        decode(head + data)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize('data', [b'', b'GIF89a', b'\xff\xd8\xff\xe0 but no more', b'<html>'])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        decode(data)


def test_a_jpeg_that_announces_too_many_pixels_is_not_decoded() -> None:
    data = bytearray(WHOLE['baseline'])
    at = data.index(b'\xff\xc0') + 5
    data[at : at + 4] = struct.pack('>HH', 60000, 60000)
    with pytest.raises(BadImage, match='pixels are more than'):
        decode(bytes(data))


@pytest.mark.parametrize('kind', ['.png', '.tiff'])
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 3)])
def test_sixteen_bits_are_kept(kind: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    np.testing.assert_array_equal(decode(bytes(cv2.imencode(kind, values)[1])), values)


def test_floats_are_no_picture() -> None:
    data = bytes(cv2.imencode('.tiff', np.ones((4, 4), np.float32))[1])
    with pytest.raises(BadImage, match='float32 values'):
        decode(data)


@pytest.mark.parametrize('compression', ['raw', 'tiff_lzw', 'tiff_deflate', 'packbits'])
def test_tiffs_are_whole_or_refused(compression: str) -> None:
    data = encode('TIFF', compression=compression)
    np.testing.assert_array_equal(decode(data)[..., ::-1], np.asarray(PHOTOGRAPH))
    np.testing.assert_array_equal(decode(data + STALE)[..., ::-1], np.asarray(PHOTOGRAPH))
    with pytest.raises(BadImage):
        decode(data[: len(data) // 2])
