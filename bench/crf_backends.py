"""Time of the CRF by pydensecrf and in torch, on the same frames in turns.

Logits are random and smooth: time goes with the number of labels, not with what they say. The last
rows are of torch alone, cameras in one batch against one by one.

    python bench/crf_backends.py --frames 12 --device cpu
"""

from __future__ import annotations

import argparse
import os
import platform

import numpy as np
import torch
from numpy.typing import NDArray
from published_loop import make_frames, time_in_turns

from llmseg_ros.cli.common import print_table
from llmseg_ros.config import RefineConfig
from llmseg_ros.method.crf_torch import refine_crf_torch
from llmseg_ros.method.refine import refine

PATCHES = (20, 27)
CAMERAS = 4


def smooth_logits(labels: int, device: torch.device) -> torch.Tensor:
    """Return (labels, h, w) logits that change every few patches."""
    generator = torch.Generator().manual_seed(labels)
    coarse = 4 * torch.randn(1, labels, 5, 7, generator=generator)
    return torch.nn.functional.interpolate(coarse, PATCHES, mode='bilinear')[0].to(device)


def compare_backends(
    frames: list[NDArray[np.uint8]], labels: int, device: torch.device
) -> list[tuple[object, ...]]:
    """Time both backends, labels and confidence read back."""
    logits_khw = smooth_logits(labels, device)
    scores_k = torch.ones(labels - 1)
    configs = {name: RefineConfig(backend=name) for name in ('pydensecrf', 'torch')}
    times = time_in_turns(
        {
            name: lambda rgb, config=config: refine(logits_khw, scores_k, rgb, config)
            for name, config in configs.items()
        },
        frames,
    )
    return [(f'{labels} labels, {name}', *row.values()) for name, row in times.items()]


def compare_batches(
    frames: list[NDArray[np.uint8]], device: torch.device
) -> list[tuple[object, ...]]:
    """Time several cameras in one call and one by one, the best labels read back."""
    logits_bkhw = smooth_logits(6, device).expand(CAMERAS, -1, -1, -1)
    config = RefineConfig(backend='torch')

    def run(rgb: NDArray[np.uint8], batch: int) -> None:
        rgb_bhw3 = torch.from_numpy(rgb).to(device).expand(CAMERAS, -1, -1, -1)
        for first in range(0, CAMERAS, batch):
            some = slice(first, first + batch)
            refine_crf_torch(logits_bkhw[some], rgb_bhw3[some], config).argmax(dim=1).cpu()

    times = time_in_turns(
        {
            f'{CAMERAS} cameras in one batch': lambda rgb: run(rgb, CAMERAS),
            f'{CAMERAS} cameras one by one': lambda rgb: run(rgb, 1),
        },
        frames,
    )
    return [(f'6 labels, torch, {name}', *row.values()) for name, row in times.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, default=12)
    parser.add_argument('--device', default='cpu', help='of the logits: cpu, cuda, cuda:N or mps')
    parser.add_argument('--threads', type=int, default=os.cpu_count(), help='of torch')
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    frames = make_frames(arguments.frames)
    with torch.inference_mode():
        rows = [row for labels in (2, 6, 32) for row in compare_backends(frames, labels, device)]
        rows += compare_batches(frames, device)
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
    print(f'{name}, {platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}')
    print_table(('640 x 480', 'median ms', 'p95 ms', 'CPU ms'), rows)


if __name__ == '__main__':
    main()
