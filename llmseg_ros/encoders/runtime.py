"""What an image tower runs on: torch, or ONNX Runtime and its execution providers."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmseg_ros.config import EncoderConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.onnx_export import Tower, checksum_file, engine_folder, exported
from llmseg_ros.encoders.weights import first_line, load_once
from llmseg_ros.system.memory import free_memory

if TYPE_CHECKING:
    import torch

PACKAGES = ('onnxruntime', 'onnx')
REMEDY = 'pip install -r requirements/onnx.txt, or set encoder.runtime: torch'
PREFERRED = {'cuda': ('tensorrt', 'cuda')}  # by the type of device; elsewhere the CPU

# What a tower was measured to run faster on than torch, with equal labels; on a GPU nothing was
# measured yet.
FASTER_ON = ('cpu',)

logger = logging.getLogger(__name__)


class ProviderError(RuntimeError):
    """An execution provider can't be used here; the message says which."""


@dataclass(frozen=True)
class OnnxRuntime:
    """How ONNX Runtime is to be used.

    Attributes:
        device: of the tensors that go in and come out.
        providers: by preference, as ONNX Runtime names them.
        half: compute in fp16.
        required: asked for by name, so that torch can't take its place.
    """

    device: torch.device
    providers: tuple[str, ...]
    half: bool
    required: bool

    def open(self, tower: Tower) -> ExportedTower | None:
        """Return the tower, exported where it isn't yet; None where torch has to run it.

        Raises:
            EncoderUnavailable: it can't be exported or run, and torch can't take its place.
        """
        try:
            return self._open(tower)
        except EncoderUnavailable:  # of the weights, which torch can't use either
            raise
        except Exception as error:  # the exporter and every provider have errors of their own
            if self.required:
                raise EncoderUnavailable(
                    f'encoder.runtime is onnxruntime, which can not run {tower.name}: '
                    f'{first_line(error)}; set encoder.runtime: torch'
                ) from error
            logger.warning(
                '%s runs in torch, not in onnxruntime, which is faster: %s',
                tower.name,
                first_line(error),
            )
            return None

    def _open(self, tower: Tower) -> ExportedTower:
        import torch

        path = exported(tower, self.half)
        threads = torch.get_num_threads()

        def load() -> Any:
            options = [provider_options(name, path, self) for name in self.providers]
            return make_session(path, self.providers, options, threads)

        try:
            session = load_once(('onnx', path, self.providers, threads, self.device), load)
        except ProviderError:
            raise
        except Exception:  # whole, and still not to be read: of another version
            checksum_file(path).unlink(missing_ok=True)
            path = exported(tower, self.half)
            session = load_once(('onnx', path, self.providers, threads, self.device), load)
        return ExportedTower(session, self.device)


class ExportedTower:
    """An image tower that runs in ONNX Runtime; safe across threads."""

    def __init__(self, session: Any, device: torch.device) -> None:
        self._session = session
        self._device = device
        self._inputs = [item.name for item in session.get_inputs()]
        self._outputs = [item.name for item in session.get_outputs()]
        on_gpu = device.type == 'cuda' and short_name(session.get_providers()[0]) != 'cpu'
        self._place = ('cuda', device.index or 0) if on_gpu else ('cpu', 0)

    @property
    def built_by_size(self) -> bool:
        """Whether it is built for each size of its inputs, which takes minutes."""
        return short_name(self._session.get_providers()[0]) == 'tensorrt'

    @property
    def runtime(self) -> str:
        """ONNX Runtime, its version and the providers in use, in words."""
        return describe(self._session.get_providers())

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the tower on tensors of its device; its outputs are float32 on that device."""
        import torch

        binding = self._session.io_binding()
        kind, index = self._place
        held = [tensor.contiguous().to(f'{kind}:{index}') for tensor in inputs]
        for name, tensor in zip(self._inputs, held, strict=True):
            dtype = np.uint8 if tensor.dtype == torch.uint8 else np.float32
            place = kind, index, dtype, tuple(tensor.shape), tensor.data_ptr()
            binding.bind_input(name, *place)
        for name in self._outputs:
            binding.bind_output(name, kind, index)
        if kind == 'cuda':  # it computes on a stream of its own
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        return tuple(as_tensor(output).to(self._device) for output in binding.get_outputs())


def as_tensor(value: Any) -> torch.Tensor:
    """Return the tensor of an OrtValue, where it lies; on the CPU before ONNX Runtime 1.24."""
    import torch

    if hasattr(value, '__dlpack__'):
        return torch.from_dlpack(value)
    return torch.from_numpy(value.numpy())


def pick_runtime(
    config: EncoderConfig, device: torch.device, compiled: bool = False
) -> OnnxRuntime | None:
    """Return how ONNX Runtime is to be used, or None where towers run in torch.

    `auto` takes it where it was measured faster, is installed, and computes in the precision that
    is wanted.

    Args:
        config: what was asked for.
        device: of the encoder.
        compiled: torch.compile was asked for.

    Raises:
        EncoderUnavailable: it was asked for by name, and isn't installed, lacks a provider, or
            can't do what else was asked for.
    """
    required = config.runtime == 'onnxruntime'
    half = config.precision == 'fp16' or (config.precision == 'auto' and device.type == 'cuda')
    if config.runtime == 'torch':
        return None
    if not required and (
        device.type not in FASTER_ON
        or config.precision not in ('auto', 'fp32')
        or compiled
        or not installed()
    ):
        return None
    if not installed():
        raise EncoderUnavailable(
            f'encoder.runtime is onnxruntime, which is not installed: {REMEDY}'
        )
    if config.precision == 'bf16':
        raise EncoderUnavailable(
            'encoder.runtime is onnxruntime, which computes in fp32 or fp16, not in bf16: '
            'set encoder.precision, or encoder.runtime: torch'
        )
    if compiled:
        raise EncoderUnavailable(
            'encoder.runtime is onnxruntime, so there is nothing for torch.compile: '
            'set compile: false, or encoder.runtime: torch'
        )
    return OnnxRuntime(device, find_providers(config.providers, device), half, required)


def installed() -> bool:
    """Tell whether what exports towers and runs them is installed, without importing it."""
    return all(importlib.util.find_spec(package) for package in PACKAGES)


def find_providers(names: Sequence[str], device: torch.device) -> tuple[str, ...]:
    """Return execution providers by preference, as ONNX Runtime names them, the CPU last.

    Args:
        names: such as `tensorrt`, `cuda` and `cpu`, or `auto` for those of the device.
        device: of the encoder.

    Raises:
        EncoderUnavailable: this ONNX Runtime lacks one, or has none for the device.
    """
    import onnxruntime

    here = {short_name(name): name for name in onnxruntime.get_available_providers()}
    if tuple(names) == ('auto',):
        wanted = PREFERRED.get(device.type, ('cpu',))
        if not (found := [here[name] for name in wanted if name in here]):
            raise EncoderUnavailable(
                f'this onnxruntime has nothing for {device.type}, but {", ".join(here)}: '
                'pip install onnxruntime-gpu in its place, or set encoder.runtime: torch'
            )
    else:
        lacking = [name for name in names if short_name(name) not in here]
        if lacking:
            raise EncoderUnavailable(
                f'encoder.providers names {lacking[0]!r}, this onnxruntime has {", ".join(here)}'
            )
        found = [here[short_name(name)] for name in names]
    return tuple(dict.fromkeys([*found, here['cpu']]))


def short_name(provider: str) -> str:
    """Return a provider's name as it is set: `cuda` of CUDAExecutionProvider."""
    return provider.lower().removesuffix('executionprovider')


def describe(providers: Sequence[str]) -> str:
    """Return ONNX Runtime, its version and the first of its providers, in words."""
    import onnxruntime

    return f'onnxruntime {onnxruntime.__version__}, {short_name(providers[0])}'


def make_session(
    path: Path,
    providers: Sequence[str],
    provider_options: Sequence[dict[str, str]],
    threads: int,
) -> Any:
    """Load an export, to run on the first of the providers and, what it can't, on the others.

    Raises:
        ProviderError: the first provider does not start.
        Exception: the file can't be read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that spin while they wait take the cores from the refiner and the camera driver
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, list(providers), list(provider_options))
    if session.get_providers()[0] != providers[0]:
        raise ProviderError(f'the provider {short_name(providers[0])} does not start here')
    free_memory()  # of reading the file: 200 MB for a ViT-B
    return session


def provider_options(provider: str, path: Path, runtime: OnnxRuntime) -> dict[str, str]:
    """Return the options of an execution provider; TensorRT keeps what it built beside the export.

    Engines take minutes to build, and depend on the GPU and on TensorRT's version, which are in
    the names of the files it keeps.
    """
    kind, device_id = short_name(provider), str(runtime.device.index or 0)
    if kind == 'cuda':
        return {'device_id': device_id}
    if kind == 'tensorrt':
        folder = engine_folder(path)
        folder.mkdir(exist_ok=True)
        logger.warning('TensorRT builds its engines, once for every size: minutes the first time')
        return {
            'device_id': device_id,
            'trt_fp16_enable': str(runtime.half),
            'trt_engine_cache_enable': 'True',
            'trt_engine_cache_path': str(folder),
            'trt_timing_cache_enable': 'True',
            'trt_timing_cache_path': str(folder),
        }
    return {}
