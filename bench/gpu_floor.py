"""The least time that a frame can take on a device: operations and bytes over measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Work(NamedTuple):
    """What a frame can't do without.

    Attributes:
        operations: of products and convolutions, by the precision they are done in.
        moved: bytes that were there before and are read, weights and image above all, each once,
            and those that are written last.
    """

    operations: dict[str, int]
    moved: int

    def floor_ms(self, operations_per_s: dict[str, float], bytes_per_s: float) -> float:
        """Return the milliseconds that no implementation goes below."""
        computed_s = sum(n / operations_per_s[name] for name, n in self.operations.items())
        return 1000 * max(computed_s, self.moved / bytes_per_s)


class Counter(TorchDispatchMode):
    """Counts operations by precision, and bytes of tensors that are read and not made within."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, int] = {}
        self.read = self.written_last = 0
        self._known: set[int] = set()  # storages that were read or made

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        count = flop_registry.get(function.overloadpacket)
        if count is None:
            with self:  # what it consists of may be counted
                result = function.decompose(*arguments, **keywords)
            if result is not NotImplemented:
                return result
        for tensor in tensors_in(arguments):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._known:
                self._known.add(storage.data_ptr())
                self.read += storage.nbytes()
        result = function(*arguments, **keywords)
        for tensor in tensors_in([result]):
            self._known.add(tensor.untyped_storage().data_ptr())
            self.written_last = tensor.untyped_storage().nbytes()
        if count is not None:
            name = NAMES.get(next(tensors_in(arguments)).dtype, 'fp32')
            done = count(*arguments, **keywords, out_val=result)
            self.operations[name] = self.operations.get(name, 0) + done
        return result


def tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested lists and tuples."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def count_work(run: Callable[[], object]) -> Work:
    """Count what torch does in a call."""
    with Counter() as counter:
        run()
    return Work(counter.operations, counter.read + counter.written_last)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def rate(device: torch.device, do: Callable[[], object], amount: float, repeats: int = 10) -> float:
    """Return how much of something is done in a second, the fastest of three tries."""
    fastest = float('inf')
    for _ in range(3):
        wait_for(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            do()
        wait_for(device)
        fastest = min(fastest, time.perf_counter() - begin)
    return repeats * amount / fastest


def measure_device(device: torch.device, side: int) -> tuple[dict[str, float], float]:
    """Return operations a second by precision, and bytes a second."""
    operations = {}
    for name, dtype in DTYPES.items():
        left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
        operations[name] = rate(device, lambda a=left, b=right: a @ b, 2.0 * side**3)
    source = torch.ones(2 * side, 2 * side, device=device)
    target = torch.empty_like(source)
    return operations, rate(device, lambda: target.copy_(source), 2.0 * source.nbytes)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length that spans cover together."""
    total, reached = 0.0, float('-inf')
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
