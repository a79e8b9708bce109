"""Tensors out of TorchScript archives, such as OpenAI's CLIP models, without running their code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

DTYPES = {
    'BFloat16Storage': torch.bfloat16,
    'BoolStorage': torch.bool,
    'ByteStorage': torch.uint8,
    'CharStorage': torch.int8,
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'IntStorage': torch.int32,
    'LongStorage': torch.int64,
    'ShortStorage': torch.int16,
}
NO_WEIGHT = 'attn_mask'  # of CLIP's text tower: a constant, which archives hold beside the weights


class Part:
    """A module of an archive: its attributes, and nothing it could do."""


class TensorsOnly(pickle.Unpickler):
    """Unpickle the data of an archive; whatever is neither module nor tensor is refused.

    A pickle runs what it finds by name; here it finds what this file has and nothing else.
    """

    def __init__(self, archive: zipfile.ZipFile, data: str) -> None:
        super().__init__(archive.open(data))
        self._archive = archive
        self._folder = data.rpartition('/')[0]

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith('__torch__'):
            return Part
        if module == 'torch' and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return tensor_in
        if (module, name) == ('collections', 'OrderedDict'):
            return dict
        if module == 'torch.jit._pickle':  # marks the type of a list
            return first_of
        raise pickle.UnpicklingError(f'{module}.{name} is neither module nor tensor')

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, _, count = pid
        content = bytearray(self._archive.read(f'{self._folder}/data/{int(key)}'))
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(content, dtype=dtype, count=count)


def tensor_in(
    storage: torch.Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> torch.Tensor:
    """Return a tensor over a part of a storage."""
    return torch.as_strided(storage, shape, strides, offset)


def first_of(items: Any, *_: Any) -> Any:
    return items


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive."""
    return bool(zipfile.is_zipfile(path) and data_in(path))


def data_in(path: Path) -> str:
    """Return the name of the data in an archive, empty where it is none."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    folders = [name.rpartition('/')[0] for name in names if name.endswith('/constants.pkl')]
    return f'{folders[0]}/data.pkl' if folders else ''


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of an archive's modules by name.

    Raises:
        Exception: it is damaged or holds other things, of a kind of what its parsers run into.
    """
    with zipfile.ZipFile(path) as archive:
        return tensors_of(TensorsOnly(archive, data_in(path)).load())


def tensors_of(part: object, prefix: str = '') -> dict[str, torch.Tensor]:
    """Return the tensors of a module and its submodules by name."""
    found = {}
    for name, value in vars(part).items():
        if isinstance(value, Part):
            found.update(tensors_of(value, f'{prefix}{name}.'))
        elif isinstance(value, torch.Tensor) and name != NO_WEIGHT:
            found[prefix + name] = value
    return found
