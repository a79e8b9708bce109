"""Image towers as ONNX files, exported once into the cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from llmseg_ros.encoders.weights import checksum_file, compute_checksum
from llmseg_ros.files import cache_folder, replacing
from llmseg_ros.system.memory import free_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT = 1  # of what is exported; another number has all exports made again
KEPT = 8  # exports: of models, attention modes and precisions, those used last
WORTH_TELLING_BYTES = 100e6  # of weights, whose export takes seconds
MOST_BYTES = 2e9  # of weights: what an ONNX file holds, that is a ViT-L and no ViT-H

logger = logging.getLogger(__name__)


class ExportError(RuntimeError):
    """A tower can't be exported; the message says why."""


@dataclass(frozen=True)
class Tower:
    """What is needed to export an image tower, and to know whether it was.

    Attributes:
        name: in a file name: encoder and model.
        weights: checksum of the weights.
        mode: everything else that the result depends on, such as the attention mode.
        inputs: axes of each input by name that have any length, by number.
        outputs: likewise of each output.
        code: files of the code that is traced.
        packages: whose modules are traced.
        make: loads the module and an example of its inputs.
    """

    name: str
    weights: str
    mode: tuple[object, ...]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    code: tuple[str, ...]
    packages: tuple[str, ...]
    make: Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]


def export_folder() -> Path:
    """Return where exports lie."""
    return cache_folder() / 'onnx'


def exported(tower: Tower, half: bool = False) -> Path:
    """Return the ONNX file of a tower; it is made where there is none, or a damaged one.

    Of several processes that ask at once, one makes it and the others wait.

    Args:
        tower: the tower.
        half: compute in fp16; what goes in and comes out is float32 all the same.

    Raises:
        ExportError: it is too large.
        OSError: the cache folder can't be written.
        ImportError: a package that exporting needs isn't installed.
    """
    path = export_folder() / f'{tower.name.replace("/", "-")}-{export_key(tower, half)}.onnx'
    if is_whole(path):
        with contextlib.suppress(OSError):  # a folder that is only read serves too
            path.touch()  # so that it is not among those used longest ago
        return path
    with only_one(path.with_suffix('.lock')):
        if not is_whole(path):
            export(tower, half, path)
            forget_oldest(path.parent)
    return path


def export_key(tower: Tower, half: bool) -> str:
    """Return a digest of everything that an export depends on."""
    code = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in tower.code]
    versions = [metadata.version(package) for package in ('torch', *tower.packages)]
    parts = [FORMAT, tower.name, tower.weights, tower.mode, half, code, versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def is_whole(path: Path) -> bool:
    """Tell whether an export is there with the content it was written with."""
    try:
        recorded = checksum_file(path).read_text(encoding='ascii', errors='replace')
        return recorded.split(' ', 1)[0].strip() == compute_checksum(path)
    except OSError:
        return False


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Wait until no other process or thread is within such a block on this lock file.

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def export(tower: Tower, half: bool, path: Path) -> None:
    """Write the ONNX file of a tower and its checksum.

    Raises:
        ExportError: it is too large.
        OSError: the folder can't be written.
        ImportError: a package that exporting needs isn't installed.
    """
    started = time.monotonic()
    module, example = tower.make()
    free_memory()  # of what was loaded beside it: tracing takes three times the room of the weights
    size = sum(parameter.nbytes for parameter in module.parameters())
    if size > MOST_BYTES:
        raise ExportError(f'an ONNX file has no room for its {size / 1e9:.1f} GB of weights')
    level = logging.WARNING if size > WORTH_TELLING_BYTES else logging.INFO
    logger.log(level, 'exporting the image tower of %s to ONNX, once, to %s', tower.name, path)
    checksum_file(path).unlink(missing_ok=True)
    with replacing(path) as partial:
        trace(in_half(module) if half else module, example, tower, partial)
        checksum = compute_checksum(partial)
    with replacing(checksum_file(path)) as partial:
        partial.write_text(f'{checksum}  {path.name}\n', encoding='ascii')
    logger.log(level, 'exported in %.1f s', time.monotonic() - started)


def trace(module: nn.Module, example: tuple[torch.Tensor, ...], tower: Tower, path: Path) -> None:
    """Write a module by the exporter that traces TorchScript.

    The newer one (dynamo=True) writes an equally fast graph, but takes eight seconds and 280 MiB
    for the default encoder, of which this takes 0.2 and 10.
    """
    import torch

    axes = {**tower.inputs, **tower.outputs}
    with torch.no_grad(), warnings.catch_warnings():  # its advice is for whoever wrote the module
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module.eval(),
            example,
            path,
            dynamo=False,
            input_names=list(tower.inputs),
            output_names=list(tower.outputs),
            dynamic_axes={
                name: {axis: f'{name}_{axis}' for axis in free} for name, free in axes.items()
            },
        )


def in_half(module: nn.Module) -> nn.Module:
    """Return a copy of a module that computes in fp16, between float32."""
    import copy

    from torch import nn

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(module).half()

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            halves = [x.half() if x.is_floating_point() else x for x in inputs]
            return tuple(output.float() for output in self.inner(*halves))

    return Half()


def engine_folder(path: Path) -> Path:
    """Return where TensorRT keeps the engines it has built of an export."""
    return path.with_suffix('.engines')


def forget_oldest(folder: Path) -> None:
    """Remove all exports but the KEPT used last, with what was made of them."""
    by_age = sorted(folder.glob('*.onnx'), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[KEPT:]:
        for part in (path, checksum_file(path), path.with_suffix('.lock')):
            part.unlink(missing_ok=True)
        shutil.rmtree(engine_folder(path), ignore_errors=True)
