"""A bag's frames with their labels as a video that browsers play."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.files import replacing
from llmseg_ros.visualize import add_legend, overlay

# VP9 is what both OpenCV's wheels write and browsers play; they have no H.264 encoder. Some
# distributions' OpenCV has neither: MPEG-4 is for players then.
CODECS = ('vp09', 'mp4v')
WIDTH = 640  # at most, in pixels
LEGEND_ENTRIES = 12  # at most: of a longer class list the largest in the frame
RATE_FRAMES = 32  # from whose stamps the frame rate is taken
MIN_RATE, MAX_RATE = 1.0, 60.0
LOWEST_PRIORITY = 19
PENDING = 8  # frames that wait for the encoder


class VideoError(RuntimeError):
    """A video can't be written; the message is one sentence that says what to do."""


class OverlayVideo:
    """Write frames with their labels and a legend, encoded on a thread of its own."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Write to `path`, an .mp4 file; `names` are those of the ids, the background's first."""
        self._path = path
        self._names = names
        self._pool = ThreadPoolExecutor(1, 'video', initializer=yield_to_others)
        self._pending: deque[Future[None]] = deque()
        self._waiting: list[tuple[int, NDArray[np.uint8]]] = []  # until the rate is known
        self._writer: Any = None
        self._size = (0, 0)
        self._frames = 0
        self._legend_heights: dict[int, int] = {}  # by width

    def add(self, stamp: int, rgb: NDArray[np.uint8], labels: NDArray[np.uint16]) -> None:
        """Append a frame; wait where the encoder is behind.

        Raises:
            VideoError: the file can't be opened.
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
        if self._writer is None:
            self._open()
        self._writer.release()
        if count_frames(self._path) != self._frames:
            raise VideoError(
                'overlay.mp4 is not complete: make room on the disk, or leave it out with '
                '--no-video'
            )

    def abandon(self) -> None:
        """Stop without completing the file."""
        self._pool.shutdown(cancel_futures=True)
        if self._writer is not None:
            self._writer.release()

    def _write(self, stamp: int, rgb: NDArray[np.uint8], labels: NDArray[np.uint16]) -> None:
        picture = self._draw(rgb, labels)
        if self._writer is not None:
            self._append(picture)
            return
        self._waiting.append((stamp, picture))
        if len(self._waiting) == RATE_FRAMES:
            self._open()

    def _open(self) -> None:
        if not self._waiting:
            raise VideoError('there is no frame to show')
        rate = frame_rate([stamp for stamp, _ in self._waiting])
        height, width = self._waiting[0][1].shape[:2]
        self._size = (width - width % 2, height - height % 2)  # chroma is of half the size
        for codec in CODECS:
            code = cv2.VideoWriter.fourcc(*codec)
            writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, code, rate, self._size)
            if writer.isOpened():
                break
        else:
            raise VideoError(
                'overlay.mp4 can not be written here: see that the folder can be, or leave it out '
                'with --no-video'
            )
        self._writer = writer
        for _, picture in self._waiting:
            self._append(picture)
        self._waiting.clear()

    def _append(self, picture: NDArray[np.uint8]) -> None:
        self._writer.write(cv2.cvtColor(fitted(picture, self._size), cv2.COLOR_RGB2BGR))
        self._frames += 1

    def _draw(self, rgb: NDArray[np.uint8], labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        width = min(WIDTH, rgb.shape[1])
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


def yield_to_others() -> None:
    """Let this thread, and those it starts, run when the rest of the process leaves time.

    Otherwise the times measured beside it would be longer.
    """
    if sys.platform == 'linux':  # a thread is a task of its own there
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)


def frame_rate(stamps: Sequence[int]) -> float:
    """Return frames per second from stamps in nanoseconds: by the median of their distances."""
    distances = np.diff(np.array(sorted(stamps), np.int64))
    if not distances.size:
        return MIN_RATE
    return float(np.clip(1e9 / max(1.0, float(np.median(distances))), MIN_RATE, MAX_RATE))


def fitted(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture of another size (width, height): cut by a pixel, else scaled."""
    height, width = rgb.shape[:2]
    if 0 <= width - size[0] <= 1 and 0 <= height - size[1] <= 1:
        return np.ascontiguousarray(rgb[: size[1], : size[0]])
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def count_frames(path: Path) -> int:
    """Return the number of frames of a video, 0 if it does not open or the last is not there."""
    video = cv2.VideoCapture(str(path))
    try:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.set(cv2.CAP_PROP_POS_FRAMES, max(0, count - 1))
        return count if video.read()[0] else 0
    finally:
        video.release()


@contextmanager
def overlay_video(path: Path, names: Sequence[str]) -> Iterator[OverlayVideo]:
    """Open a video that has its name only once the block is through.

    Raises:
        VideoError: it can't be written.
    """
    with replacing(path) as partial:
        movie = partial.with_suffix('.mp4')  # FFmpeg takes the format from the name
        video = OverlayVideo(movie, names)
        try:
            yield video
            video.finish()
            movie.replace(partial)
        finally:
            video.abandon()
            movie.unlink(missing_ok=True)
