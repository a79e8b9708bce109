"""What frame sources of every kind have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal['bag', 'camera', 'pictures', 'video']


class SourceError(ValueError):
    """A frame source can't be used, or does not go on; the message is one sentence."""


class TimedFrame(NamedTuple):
    """A frame of a source.

    Attributes:
        rgb: (H, W, 3) uint8, upright.
        stamp: in seconds, growing: of a video since its first frame, of a bag as its headers
            have it, of a camera since 1970; pictures have no times and stand a second apart.
        name: to tell it from the others of its source; can be a file name, but for pictures
            below a folder, whose names are their paths in it.
        number: counted from 0; where a camera was faster than the reader, numbers are missing.
    """

    rgb: NDArray[np.uint8]
    stamp: float
    name: str
    number: int


@dataclass
class FrameSource:
    """An open source: iterate it once, on one thread, and close it on that thread.

    Iterating raises SourceError where a camera stops, a bag does not go on, or none of the
    pictures can be read. A frame that can't be used costs itself.

    Attributes:
        kind: a camera's frames come in real time, the newest when it is asked for; the others
            as fast as they are read.
        name: of the source, as it was given.
        frames: that come.
        close: lets go of files and devices; frames end.
        rate: frames a second, on average; None where it is not known.
        count: frames, as the source announces them; None where it does not.
        duration: in seconds, as the source announces it; None where it does not.
        notes: a sentence each on what could not be read; reading adds to them.
    """

    kind: Kind
    name: str
    frames: Iterator[TimedFrame]
    close: Callable[[], None]
    rate: float | None = None
    count: int | None = None
    duration: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def expected(self) -> int | None:
        """How many frames to expect; None where that can't be told."""
        if self.count is None and self.duration and self.rate:
            return round(self.duration * self.rate)
        return self.count

    def __iter__(self) -> Iterator[TimedFrame]:
        return self.frames

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
