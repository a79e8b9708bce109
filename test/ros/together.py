"""Run a module as if the CPU gained by several images at once, and print how many there were."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from typing import Any

from llmseg_ros.segmenter import Segmenter


def take_several() -> None:
    """Let `images_at_once` be what the encoder says, on the CPU too."""
    find_all = Segmenter.find_all

    def find_and_tell(segmenter: Segmenter, rgbs: Sequence[Any], *others: Any) -> Any:
        found = find_all(segmenter, rgbs, *others)
        if len(rgbs) > 1:
            print(f'found together: {len(rgbs)}', flush=True)
        return found

    Segmenter.find_all = find_and_tell
    Segmenter.images_at_once = property(lambda segmenter: segmenter.encoder.images_at_once)


if __name__ == '__main__':
    take_several()
    sys.path.pop(0)
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
