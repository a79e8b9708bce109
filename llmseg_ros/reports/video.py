"""A bag's frames with their labels as a video that browsers play."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.files import replacing
from llmseg_ros.system.priority import lower_priority
from llmseg_ros.visualize import add_legend, overlay

CODEC = 'libvpx-vp9'  # browsers play it, and nobody needs a licence for it
OPTIONS = {'deadline': 'realtime', 'cpu-used': '8', 'crf': '34', 'b': '0'}
TICK = Fraction(1, 1000)  # of the video's clock, in seconds
TICK_NS = 1_000_000
WIDTH = 640  # at most, in pixels, of a report
LEGEND_ENTRIES = 12  # at most: of a longer class list the largest in the frame
LONGEST = 1000 * TICK_NS  # a frame is shown in a report: gaps of a bag are cut short
LOWEST_PRIORITY = 19
PENDING = 8  # frames that wait for the encoder


class VideoError(RuntimeError):
    """A video can't be written; the message is one sentence that says what to do."""


class OverlayVideo:
    """Write frames with their labels and a legend, encoded on a thread of its own."""

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        width: int = WIDTH,
        longest: int | None = LONGEST,
    ) -> None:
        """Write a video.

        Args:
            path: an .mp4 file.
            names: those of the ids, the background's first.
            width: in pixels; larger frames are made small.
            longest: a frame is shown, in nanoseconds; None for until the next one.
        """
        self._path = path
        self._names = names
        self._width = width
        self._longest = longest
        # Otherwise the times measured beside it would be longer.
        self._pool = ThreadPoolExecutor(1, 'video', lower_priority, (LOWEST_PRIORITY,))
        self._pending: deque[Future[None]] = deque()
        self._container: Any = None
        self._stream: Any = None
        self._last: int | None = None  # stamp
        self._time = 0  # in nanoseconds
        self._legend_heights: dict[int, int] = {}  # by width

    def add(self, stamp: int, rgb: NDArray[np.uint8], labels: NDArray[np.uint16]) -> None:
        """Append a frame, shown until the stamp of the next; wait where the encoder is behind.

        Raises:
            VideoError: the file can't be written.
        """
        self._pending.append(self._pool.submit(self._write, stamp, rgb, labels))
        if len(self._pending) > PENDING:
            self._pending.popleft().result()

    def finish(self) -> None:
        """Write what waits, and close the file.

        Raises:
            VideoError: the file is not complete, or there was no frame.
        """
        for future in self._pending:
            future.result()
        if self._container is None:
            raise VideoError('there is no frame to show')
        with explained():
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def abandon(self) -> None:
        """Stop without completing the file."""
        self._pool.shutdown(cancel_futures=True)
        if self._container is not None:
            with suppress(OSError, av.FFmpegError):
                self._container.close()

    def _write(self, stamp: int, rgb: NDArray[np.uint8], labels: NDArray[np.uint16]) -> None:
        picture = self._draw(rgb, labels)
        with explained():
            if self._container is None:
                self._open(*picture.shape[:2])
            size = (self._stream.width, self._stream.height)
            frame = av.VideoFrame.from_ndarray(fitted(picture, size), 'rgb24')
            if self._last is not None:
                shown = max(TICK_NS, stamp - self._last)
                self._time += min(self._longest or shown, shown)
            self._last = stamp
            frame.pts, frame.time_base = (self._time + TICK_NS // 2) // TICK_NS, TICK
            self._container.mux(self._stream.encode(frame))

    def _open(self, height: int, width: int) -> None:
        self._container = av.open(str(self._path), 'w')
        self._stream = self._container.add_stream(CODEC, rate=1 / TICK, options=OPTIONS)
        # chroma is of half the size
        self._stream.width, self._stream.height = width - width % 2, height - height % 2
        self._stream.pix_fmt = 'yuv420p'
        self._stream.codec_context.time_base = TICK
        self._stream.codec_context.thread_count = 1

    def _draw(self, rgb: NDArray[np.uint8], labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        width = min(self._width, rgb.shape[1])
        size = (width, max(1, round(rgb.shape[0] * width / rgb.shape[1])))
        small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        ids = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint16)
        picture = add_legend(overlay(small, ids), self._legend(ids))
        canvas = np.full((size[1] + self._legend_height(width), width, 3), 255, np.uint8)
        height = min(len(canvas), len(picture))
        canvas[:height] = picture[:height]
        return canvas

    def _legend(self, labels: NDArray[np.uint16]) -> list[tuple[int, str]]:
        """Return all classes, or where these are too many the largest ones of the frame."""
        ids = list(range(1, len(self._names)))
        if len(ids) > LEGEND_ENTRIES:
            counts = np.bincount(labels.ravel(), minlength=len(self._names))[1:]
            largest = 1 + np.argsort(-counts, kind='stable')[:LEGEND_ENTRIES]
            ids = sorted(i for i in largest.tolist() if counts[i - 1])
        return [(i, self._names[i]) for i in ids]

    def _legend_height(self, width: int) -> int:
        """Return the height of the highest legend there can be, for all frames to have it."""
        if width not in self._legend_heights:
            longest = sorted(self._names[1:], key=len)[-LEGEND_ENTRIES:]
            nothing = np.zeros((0, width, 3), np.uint8)
            legend = add_legend(nothing, [(1, name) for name in longest])
            self._legend_heights[width] = legend.shape[0]
        return self._legend_heights[width]


@contextmanager
def explained() -> Iterator[None]:
    """Raise VideoError for what FFmpeg can't do."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise VideoError(
            f'overlay.mp4 can not be written ({error}): make room on the disk, or of a replay '
            'leave it out with --no-video'
        ) from error


def fitted(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture of another size (width, height): cut by a pixel, else scaled."""
    height, width = rgb.shape[:2]
    if 0 <= width - size[0] <= 1 and 0 <= height - size[1] <= 1:
        return np.ascontiguousarray(rgb[: size[1], : size[0]])
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


@contextmanager
def overlay_video(
    path: Path, names: Sequence[str], width: int = WIDTH, longest: int | None = LONGEST
) -> Iterator[OverlayVideo]:
    """Open a video that has its name only once the block is through; OverlayVideo's arguments.

    Raises:
        VideoError: it can't be written.
    """
    with replacing(path) as partial:
        movie = partial.with_suffix('.mp4')  # FFmpeg takes the format from the name
        video = OverlayVideo(movie, names, width, longest)
        try:
            yield video
            video.finish()
            movie.replace(partial)
        finally:
            video.abandon()
            movie.unlink(missing_ok=True)
