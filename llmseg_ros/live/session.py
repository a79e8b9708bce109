"""What a page of `llmseg live` looks at: a segmenter of ours, or a node that runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from llmseg_ros.class_rules import Given
from llmseg_ros.live.frames import LiveFrame
from llmseg_ros.reports.tables import colour_of


class LiveError(ValueError):
    """A request of a page can't be met; the message is one sentence that says why."""


class Session(Protocol):
    """Frames and their labels, and what can be changed while they come.

    All but `start` and `close` is called from one thread that may wait. Changes return a sentence
    for every name refused or merged, and raise LiveError or ConfigError with one.

    Attributes:
        newest: the last frame, None before the first.
    """

    newest: LiveFrame | None

    def start(self, on_frame: Callable[[LiveFrame], None]) -> None:
        """Begin; `on_frame` is called with every frame, on a thread of the session's own."""

    def close(self) -> None:
        """End everything that was started."""

    def watch(self, watched: bool) -> None:
        """Work only while someone looks."""

    def describe(self) -> dict[str, Any]:
        """Return the state as plain values, see `session_state`."""

    def settings(self) -> dict[str, Any]:
        """Return settings and class list in the layout of a configuration file."""

    def set_classes(self, names: Sequence[str], rules: Given = ()) -> Sequence[str]:
        """Replace the class list; classes that stay keep their rules, but where `rules` has one."""

    def set_subclasses(self, name: str, names: Sequence[str]) -> Sequence[str]:
        """Replace the subclasses of a class."""

    def set_threshold(self, name: str, value: float) -> None:
        """Change one of the thresholds that `describe` lists."""

    def pause(self, paused: bool) -> None:
        """Hold the frames, or let them go on."""

    def step(self) -> None:
        """While paused, show the next frame."""


def describe_class(
    class_id: int, name: str, subclasses: Sequence[str], source: str, origin: str
) -> dict[str, Any]:
    """Return a class as plain values."""
    return {
        'id': class_id,
        'name': name,
        'colour': colour_of(class_id),
        'subclasses': list(subclasses),
        'source': source,
        'origin': origin,
    }
