"""Frames of video files, upright and at their true times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.formats.decoding import MAX_PIXELS
from llmseg_ros.frame_sources.frames import FrameSource, SourceError, TimedFrame

# FFmpeg also reads text, playlists and addresses, which are none that people mean.
CONTAINERS = (
    *('asf', 'avi', 'dv', 'flv', 'h264', 'hevc', 'ivf', 'm4v', 'matroska', 'mjpeg', 'mov', 'mpeg'),
    *('mpegts', 'mpegvideo', 'mxf', 'nut', 'obu', 'ogg', 'rm', 'webm', 'yuv4mpegpipe'),
)
ASSUMED_RATE = 25.0  # frames a second, where a video has no times
END_TOLERANCE_S = 1.0  # by which video and announced duration differ in whole files


def open_video(path: Path) -> FrameSource:
    """Open a video file and decode its first frame.

    Its display matrix is followed, as phones write it. What of a damaged file decodes is used.

    Raises:
        SourceError: it can't be read, has no video, or none of it decodes.
    """
    container = opened_container(path)
    try:
        stream = video_stream(container, path)
        stream.thread_type = 'AUTO'
        count, duration, rate = announced(container, stream)
        source = FrameSource('video', str(path), iter(()), container.close, rate, count, duration)
        decoded = decoded_frames(container, stream, source.notes)
        first = next(decoded, None)
        if first is None:
            raise SourceError(f'{path} has no frame that decodes: the video is damaged')
        check_size(first, path)
    except BaseException:
        container.close()
        raise
    source.frames = timed_frames(first, decoded, source, path)
    return source


def opened_container(path: Path) -> Any:
    """Open a video file with FFmpeg.

    Raises:
        SourceError: it can't be read.
    """
    if not path.is_file():
        what = 'is no file' if path.exists() else 'does not exist'
        raise SourceError(f'{path} {what}')
    only_this = {'protocol_whitelist': 'file', 'format_whitelist': ','.join(CONTAINERS)}
    try:
        if path.stat().st_size == 0:
            raise SourceError(f'{path} is empty')
        return av.open(f'file:{path}', options=only_this)  # a colon in a name is no protocol
    except (av.InvalidDataError, av.ArgumentError) as error:
        raise SourceError(
            f'{path} is no video that can be read: of another format, damaged, or cut off before '
            'its index was written'
        ) from error
    except (OSError, av.FFmpegError) as error:
        raise SourceError(f'{path} can not be read: {error.strerror or error}') from error


def video_stream(container: Any, path: Path) -> Any:
    """Return the stream of a file to be shown, which is no picture of a cover.

    Raises:
        SourceError: there is none, or its codec is unknown.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise SourceError(f'{path} has no video: sound or data alone')
    best = container.streams.best('video')
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise SourceError(f'{path} is of a video codec that FFmpeg can not decode here')
    return stream


def announced(container: Any, stream: Any) -> tuple[int | None, float | None, float | None]:
    """Return count, duration in seconds, and average rate, each None where it is not known."""
    count = stream.frames or None
    rate = float(stream.average_rate) if stream.average_rate else None
    duration = None
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    return count, duration, count / duration if count and duration else rate


def decoded_frames(container: Any, stream: Any, notes: list[str]) -> Iterator[Any]:
    """Yield the frames that decode; where there are others, a sentence in `notes` says so."""
    damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (OSError, av.FFmpegError):
            packet, damaged = None, damaged + 1
        if packet is None:
            break
        try:
            frames = packet.decode()
        except (OSError, av.FFmpegError):
            damaged += 1
            continue
        for frame in frames:
            damaged += frame.is_corrupt
            yield frame
    if damaged:
        places = 'one place' if damaged == 1 else f'{damaged} places'
        notes.append(f'the video is damaged in {places}: what decodes is used')


def timed_frames(
    first: Any, others: Iterator[Any], source: FrameSource, path: Path
) -> Iterator[TimedFrame]:
    """Yield the frames as pictures, the first at 0 s; note where the file ends early."""
    step = 1 / (source.rate or ASSUMED_RATE)
    start = 0.0 if first.time is None else first.time
    stamp, number, frame = -step, 0, first
    while frame is not None:
        time = stamp if frame.time is None else frame.time - start
        stamp = time if time > stamp else stamp + step
        yield TimedFrame(to_rgb(frame), stamp, f'{path.stem}_{number:06d}', number)
        number += 1
        frame = next(others, None)
        if frame is not None:
            check_size(frame, path)
    if source.duration and stamp + step + END_TOLERANCE_S < source.duration:
        source.notes.append(
            f'the last frame is at {stamp:.1f} s of {source.duration:.1f} s: the file may be cut '
            'off'
        )


def check_size(frame: Any, source: object) -> None:
    """Raise SourceError for a frame with more pixels than are allowed."""
    if frame.width * frame.height > MAX_PIXELS:
        raise SourceError(
            f'{source} has frames of {frame.width}x{frame.height}, more than the {MAX_PIXELS} '
            'pixels allowed'
        )


def to_rgb(frame: Any) -> NDArray[np.uint8]:
    """Return a decoded frame as upright (H, W, 3) uint8 RGB."""
    return upright(frame.to_ndarray(format='rgb24'), frame.side_data.get('DISPLAYMATRIX'))


def upright(rgb: NDArray[np.uint8], matrix: Any) -> NDArray[np.uint8]:
    """Turn and mirror a picture by quarter turns as a display matrix says, None for as it is.

    The matrix has nine 32 bit integers a b u, c d v, x y w: the pixel (p, q) is shown at
    (ap + cq + x, bp + dq + y) (ISO/IEC 14496-12, 6.2.2).
    """
    if matrix is None:
        return rgb
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
