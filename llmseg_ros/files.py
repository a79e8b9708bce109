"""Files that ship, files kept between runs, and files that appear only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE_FOLDER = Path(__file__).resolve().parents[1]


def shipped_path(name: str) -> Path:
    """Return the path of a shipped file or folder such as 'config/offline.yaml'.

    In a source tree it lies beside the package, in an installation under
    PREFIX/share/llmseg_ros.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for folder in (SOURCE_FOLDER, *(p / 'share' / 'llmseg_ros' for p in SOURCE_FOLDER.parents)):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(2, 'not found in this installation, install llmseg_ros again', name)


def cache_folder() -> Path:
    """Return the folder for what is kept between runs: weights, embeddings, answers.

    It is $LLMSEG_CACHE, else llmseg_ros in $XDG_CACHE_HOME, else in ~/.cache.
    """
    if folder := os.environ.get('LLMSEG_CACHE'):
        return Path(folder).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'llmseg_ros'


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the name `path` once the block is through.

    Raises:
        OSError: the folder can't be written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
