"""A segmenter whose faults are chosen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.segmentation import Segmentation


class FaultySegmenter:
    """Stands in where a fault can't be had from the real one: raises what it is told to."""

    overlaps = False
    images_at_once = 1
    in_finish = False  # where the faults are

    def __init__(self, *faults: BaseException | None) -> None:
        self.config = SegmenterConfig()
        self.faults = list(faults)
        self.previous: list[Any] = []

    def reconfigure(self, config: SegmenterConfig) -> None:
        self.config = config

    def find(self, rgb: Any, previous: Any) -> Any:
        self.previous.append(previous)
        if not self.in_finish:
            self.fail()
        return SimpleNamespace(rgb=rgb)

    def finish(self, found: Any) -> Segmentation:
        if self.in_finish:
            self.fail()
        shape = found.rgb.shape[:2]
        return Segmentation(np.ones(shape, np.uint16), np.ones(shape, np.float32), (), 1, {})

    def fail(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
