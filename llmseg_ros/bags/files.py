"""Which files a bag consists of, and what opens each."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any

import yaml
import zstandard

from llmseg_ros.bags import mcap_file, ros1_file, sqlite_file
from llmseg_ros.bags.storage import BagError, Storage

METADATA = 'metadata.yaml'
SUFFIXES = ('.mcap', '.db3', '.bag')
COMPRESSED = ('.zstd', '.zst')
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
LFS_POINTER = b'version https://'
READERS: dict[bytes, Any] = {
    mcap_file.MAGIC: mcap_file.McapFile,
    sqlite_file.MAGIC: sqlite_file.SqliteFile,
    ros1_file.MAGIC: ros1_file.Ros1File,
}


def is_bag_file(path: Path | str) -> bool:
    """Tell by the name whether a file is one of a bag; hidden ones are none."""
    name = PurePath(path).name
    plain = name.removesuffix('.zstd').removesuffix('.zst')
    return plain.endswith(SUFFIXES) and not name.startswith('.')


def is_one_recording(folder: Path) -> bool:
    """Tell whether all bag files of a folder are parts of one recording, by rosbag2's names.

    The recorder writes metadata.yaml last: one that was killed leaves FOLDER_0.mcap, FOLDER_1.mcap.
    """
    names = [path.name for path in folder.iterdir() if is_bag_file(path)]
    part = re.compile(rf'{re.escape(folder.resolve().name)}_\d+\.(mcap|db3)(\.zstd)?')
    return bool(names) and all(part.fullmatch(name) for name in names)


def files_of(path: Path, notes: list[str]) -> list[Path]:
    """Return the files of a bag; what is odd about them becomes a sentence in `notes`.

    Raises:
        BagError: there are none.
    """
    if not path.exists():
        raise BagError(f'bag {path} does not exist')
    if not path.is_dir():
        return [path]
    here = sorted(file for file in path.iterdir() if is_bag_file(file))
    named = named_in_metadata(path / METADATA, notes)
    if not named:
        if len(here) != 1 and not is_one_recording(path):
            raise BagError(f'{path} has no {METADATA} and {len(here)} bag files, expected one')
        return here
    found = {name: resolved(path / name) for name in named}
    missing = [name for name, file in found.items() if file is None]
    files = [file for file in found.values() if file is not None]
    if missing:
        renamed = [file for file in here if file not in files]
        files += renamed
        what = f'{", ".join(missing)}, named in {METADATA} of {path.name}, is not there'
        if not files:
            raise BagError(f'{path} has no bag file: {what}')
        instead = ', '.join(file.name for file in renamed)
        notes.append(f'{what}; {f"{instead} is read in its place" if renamed else "the rest is"}')
    return files


def named_in_metadata(path: Path, notes: list[str]) -> list[str]:
    """Return the file names in metadata.yaml, none where it is missing or can't be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        # Before Foxy they began with the folder's name.
        return [
            PurePath(f).name for f in content['rosbag2_bagfile_information']['relative_file_paths']
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        notes.append(f'{path} is damaged: the bag files beside it are read without it')
        return []


def resolved(path: Path) -> Path | None:
    """Return a file, or it under the name it has with or without compression."""
    plain = path.with_suffix('') if path.suffix in COMPRESSED else path
    names = [path, plain, *(plain.with_name(plain.name + suffix) for suffix in COMPRESSED)]
    return next((name for name in names if name.exists()), None)


def opened_file(path: Path, stack: ExitStack, notes: list[str]) -> Storage:
    """Open a bag file; its first bytes tell of which kind it is, whatever its name.

    Raises:
        BagError: it is of none of them, or damaged.
    """
    name = path
    try:
        begin = first_bytes(path)
        if begin.startswith(ZSTD_MAGIC):
            path = decompressed(path, stack, notes)
            begin = first_bytes(path)
        if not begin:
            raise BagError(f'{name} is empty')
        for magic, reader in READERS.items():
            if begin.startswith(magic):
                storage: Storage = reader(path)
                stack.callback(storage.close)
                return storage
    except OSError as error:
        raise BagError(f'{name} can not be read: {error.strerror or error}') from error
    if begin.startswith(LFS_POINTER):
        raise BagError(f'{name} is a pointer of Git LFS, not the file: try `git lfs pull`')
    raise BagError(f'{name} is no bag: it begins like no MCAP, SQLite or ROS 1 bag file')


def first_bytes(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(16)


def decompressed(path: Path, stack: ExitStack, notes: list[str]) -> Path:
    """Return what a file was before its compression, there until the stack is closed."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='llmseg_bag_'))
    plain = Path(folder) / (path.stem if path.suffix in COMPRESSED else path.name)
    with path.open('rb') as packed, plain.open('wb') as unpacked:
        stream = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        try:
            shutil.copyfileobj(stream, unpacked)
        except zstandard.ZstdError as error:
            notes.append(f'{path.name} is cut off or damaged: {error}')
    return plain
