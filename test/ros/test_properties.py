"""Any image message at all is converted, or refused with the reason."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.formats.image_messages import ENCODINGS, BadImage, compressed_to_rgb, image_to_rgb
from llmseg_ros.system.memory import process_memory_mib

sides = st.integers(1, 64)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def to_message(encoding: str, rows: np.ndarray, width: int, height: int, padding: int) -> Image:
    rows = rows.reshape(len(rows), -1)
    message = Image(encoding=encoding, width=width, height=height)
    message.step = rows.shape[1] + padding
    message.data = np.pad(rows, ((0, 0), (0, padding)), constant_values=170).tobytes()
    return message


def write(encoding: str, rgb: np.ndarray, big: bool) -> np.ndarray:
    """Write a picture in an encoding that loses nothing of it, or is grey."""
    grey = rgb[..., 0]
    if encoding == 'mono16':
        low = np.full_like(grey, 99)
        return np.stack([grey, low] if big else [low, grey], axis=-1)
    order = {
        'rgb8': [0, 1, 2],
        'bgr8': [2, 1, 0],
        '8UC3': [2, 1, 0],
        'rgba8': [0, 1, 2, 0],
        'bgra8': [2, 1, 0, 0],
        '8UC4': [2, 1, 0, 0],
        'mono8': [0],
        '8UC1': [0],
    }[encoding]
    return rgb[..., order]


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from(
        ['rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', '8UC4', 'mono8', '8UC1', 'mono16']
    ),
    width=sides,
    height=sides,
    padding=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_an_encoding_holds_comes_back(
    encoding: str, width: int, height: int, padding: int, big: bool, seed: int
) -> None:
    rgb = noise(height, width, 3, seed=seed)
    message = to_message(encoding, write(encoding, rgb, big), width, height, padding)
    message.is_bigendian = int(big)
    expected = rgb[..., [0, 0, 0]] if encoding in ('mono8', '8UC1', 'mono16') else rgb
    np.testing.assert_array_equal(image_to_rgb(message), expected)


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from([name for name in ENCODINGS if name not in ('rgb8', 'mono16')]),
    width=sides,
    height=sides,
    padding=st.integers(0, 9),
)
def test_any_size_is_converted_or_refused(
    encoding: str, width: int, height: int, padding: int
) -> None:
    """A picture of one grey is grey in every colour space; what has no whole pixels is refused."""
    about = ENCODINGS[encoding]
    whole = (
        width % about.block[0] == height % about.block[1] == 0
        and min(width, height) >= about.smallest
    )
    rows = height * 3 // 2 if encoding.startswith('nv') else height
    grey = np.full((rows, width * about.pixel_bytes), 128, np.uint8)
    message = to_message(encoding, grey, width, height, padding)
    if not whole:
        with pytest.raises(BadImage, match='are not a whole'):
            image_to_rgb(message)
        return
    rgb = image_to_rgb(message)
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    assert np.ptp(rgb) == 0


@settings(max_examples=100, deadline=None)
@given(width=sides, height=sides, kind=st.sampled_from(['.png', '.jpg']), cut=st.integers(0, 400))
def test_a_compressed_image_is_decoded_or_refused(
    width: int, height: int, kind: str, cut: int
) -> None:
    data = bytes(cv2.imencode(kind, noise(height, width, 3))[1])
    message = CompressedImage(format=kind, data=data[: max(0, len(data) - cut)])
    if cut:
        with pytest.raises(BadImage):
            compressed_to_rgb(message)
    else:
        assert compressed_to_rgb(message).shape == (height, width, 3)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), head=st.sampled_from([b'', b'\xff\xd8\xff', b'\x89PNG\r\n']))
def test_any_bytes_are_no_reason_to_crash(data: bytes, head: bytes) -> None:
    with pytest.raises(BadImage):
        compressed_to_rgb(CompressedImage(data=head + data))


def random_message(random: np.random.Generator) -> Image:
    """Make a message whose fields are plausible one by one, and seldom fit each other."""
    encodings = [*ENCODINGS, 'theora', '32FC1', '16UC1', '', 'rgb16', '\x00']
    width, height = (int(side) for side in random.integers(0, 80, 2))
    message = Image(
        encoding=encodings[random.integers(len(encodings))],
        width=width,
        height=height,
        is_bigendian=int(random.integers(256)),
    )
    about = ENCODINGS.get(message.encoding)
    message.step = width * (about.pixel_bytes if about else 1) + int(random.integers(-1, 3) % 99)
    length = message.step * height
    if random.random() < 0.3:
        length = int(random.integers(0, length + 10))
    if random.random() < 0.1:
        message.width = int(random.integers(1 << 32))
    message.data = random.bytes(length)
    return message


def test_ten_thousand_random_messages_neither_crash_nor_leak() -> None:
    random = np.random.default_rng(7)
    converted = 0

    def convert(count: int) -> None:
        nonlocal converted
        for _ in range(count):
            try:
                converted += image_to_rgb(random_message(random)).ndim == 3
            except BadImage:
                continue

    convert(2_000)
    gc.collect()
    before = process_memory_mib()
    convert(8_000)
    gc.collect()
    if sys.platform == 'linux':
        assert process_memory_mib() - before < 8
    assert 1_000 < converted < 9_000
