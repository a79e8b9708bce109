"""The stages of the method on one image: how long each takes, and what several settings share."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar('T')


class Shared:
    """What several settings have in common on one image, computed once.

    Not safe across threads.

    Attributes:
        saved_ms: what has been saved so far, in milliseconds.
    """

    def __init__(self) -> None:
        self.saved_ms = 0.0
        self._values: dict[Hashable, tuple[Any, float]] = {}
        self._tensors: list[torch.Tensor] = []

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` gives, from an earlier call where one had this key.

        Args:
            key: all that the value depends on, the image aside.
            compute: may call `once` itself.
        """
        if key not in self._values:
            started, saved_ms = time.perf_counter(), self.saved_ms
            value = compute()
            alone_ms = 1000 * (time.perf_counter() - started) + self.saved_ms - saved_ms
            self._values[key] = value, alone_ms
            return value
        value, alone_ms = self._values[key]
        self.saved_ms += alone_ms
        return value

    def first_equal(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the first tensor of equal values that this was called with, so far this one."""
        import torch

        for known in self._tensors:
            if known.shape == tensor.shape and torch.equal(known, tensor):
                return known
        self._tensors.append(tensor)
        return tensor


class StageClock:
    """Wall time by stage in milliseconds, as it would be without anything shared."""

    def __init__(self, shared: Shared, started: float | None = None) -> None:
        self.timings_ms: dict[str, float] = {}
        self._shared = shared
        self._saved_ms = shared.saved_ms
        self._last = time.perf_counter() if started is None else started

    def lap(self, stage: str) -> None:
        """End a stage that began at the last lap."""
        now, saved_ms = time.perf_counter(), self._shared.saved_ms
        self.timings_ms[stage] = 1000 * (now - self._last) + saved_ms - self._saved_ms
        self._last, self._saved_ms = now, saved_ms

    def resume(self) -> None:
        """Go on after a pause, which is part of no stage."""
        self._last, self._saved_ms = time.perf_counter(), self._shared.saved_ms
