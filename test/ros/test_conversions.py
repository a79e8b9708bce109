"""Image messages to arrays and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

import cv2
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.formats import image_messages
from llmseg_ros.formats.image_messages import BadImage, compressed_to_rgb, image_to_rgb
from llmseg_ros.ros.conversions import (
    array_to_image,
    confidence_to_image,
    label_encoding,
    labels_to_image,
    segmentation_to_masks,
    vocabulary_to_label_map,
)
from llmseg_ros.segmentation import ClassResult, Segmentation
from llmseg_ros.vocabulary import Vocabulary, VocabularyClass

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
FOUR_COLOURS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)


@pytest.fixture(params=['cv_bridge', 'rosbags'])
def with_converter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert colours by cv_bridge, as where it is installed, and by rosbags-image alone."""
    if request.param == 'rosbags':
        converters = (image_messages.rosbags_converter(),)
        monkeypatch.setattr(image_messages, 'color_converters', lambda: converters)
    elif image_messages.cv_bridge_converter() is None:
        pytest.skip('cv_bridge is not here, or does not work with this NumPy')


by_either_converter = pytest.mark.usefixtures('with_converter')


def make_image(
    encoding: str, rows: list[bytes], width: int, height: int, padding: int = 0, big: bool = False
) -> Image:
    """Make a message of rows of bytes, each followed by padding."""
    message = Image(encoding=encoding, width=width, height=height, is_bigendian=int(big))
    message.step = len(rows[0]) + padding
    message.data = b''.join(row + b'\xaa' * padding for row in rows)
    return message


def rows_of(pixels: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in pixels]


@by_either_converter
@pytest.mark.parametrize('padding', [0, 1, 5])
@pytest.mark.parametrize(
    ('encoding', 'channels'),
    [
        ('rgb8', [0, 1, 2]),
        ('bgr8', [2, 1, 0]),
        ('8UC3', [2, 1, 0]),
        ('rgba8', [0, 1, 2, 0]),
        ('bgra8', [2, 1, 0, 0]),
        ('8UC4', [2, 1, 0, 0]),
    ],
)
def test_colours_keep_their_places(encoding: str, channels: list[int], padding: int) -> None:
    rows = rows_of(FOUR_COLOURS[..., channels])
    rgb = image_to_rgb(make_image(encoding, rows, 2, 2, padding))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, FOUR_COLOURS)


@by_either_converter
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding: str) -> None:
    rgb = image_to_rgb(make_image(encoding, [b'\x00\x7f\xff'], 3, 1, padding=2))
    np.testing.assert_array_equal(rgb, [[[0] * 3, [127] * 3, [255] * 3]])


@by_either_converter
@pytest.mark.parametrize('big', [False, True])
def test_mono16_is_scaled_in_either_byte_order(big: bool) -> None:
    values = np.array([0, 0x7FAB, 0xFFFF], '>u2' if big else '<u2')
    rgb = image_to_rgb(make_image('mono16', [values.tobytes()], 3, 1, padding=3, big=big))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 0x7F, 0xFF])


@by_either_converter
@pytest.mark.parametrize('encoding', ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2'])
def test_yuv422_red(encoding: str) -> None:
    y, u, v = 82, 90, 240  # red in BT.601, studio range
    pair = bytes([u, y, v, y] if encoding in ('uyvy', 'yuv422') else [y, u, y, v])
    rgb = image_to_rgb(make_image(encoding, [pair, pair], 2, 2, padding=4))
    np.testing.assert_allclose(rgb, np.broadcast_to(RED, (2, 2, 3)), atol=3)


@by_either_converter
@pytest.mark.parametrize(('encoding', 'chroma'), [('nv12', [90, 240]), ('nv21', [240, 90])])
def test_nv_red(encoding: str, chroma: list[int]) -> None:
    rows = [bytes([82, 82])] * 2 + [bytes(chroma)]
    rgb = image_to_rgb(make_image(encoding, rows, 2, 2, padding=6))
    np.testing.assert_allclose(rgb, np.broadcast_to(RED, (2, 2, 3)), atol=3)


@by_either_converter
@pytest.mark.parametrize(
    ('encoding', 'red_at'),
    [
        ('bayer_rggb8', (0, 0)),
        ('bayer_grbg8', (0, 1)),
        ('bayer_gbrg8', (1, 0)),
        ('bayer_bggr8', (1, 1)),
    ],
)
def test_bayer_red(encoding: str, red_at: tuple[int, int]) -> None:
    mosaic = np.zeros((6, 6), np.uint8)
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = 200
    rgb = image_to_rgb(make_image(encoding, rows_of(mosaic), 6, 6, padding=1))
    np.testing.assert_array_equal(rgb[2:4, 2:4], np.broadcast_to((200, 0, 0), (2, 2, 3)))


def test_an_rgb8_message_is_not_copied() -> None:
    message = make_image('rgb8', rows_of(FOUR_COLOURS), 2, 2, padding=3)
    rgb = image_to_rgb(message)
    message.data[0] = 7
    assert rgb[0, 0, 0] == 7


def broken(**changes: object) -> Image:
    """Make a good 4 x 2 rgb8 message, then change fields of it."""
    message = make_image('rgb8', [bytes(12)] * 2, 4, 2)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (broken(encoding='theora'), "encoding 'theora' is not supported"),
        (broken(encoding=''), "encoding '' is not supported"),
        (broken(encoding='32FC1', step=16, data=np.full(8, np.nan, 'f4').tobytes()), '32FC1'),
        (broken(encoding='16UC1'), "'16UC1' is not supported"),
        (broken(encoding='a\nb'), r"encoding 'a\nb' is not supported"),
        (broken(width=0), 'the image is empty: 0 x 2 pixels'),
        (broken(height=0), 'the image is empty: 4 x 0 pixels'),
        (broken(step=11), 'step 11 is less than the 12 bytes of a row of 4 rgb8 pixels'),
        (broken(step=13), 'data has 24 bytes, but 2 rows of step 13 are 26'),
        (broken(data=bytes(23)), 'data has 23 bytes, but 2 rows of step 12 are 24'),
        (broken(data=bytes(25)), 'data has 25 bytes'),
        (broken(data=b''), 'data has 0 bytes'),
        (broken(width=1 << 31, height=1 << 31), 'pixels are more than'),
        (broken(width=(1 << 32) - 1, step=(1 << 32) - 1), 'pixels are more than'),
        (broken(encoding='uyvy', width=3), '3 x 2 pixels are not a whole yuv422 image'),
        (broken(encoding='nv12', height=3), '4 x 3 pixels are not a whole nv12 image'),
        (broken(encoding='bayer_rggb8'), '4 x 2 pixels are not a whole bayer_rggb8 image'),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(message: Image, reason: str) -> None:
    with pytest.raises(BadImage) as refusal:
        image_to_rgb(message)
    assert reason in str(refusal.value)
    assert '\n' not in str(refusal.value)


def encode(kind: str, bgr: np.ndarray) -> bytes:
    return bytes(cv2.imencode(kind, bgr)[1])


@pytest.mark.parametrize(('kind', 'tolerance'), [('.png', 0), ('.jpg', 6)])
def test_compressed_images_are_decoded(kind: str, tolerance: int) -> None:
    bgr = np.full((16, 24, 3), (10, 60, 200), np.uint8)
    rgb = compressed_to_rgb(CompressedImage(format='bgr8; compressed', data=encode(kind, bgr)))
    np.testing.assert_allclose(rgb, bgr[..., ::-1], atol=tolerance)


def test_a_16_bit_png_is_scaled() -> None:
    data = encode('.png', np.full((4, 4), 0x80FF, np.uint16))
    np.testing.assert_array_equal(compressed_to_rgb(CompressedImage(data=data)), 0x80)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
PNG_CHUNK = 50  # in the middle of the compressed pixels


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'is no readable JPEG or PNG'),
        (b'\xff\xd8\xff\xe0 but no more', 'is no readable JPEG or PNG'),
        (encode('.bmp', NOISE), 'is no readable JPEG or PNG'),
        (encode('.jpg', NOISE)[:-200], 'JPEG data of'),
        (encode('.png', NOISE)[:-200], 'PNG data of'),
    ],
)
def test_damaged_compressed_images_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        compressed_to_rgb(CompressedImage(format='jpeg', data=data))


def test_a_png_that_announces_too_many_pixels_is_not_decoded() -> None:
    data = bytearray(encode('.png', NOISE))
    data[16:24] = (60000).to_bytes(4, 'big') * 2  # IHDR: width and height
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
    with pytest.raises(BadImage):
        compressed_to_rgb(CompressedImage(format='png', data=bytes(data)))


LABELS = np.array([[0, 1, 1], [0, 300, 65535]], np.uint16)
HEADER = Header(frame_id='camera')


@pytest.mark.parametrize(
    ('wanted', 'highest', 'expected'),
    [
        ('auto', 0, 'mono8'),
        ('auto', 254, 'mono8'),
        ('auto', 255, 'mono16'),
        ('mono16', 3, 'mono16'),
        ('16SC1', 3, '16SC1'),
    ],
)
def test_label_encoding(wanted: str, highest: int, expected: str) -> None:
    assert label_encoding(wanted, highest) == expected


@pytest.mark.parametrize(
    ('encoding', 'dtype', 'step'), [('mono8', 'u1', 3), ('mono16', 'u2', 6), ('16SC1', 'i2', 6)]
)
def test_labels_to_image(encoding: str, dtype: str, step: int) -> None:
    message = labels_to_image(LABELS, encoding, HEADER)
    assert (message.encoding, message.width, message.height, message.step) == (encoding, 3, 2, step)
    assert message.header == HEADER
    values = np.frombuffer(message.data, dtype).reshape(2, 3)
    np.testing.assert_array_equal(values, LABELS.astype(dtype))


def test_unlabelled_is_255_in_mono8() -> None:
    assert labels_to_image(LABELS, 'mono8', HEADER).data[5] == 255


def test_confidence_to_image() -> None:
    confidence = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert list(confidence_to_image(confidence, HEADER).data) == [0, 128, 255]


def test_a_strided_array_is_written_row_by_row() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::2]
    message = array_to_image(pixels, 'rgb8', HEADER)
    assert message.step == 6
    np.testing.assert_array_equal(image_to_rgb(message), pixels)


def test_masks_are_cropped_to_their_boxes_largest_first() -> None:
    labels = np.zeros((4, 5), np.uint16)
    labels[1:3, 1:4] = 7
    labels[1, 1] = labels[0, 4] = 300
    results = (
        ClassResult(300, 'cup', 0.25, 2, (1, 0, 4, 2)),
        ClassResult(7, 'cat', 0.5, 5, (1, 1, 3, 2)),
        ClassResult(8, 'dog', 0.1, 0, (0, 0, 0, 0)),
    )
    confidence = np.ones((4, 5), np.float32)
    message = segmentation_to_masks(Segmentation(labels, confidence, results, 9, {}), HEADER)
    assert (message.header, message.label_version) == (HEADER, 9)
    assert (message.height, message.width) == (4, 5)
    cat, cup = message.masks
    assert (cat.class_id, cat.class_name, cat.score, cat.area) == (7, 'cat', 0.5, 5)
    assert (cat.roi.x_offset, cat.roi.y_offset, cat.roi.width, cat.roi.height) == (1, 1, 3, 2)
    assert (cat.mask.encoding, cat.mask.header) == ('mono8', HEADER)
    assert list(cat.mask.data) == [0, 255, 255, 255, 255, 255]
    assert list(cup.mask.data) == [0, 0, 0, 255, 255, 0, 0, 0]


def test_the_label_map_shows_what_competes_beside_each_class() -> None:
    import torch

    boat = VocabularyClass(3, 'boat', ('canoe',), 'pack', ('dock', 'sea'))
    quay = VocabularyClass(7, 'quay', (), 'name')
    nothing = torch.zeros(0, 0)
    message = vocabulary_to_label_map(
        Vocabulary(5, (boat, quay), nothing[None], nothing.bool()), Header()
    )
    assert message.version == 5
    assert [list(item.contrasts) for item in message.classes] == [['dock', 'sea'], []]
    assert [list(item.subclasses) for item in message.classes] == [['boat', 'canoe'], ['quay']]


def test_a_class_of_one_pixel_has_a_mask() -> None:
    labels = np.zeros((4, 5), np.uint16)
    labels[2, 3] = 7
    results = (ClassResult(7, 'cat', 0.5, 1, (3, 2, 1, 1)),)
    of = Segmentation(labels, np.ones((4, 5), np.float32), results, 9, {})
    (cat,) = segmentation_to_masks(of, HEADER).masks
    assert (cat.mask.height, cat.mask.width, list(cat.mask.data)) == (1, 1, [255])
