"""Real video files, as PyAV writes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    times_ms: Sequence[int],
    codec: str = 'libx264',
    **options: str,
) -> Path:
    """Write RGB frames at their times; `options` are the container's."""
    with av.open(str(path), 'w', options=options) as container:
        stream = container.add_stream(codec, rate=1000, options={'g': '5'})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.time_base = MILLISECOND
        for rgb, time in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, 'rgb24')
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Write a second of silence."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000, layout='mono')
        for index in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
            frame.sample_rate, frame.pts = 8000, 1024 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Give an MP4 file the display matrix of a phone that was held another way."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b'tkhd') + 44  # version 0: ISO/IEC 14496-12, 8.3.2
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack('>9i', *values)
    path.write_bytes(data)
    return path


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """Return a picture whose upper left quarter is red, the upper right green, the rest blue."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[...] = (0, 0, 255)
    rgb[: height // 2, : width // 2] = (255, 0, 0)
    rgb[: height // 2, width // 2 :] = (0, 255, 0)
    return rgb


def grey(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)
