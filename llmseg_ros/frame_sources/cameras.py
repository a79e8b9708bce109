"""Frames of a camera of this machine, always the newest.

PyAV reads cameras (Video4Linux through FFmpeg) as it reads video files. OpenCV would do it too, but
says only that a camera did not open, and not whether it is missing, in use or forbidden.
"""

from __future__ import annotations

import errno
import functools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av

from llmseg_ros.frame_sources.frames import FrameSource, SourceError, TimedFrame
from llmseg_ros.frame_sources.videos import check_size, to_rgb

PATIENCE_S = 10.0  # for a frame, the first one above all
CLOSING_S = 2.0


def open_camera(device: str) -> FrameSource:
    """Open a camera, by its number or as /dev/videoN.

    A thread reads it, so that a slow reader gets the newest frame and not those that waited in
    the driver.

    Raises:
        SourceError: there is no such camera, it can't be used, or it sends nothing.
    """
    path = Path(f'/dev/video{int(device)}' if device.isdecimal() else device)
    reader = CameraReader(functools.partial(opened_device, path), f'camera {device}')
    try:
        reader.wait()
    except BaseException:
        reader.close()
        raise
    frames = reader.frames(path.name)
    return FrameSource('camera', device, frames, reader.close, rate=reader.rate)


def opened_device(path: Path) -> Any:
    """Open a Video4Linux device with FFmpeg.

    Raises:
        SourceError: it can't be used.
    """
    if sys.platform != 'linux':
        raise SourceError(f'{path}: cameras are read on Linux alone, give a video file')
    try:
        return av.open(str(path), format='video4linux2')
    except FileNotFoundError as error:
        raise SourceError(f'there is no camera {path}: {cameras_in_words()}') from error
    except PermissionError as error:
        raise SourceError(
            f'camera {path} can not be opened: permission denied; add your user to the group video'
        ) from error
    except (OSError, av.FFmpegError) as error:
        if error.errno == errno.EBUSY:
            raise SourceError(f'camera {path} is in use by another program: close that') from error
        reason = error.strerror or error
        raise SourceError(
            f'{path} is no camera that sends pictures ({reason}): {cameras_in_words()}'
        ) from error


def cameras_in_words() -> str:
    """Return which video devices there are."""
    found = [path.name for path in Path('/dev').glob('video*') if path.name[5:].isdecimal()]
    numbers = sorted(int(re.sub(r'\D', '', name)) for name in found)
    if not numbers:
        return 'this machine has none, give a video file or a folder of pictures'
    return f'this machine has {", ".join(f"/dev/video{number}" for number in numbers)}'


class CameraReader:
    """A thread that reads a live container, and keeps its newest frame.

    Attributes:
        rate: frames a second that are announced, None where none is, and before the first frame.
    """

    def __init__(self, opener: Callable[[], Any], name: str) -> None:
        """Begin to read the first video stream of what `opener` opens."""
        self.rate: float | None = None
        self._opener = opener
        self._name = name
        self._changed = threading.Condition()
        self._newest: tuple[int, float, Any] | None = None  # number, seconds since 1970, frame
        self._ended = ''  # why, in a sentence
        # A daemon, which opens it too: a driver that hangs can't be interrupted.
        self._thread = threading.Thread(target=self._read, name='camera', daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for a frame.

        Raises:
            SourceError: none comes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._ended, PATIENCE_S)
            if self._newest is None:
                silent = f'{self._name} has sent nothing for {PATIENCE_S:.0f} s'
                raise SourceError(self._ended or silent)

    def frames(self, stem: str) -> Iterator[TimedFrame]:
        """Yield the newest frame, each once, until the reader is closed.

        Raises:
            SourceError: the camera sends no more.
        """
        while True:
            self.wait()
            with self._changed:
                assert self._newest is not None
                (number, stamp, frame), self._newest = self._newest, None
            check_size(frame, self._name)
            yield TimedFrame(to_rgb(frame), stamp, f'{stem}_{number:06d}', number)

    def close(self) -> None:
        """Stop reading and let go of the camera."""
        self._end(f'{self._name} is closed')
        self._thread.join(CLOSING_S)

    def _end(self, sentence: str) -> None:
        with self._changed:
            self._ended = self._ended or sentence
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            with self._opener() as container:
                for number, frame in enumerate(self._decoded(container)):
                    with self._changed:
                        if self._ended:
                            return
                        self._newest = number, time.time(), frame
                        self._changed.notify_all()
            self._end(f'{self._name} has stopped')
        except SourceError as error:
            self._end(str(error))
        except Exception as error:  # the thread that waits is told, whatever it is
            reason = getattr(error, 'strerror', None) or error
            self._end(f'{self._name} has stopped: {reason}')

    def _decoded(self, container: Any) -> Iterator[Any]:
        stream = container.streams.video[0]
        self.rate = float(stream.average_rate) if stream.average_rate else None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                continue  # a frame that the cable garbled
            yield from frames
