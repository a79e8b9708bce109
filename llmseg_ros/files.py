"""Files that ship, files kept between runs, and files that appear only when they are complete."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE_FOLDER = Path(__file__).resolve().parents[1]


class WriteError(RuntimeError):
    """A file can't be written; the message is one sentence that names it."""


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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise WriteError where the block can't write to a path."""
    try:
        yield
    except OSError as error:
        raise WriteError(f'{path} can not be written: {error.strerror}') from error


def prepare_folder(path: Path) -> None:
    """Make a folder for results, before the work whose results go there.

    Raises:
        WriteError: nothing can be written there.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass


def write_json(path: Path, data: Any, indent: int | None = 2) -> None:
    """Write JSON so that the file is there complete or not at all.

    Raises:
        WriteError: it can't be written.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False) + '\n'
    with writing(path), replacing(path) as partial:
        partial.write_text(text, encoding='utf-8', errors='backslashreplace')
