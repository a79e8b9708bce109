"""Memory of this process, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def free_memory() -> None:
    """Give freed memory back to the GPU's driver and to the operating system."""
    gc.collect()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL('libc.so.6').malloc_trim(0)


def process_memory_mib() -> float:
    """Return the resident memory of this process; 0 where the system does not tell."""
    try:
        with open('/proc/self/status', encoding='ascii') as status:
            lines = [line.split() for line in status if line.startswith('VmRSS:')]
    except OSError:
        return 0.0
    return int(lines[0][1]) / 1024 if lines else 0.0


def device_memory_mib() -> float:
    """Return this process's memory on the GPU; 0 where there is none."""
    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.memory_allocated()) / (1 << 20)
