"""Picture files, one or those below a folder, as frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmseg_ros.formats.image_files import (
    IMAGE_SUFFIXES,
    ImageFileError,
    images_below,
    read_image_file,
)
from llmseg_ros.frame_sources.frames import FrameSource, SourceError, TimedFrame


def open_pictures(path: Path, sixteen_bit: str = 'high_byte') -> FrameSource:
    """Open a picture file, or the pictures below a folder in the order of their paths.

    Args:
        path: of either.
        sixteen_bit: high_byte or stretch: how 16 bits become 8.

    Raises:
        SourceError: there is none.
    """
    paths = images_below(path) if path.is_dir() else [path]
    if not paths:
        known = ', '.join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f'{path} has no pictures: {known} are taken')
    source = FrameSource('pictures', str(path), iter(()), lambda: None, count=len(paths))
    folder = path if path.is_dir() else path.parent
    source.frames = read_pictures(paths, folder, sixteen_bit, source.notes)
    return source


def read_pictures(
    paths: list[Path], folder: Path, sixteen_bit: str, notes: list[str]
) -> Iterator[TimedFrame]:
    """Yield pictures, a second apart; one that can't be read is noted.

    Raises:
        SourceError: none can be read.
    """
    unread = len(notes)
    for number, path in enumerate(paths):
        try:
            rgb = read_image_file(path, sixteen_bit)
        except ImageFileError as error:
            notes.append(f'{path}: {error}')
            continue
        yield TimedFrame(rgb, float(number), str(path.relative_to(folder)), number)
    if len(notes) - unread == len(paths):
        raise SourceError(f'none of the {len(paths)} pictures can be read: {notes[unread]}')
