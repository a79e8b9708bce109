"""The number type matrix products of a model run in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type named; `auto` is fp32 on the CPU and half precision on a GPU.

    On a GPU that is bf16 where the hardware has it, else fp16.
    """
    import torch

    named = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
    if name in named:
        return named[name]
    if device.type == 'cuda':
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32 if device.type == 'cpu' else torch.float16


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Return the context in which a model with fp32 weights runs in a precision."""
    import torch

    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)
