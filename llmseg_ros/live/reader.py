"""The frames of a source in their own time, while someone looks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Picture = tuple[NDArray[np.uint8], float, str]  # (H, W, 3) RGB, seconds, name

LATE_S = 1.0  # behind the stamps, by which a source is followed from now on


class SourceFrame(NamedTuple):
    """A frame of a source.

    Attributes:
        rgb: (H, W, 3) uint8.
        stamp: seconds, in the source's own time.
        name: of its file or scene; may be empty.
        taken: when it was read, by time.monotonic.
    """

    rgb: NDArray[np.uint8]
    stamp: float
    name: str
    taken: float


@dataclass(frozen=True)
class LiveSource:
    """Where frames come from.

    Attributes:
        name: as pages show it.
        read: opens the source and yields (rgb, seconds, name); raises an exception whose message
            is one sentence.
        live: frames come when they come, and begin anew with every opening, as of a camera; else
            they are paced by their stamps.
        repeats: begun again when through.
    """

    name: str
    read: Callable[[], Iterable[Picture]]
    live: bool = False
    repeats: bool = True


class FrameReader:
    """Read a source on a thread of its own; it waits while nobody looks or it is paused.

    Attributes:
        paused: frames are held.
        trouble: why no more frames come, one sentence; empty where they do.
    """

    def __init__(self, source: LiveSource, take: Callable[[SourceFrame], None]) -> None:
        self.paused = False
        self.trouble = ''
        self._source = source
        self._take = take
        self._changed = threading.Condition()
        self._watched = self._closed = self._waits = False
        self._steps = 0
        self._thread = threading.Thread(target=self._run, name='live read', daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def resting(self) -> bool:
        """Whether no frame will come by itself soon."""
        return self.paused or self._waits

    def watch(self, watched: bool) -> None:
        """Read only while someone looks."""
        self._change('_watched', watched)

    def pause(self, paused: bool) -> None:
        """Hold the frames, or let them go on."""
        self._change('paused', paused)

    def step(self) -> None:
        """Let one more frame through while paused, or begin a source anew that is through."""
        if self.resting:
            self._change('_steps', self._steps + 1)

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread, which closes the source."""
        self._change('_closed', True)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _change(self, name: str, value: object) -> None:
        with self._changed:
            setattr(self, name, value)
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._closed:
            try:
                seen = self._read_once()
            except Exception as error:  # of any source; the page says so
                self.trouble, seen = ' '.join(str(error).split()), 0
            if self._closed:
                return
            if seen < 2 or not self._source.repeats:
                self._rest()

    def _read_once(self) -> int:
        """Hand on the source's frames until it ends; return how many there were."""
        self._wait_until_wanted()
        seen, clock = 0, Pace()
        with contextlib.closing(opened(self._source)) as frames:
            for rgb, stamp, name in frames:
                if not self._source.live:
                    self._sleep(clock.due_in(stamp))
                if self._wait_until_wanted():
                    clock.restart()
                    if self._source.live and not self.paused:
                        return 2  # what the camera has kept is old by now: open it anew
                if self._closed:
                    break
                self.trouble = ''
                self._take(SourceFrame(rgb, stamp, name, time.monotonic()))
                seen += 1
        return seen

    def _wait_until_wanted(self) -> bool:
        """Wait until a frame may go on; return whether there was a wait."""
        with self._changed:
            waited = not self._wanted()
            self._changed.wait_for(self._wanted)
            self._steps = max(0, self._steps - 1) if self.paused else 0
            return waited

    def _wanted(self) -> bool:
        return self._closed or (self._watched and (not self.paused or self._steps > 0))

    def _sleep(self, seconds: float) -> None:
        """Wait, but not for a frame that is asked for at once."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._steps > 0, timeout=seconds)

    def _rest(self) -> None:
        """Wait for the end, or for a new start of what repeats, asked for by `step`."""
        with self._changed:
            self._waits = True
            self._changed.wait_for(lambda: self._closed or self._steps > 0)
            self._waits = False


class Pace:
    """Frames at the distance of their stamps."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def restart(self) -> None:
        """Take the next stamp for now."""
        self._offset = None

    def due_in(self, stamp: float) -> float:
        """Return the seconds until a frame is due; 0 where it is late."""
        now = time.monotonic()
        if self._offset is None or now - (stamp + self._offset) > LATE_S:
            self._offset = now - stamp
        return max(0.0, stamp + self._offset - now)


def opened(source: LiveSource) -> Generator[Picture, None, None]:
    """Open a source as a generator, whose end closes it."""
    yield from source.read()
