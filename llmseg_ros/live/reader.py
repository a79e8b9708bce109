"""The frames of a source in their own time, while someone looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from llmseg_ros.frame_sources import FrameSource, TimedFrame

LATE_S = 1.0  # behind the stamps, by which a source is followed from now on
LONGEST_WAIT_S = 5.0  # for a frame: a bag was paused, or its clock was set


@dataclass(frozen=True)
class LiveSource:
    """Where frames come from.

    Attributes:
        name: as pages show it.
        open: begins at the first frame; raises SourceError.
    """

    name: str
    open: Callable[[], FrameSource]


class TakenFrame(NamedTuple):
    """A frame, and when it was taken by time.monotonic."""

    frame: TimedFrame
    taken: float


class FrameReader:
    """Read a source again and again on a thread of its own; wait while nobody looks, or paused.

    A single picture is read once. A camera is closed while nobody looks.

    Attributes:
        paused: frames are held.
        trouble: why no more frames come, one sentence; empty where they do.
        notes: a sentence each on what of the source could not be read.
    """

    def __init__(self, source: LiveSource, take: Callable[[TakenFrame], None]) -> None:
        self.paused = False
        self.trouble = ''
        self.notes: tuple[str, ...] = ()
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
            self._wait_until_wanted()
            try:
                again = self._closed or self._read_once()
            except Exception as error:  # of whatever source; the page tells it
                self.trouble, again = ' '.join(str(error).split()), False
            if not again:
                self._rest()

    def _read_once(self) -> bool:
        """Hand on a source's frames until it ends; return whether to begin it again."""
        seen, pace = 0, Pace()
        with self._source.open() as source:
            is_camera = source.kind == 'camera'
            for frame in source:
                if seen:
                    self._sleep(0.0 if is_camera else pace.due_in(frame.stamp))
                    if is_camera and not self._watched:
                        return True
                    if self._wait_until_wanted():
                        pace.restart(frame.stamp)
                else:
                    pace.restart(frame.stamp)
                if self._closed:
                    return True
                self._take(TakenFrame(frame, time.monotonic()))
                seen += 1
                self.trouble = ''
            self.notes = tuple(source.notes)
        return seen > 1

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
        """Wait for the end, or until `step` asks for a new start."""
        with self._changed:
            self._waits = True
            self._changed.wait_for(lambda: self._closed or self._steps > 0)
            self._waits = False


class Pace:
    """Frames at the distance of their stamps."""

    def __init__(self) -> None:
        self._offset = 0.0

    def restart(self, stamp: float) -> None:
        """Take a stamp for now."""
        self._offset = time.monotonic() - stamp

    def due_in(self, stamp: float) -> float:
        """Return the seconds until a frame is due, [0, 5]; one that is very late is due now."""
        wait = stamp + self._offset - time.monotonic()
        if wait < -LATE_S:
            self.restart(stamp)
        elif wait > LONGEST_WAIT_S:
            self._offset -= wait - LONGEST_WAIT_S
        return min(max(0.0, wait), LONGEST_WAIT_S)
