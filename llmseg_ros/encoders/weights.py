"""Weight files: where they lie, how they are read safely, and how they are checked."""

from __future__ import annotations

import hashlib
import re
import threading
import warnings
import weakref
import zipfile
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.files import cache_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

SUFFIXES = ('.safetensors', '.bin', '.pt', '.pth')
KEYS_SHOWN = 3
WRAPPINGS = ('state_dict', 'model_state_dict', 'model')
PREFIXES = re.compile(r'^(module\.)+|\b_orig_mod\.(module\.)*')
OPENAI_NUMBERS = ('input_resolution', 'context_length', 'vocab_size')

T = TypeVar('T')

_loaded: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_once(key: Hashable, load: Callable[[], T]) -> T:
    """Return what is loaded under a key, loading it where nobody in this process holds it."""
    with _loading:
        if (loaded := _loaded.get(key)) is None:
            loaded = load()
            _loaded[key] = loaded
        return loaded


def weights_folder(encoder: str, model: str = '') -> Path:
    """Return where downloaded weights of an encoder lie, such as a model--tag of open_clip."""
    return cache_folder() / 'weights' / encoder / model.replace('/', '-')


def find_weights(folder: Path, first: str = '') -> Path | None:
    """Return the weight file of a folder, or None: of several `first` in its name, safetensors."""
    for suffix in SUFFIXES:
        for path in sorted(folder.glob(f'*{suffix}'), key=lambda p: (first not in p.name, p)):
            return path
    return None


def given_weights(given: str) -> Path:
    """Return the checkpoint file a user gave, or that in the folder they gave.

    A folder is, for one, a repository or a snapshot in the cache of the Hugging Face hub.

    Raises:
        EncoderUnavailable: it is not there.
    """
    path = snapshot_in(Path(given).expanduser())
    if path.is_dir():
        found = find_weights(path)
        if found is None:
            raise EncoderUnavailable(
                f'folder {given} has no checkpoint: expected a file of {", ".join(SUFFIXES)} in it'
            )
        return found
    if not path.is_file():
        raise EncoderUnavailable(f'checkpoint {given} does not exist')
    return path


def snapshot_in(folder: Path) -> Path:
    """Return the snapshot in a repository of the Hugging Face cache, another folder as it is.

    It is that of the branch main, else the newest.
    """
    snapshots = folder / 'snapshots'
    if not snapshots.is_dir():
        return folder
    try:
        main = snapshots / (folder / 'refs' / 'main').read_text(encoding='ascii').strip()
    except (OSError, ValueError):
        main = snapshots
    if main != snapshots and main.is_dir():
        return main
    there = [path for path in snapshots.iterdir() if path.is_dir()]
    return max(there, key=lambda path: (path.stat().st_mtime, path.name), default=folder)


def is_safetensors(path: Path) -> bool:
    """Tell by the content: files of the Hugging Face cache have no suffix."""
    with path.open('rb') as file:
        start = file.read(9)
    return start[8:] == b'{' and int.from_bytes(start[:8], 'little') < path.stat().st_size


def harmless_globals() -> list[Any]:
    """Return what trainers leave in checkpoints beside tensors, and torch refuses of itself.

    A version of torch, and numbers of numpy: they hold values and run nothing.
    """
    import numpy as np
    from torch.torch_version import TorchVersion

    scalar = np.float64(0).__reduce__()[0]
    kinds = (np.bool_, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64)
    return [
        TorchVersion,
        scalar,
        (scalar, 'numpy.core.multiarray.scalar'),  # of numpy before 2
        (scalar, 'numpy._core.multiarray.scalar'),
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
    ]


def absent(what: str, encoder: str, is_default: bool = True) -> EncoderUnavailable:
    """Say that weights are absent, where they are looked for, and what to do.

    Args:
        what: is absent.
        encoder: that needs it.
        is_default: no configuration is needed to know what to download.
    """
    command = (
        f'`llmseg download --encoder {encoder}`'
        if is_default
        else '`llmseg download --config FILE`, FILE the configuration that names them,'
    )
    return EncoderUnavailable(
        f'{what} not found in {weights_folder(encoder)}: run {command} '
        'where there is a network, or use `encoder: imagenet`, whose weights are installed'
    )


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hex; the one recorded beside it since it was written.

    Raises:
        OSError: the file can't be read.
    """
    recorded = checksum_file(path)
    if recorded.is_file() and recorded.stat().st_mtime >= path.stat().st_mtime:
        digest = recorded.read_text(encoding='ascii', errors='replace').split(' ', 1)[0].strip()
        if re.fullmatch('[0-9a-f]{64}', digest):
            return digest
    return compute_checksum(path)


def checksum_file(path: Path) -> Path:
    """Return where the checksum of a downloaded file is recorded, as sha256sum writes it."""
    return path.with_name(f'{path.name}.sha256')


def compute_checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors without running code from it.

    A `state_dict` entry is unwrapped; the prefixes `module.` of parallel training and `_orig_mod.`
    of torch.compile are dropped. OpenAI's numbers about the model are kept as tensors.

    Raises:
        EncoderUnavailable: the file is absent, damaged, not a checkpoint, or has code in it.
    """
    import torch

    checkpoint = read_checkpoint(path)
    for key in WRAPPINGS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, Mapping) or not all(
        torch.is_tensor(value) or key in OPENAI_NUMBERS for key, value in checkpoint.items()
    ):
        raise EncoderUnavailable(f'checkpoint {path} is not a table of named tensors')
    return {PREFIXES.sub('', str(key)): torch.as_tensor(value) for key, value in checkpoint.items()}


def read_checkpoint(path: Path) -> Any:
    """Return what a checkpoint holds without running code from it.

    Raises:
        EncoderUnavailable: the file is absent, damaged, not a checkpoint, or has code in it.
    """
    import pickle

    import torch

    from llmseg_ros.encoders.torchscript import is_torchscript

    try:
        if is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        if is_torchscript(path):
            return read_archive(path)
        with warnings.catch_warnings():  # torch's advice is for its own users
            warnings.simplefilter('ignore')
            with torch.serialization.safe_globals(harmless_globals()):
                # mapped, what no one asks for is not read; the older format can't be
                mapped = zipfile.is_zipfile(path)
                return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except EncoderUnavailable:
        raise
    except FileNotFoundError as error:
        raise EncoderUnavailable(f'checkpoint {path} does not exist') from error
    except pickle.UnpicklingError as error:
        raise EncoderUnavailable(
            f'checkpoint {path} was not loaded, it is damaged or holds code or objects besides '
            'tensors: get a copy from a source you trust, as .safetensors where possible'
        ) from error
    except Exception as error:  # every format has errors of its own
        # Where it names `weights_only` torch advises to run what is in the file.
        reason = '' if 'weights_only' in str(error) else f': {first_line(error)}'
        raise EncoderUnavailable(
            f'checkpoint {path} is damaged or no checkpoint{reason}'
        ) from error


def read_archive(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a TorchScript archive.

    Raises:
        EncoderUnavailable: there are none, or they can't be had without running its code.
    """
    from llmseg_ros.encoders.torchscript import read_torchscript

    try:
        if tensors := read_torchscript(path):
            return tensors
        reason: BaseException | None = None
    except Exception as error:  # of the zip file, the pickle in it, or torch
        reason = error
    raise EncoderUnavailable(
        f'checkpoint {path} is a TorchScript archive without weights that can be read unless its '
        'code is run: if you trust it, make weights of it with '
        "`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')`"
    ) from reason


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load tensors into a module; every one must be there and fit.

    Raises:
        EncoderUnavailable: names the keys that are missing, extra, of another shape or kind, or
            damaged.
    """
    own = module.state_dict()
    misfits = [
        f'{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    others = [key for key in own if key in state and not is_alike(state[key], own[key])]
    problems = {
        'is missing': [key for key in own if key not in state],
        'has extra': [key for key in state if key not in own],
        'has other shapes:': misfits,
        'has another kind of numbers in': others,
    }
    found = [f'{what} {some_of(keys)}' for what, keys in problems.items() if keys]
    if found:
        raise EncoderUnavailable(
            f'checkpoint {path} does not fit the model, it {" and ".join(found)}'
        )
    module.load_state_dict(state)
    # a single NaN or infinity makes the sum one, in a tenth of the time of looking at each
    broken = [key for key, value in module.state_dict().items() if not value.sum().isfinite()]
    if broken:
        raise EncoderUnavailable(
            f'checkpoint {path} is damaged, it has NaN or infinity in {some_of(broken)}'
        )


def is_alike(found: torch.Tensor, own: torch.Tensor) -> bool:
    """Tell whether a tensor is dense and of whole or of real numbers as the other is."""
    return found.layout == own.layout and found.is_floating_point() == own.is_floating_point()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def some_of(items: list[str]) -> str:
    """Return the first few of a list in words, and how many more there are."""
    more = f' and {len(items) - KEYS_SHOWN} more' if len(items) > KEYS_SHOWN else ''
    return ', '.join(items[:KEYS_SHOWN]) + more
