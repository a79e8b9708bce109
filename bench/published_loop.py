"""Time per frame against a port of the published evaluation's inner loop, on the same weights.

The port does what docs/method.md describes of the published code, in its order and without
cleverness: batch 1, float32, and per candidate one text product, one binary dense CRF and one
morphology pass. Both run a ViT-S/16 with random weights at 288x288 on the same frames, in turns.
The second table is of open_clip's sliding windows, batched against one by one.

    python bench/published_loop.py --frames 30 --json published_loop.json

It says how far it is and about how long it has to go. With one frame it was still timing the
last table after 9 minutes and 4 of CPU time, on two cores that had other work.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydensecrf.densecrf
import skimage
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from random_weights import INPUT, PATCH, random_vit, write_random_clip, write_random_simseg
from torch.nn.functional import interpolate, normalize

from llmseg_ros.cli.common import print_table
from llmseg_ros.config import (
    EncoderConfig,
    GateConfig,
    SegmenterConfig,
    SubclassesConfig,
)
from llmseg_ros.encoders.open_clip import OpenClipEncoder
from llmseg_ros.files import write_json
from llmseg_ros.segmenter import Segmenter

CLASSES = (
    *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow'),
    *('dining table', 'dog', 'horse', 'motorbike', 'person', 'potted plant', 'sheep', 'sofa'),
    *('train', 'tv monitor'),
)

MAX_CANDIDATES, TOP_K = 5, 10  # as published
WARM_UP = 2


class PublishedLoop:
    """The published evaluation of one image, from pixels to labels."""

    def __init__(self, state: dict[str, torch.Tensor], texts_cd: torch.Tensor) -> None:
        prefix = 'image_encoder.model.model.'
        self.vit = random_vit()
        self.vit.load_state_dict(
            {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
        )
        self.projection = state['image_projection.linear.weight']
        self.texts_cd = texts_cd
        self.pixels = torchvision.transforms.Compose(
            [
                torchvision.transforms.Resize((INPUT, INPUT)),
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    @torch.no_grad()
    def __call__(self, rgb: NDArray[np.uint8], forced: int) -> tuple[NDArray[np.intp], int]:
        """Return labels (H, W), 0 background, and how many candidates were segmented.

        These are those of the published gate, or a number that is forced.
        """
        tokens_nd = self.vit.forward_features(self.pixels(Image.fromarray(rgb))[None])[0, 1:]
        patches_nd = tokens_nd @ self.projection.T
        pooled_d = normalize(patches_nd.topk(5, dim=0).values.mean(dim=0), dim=0)
        patches_nd = normalize(patches_nd, dim=1)
        scores_c = self.texts_cd @ pooled_d
        top_k = scores_c.topk(TOP_K).values
        threshold = top_k.mean() + top_k.std()
        small = cv2.resize(rgb, (INPUT, INPUT))
        height, width = rgb.shape[:2]
        votes_chw = np.zeros((1 + len(scores_c), height, width))
        done = 0
        order_c = scores_c.argsort(descending=True)
        for index in order_c[: forced or MAX_CANDIDATES].tolist():
            if not forced and scores_c[index] < threshold:
                break
            map_hw = (patches_nd @ self.texts_cd[index]).reshape(1, 1, INPUT // PATCH, -1)
            map_hw = interpolate(map_hw, scale_factor=PATCH, mode='nearest')[0, 0].numpy()
            mask_hw = self.binary_crf(small, (map_hw - map_hw.min()) / np.ptp(map_hw))
            kernel = np.ones((7, 7), np.uint8)
            mask_hw = cv2.erode(cv2.dilate(mask_hw, kernel), kernel)
            mask_hw = cv2.resize(mask_hw, (width, height), interpolation=cv2.INTER_NEAREST)
            votes_chw[1 + index] = mask_hw * float(scores_c[index])
            done += 1
        return votes_chw.argmax(axis=0), done

    def binary_crf(
        self, rgb: NDArray[np.uint8], probability_hw: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        height, width = probability_hw.shape
        probabilities = np.stack([1 - probability_hw, probability_hw]).reshape(2, -1)
        crf = pydensecrf.densecrf.DenseCRF2D(width, height, 2)
        crf.setUnaryEnergy(np.ascontiguousarray(-np.log(probabilities + 1e-8), np.float32))
        crf.addPairwiseGaussian(sxy=3, compat=3)
        crf.addPairwiseBilateral(sxy=40, srgb=13, rgbim=rgb, compat=10)
        return np.array(crf.inference(3)).argmax(axis=0).reshape(height, width).astype(np.uint8)


def make_frames(count: int) -> list[NDArray[np.uint8]]:
    """Return 640x480 frames, a window panning over public-domain photographs."""
    photos = [getattr(skimage.data, name)() for name in ('chelsea', 'coffee', 'astronaut')]
    frames = []
    for number in range(count):
        photo = Image.fromarray(photos[number % len(photos)]).resize((800, 600))
        shift = 160 * number // max(1, count - 1)
        frames.append(np.array(photo)[60:540, shift : shift + 640])
    return frames


def time_in_turns(
    runs: dict[str, Callable[[NDArray[np.uint8]], Any]], frames: Sequence[NDArray[np.uint8]]
) -> dict[str, dict[str, float]]:
    """Run every way on every frame, in turns so that a busy moment meets all.

    Returns:
        Milliseconds a frame: wall time, and CPU time of the process, which says more on a machine
        that has other work.
    """
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    warm_up = frames[:WARM_UP]
    for number, frame in enumerate([*warm_up, *frames]):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(frame)
            if number >= len(warm_up):
                walls[name].append(1000 * (time.perf_counter() - wall))
                cpus[name].append(1000 * (time.process_time() - cpu))
    return {
        name: {
            'median': round(float(np.median(walls[name])), 2),
            'p95': round(float(np.percentile(walls[name], 95)), 2),
            'cpu_median': round(float(np.median(cpus[name])), 2),
        }
        for name in runs
    }


def ratios(slow: dict[str, float], fast: dict[str, float]) -> dict[str, float]:
    """Return how many times faster, by wall and by CPU time."""
    return {
        'ratio': round(slow['median'] / fast['median'], 2),
        'cpu_ratio': round(slow['cpu_median'] / fast['cpu_median'], 2),
    }


def compare_loops(folder: Path, frames: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
    """Time port and segmenter at 20 classes, gated as published, and at 5 and 20 candidates."""
    base = SegmenterConfig(
        encoder=EncoderConfig(name='simseg', device='cpu'),
        simseg=write_random_simseg(folder),
        subclasses=SubclassesConfig(packs=False, llm='off'),
    )
    # the published gate keeps few classes of random weights, so more are forced as well
    published = GateConfig(name='simseg', evidence='superclass', top_k=TOP_K)
    five = GateConfig(name='share', evidence='superclass', share=0.0)
    everything = GateConfig(name='none')
    port_size = replace(base.refine, short_side=INPUT, bilateral_sxy=base.refine.bilateral_sxy * 2)
    compiled = replace(base.simseg, compile=True)
    half = EncoderConfig(name='simseg', device='cpu', precision='bf16')
    cases = {
        'published gate': (0, replace(base, gate=published)),
        '5 candidates': (5, replace(base, gate=five)),
        '5 candidates, compiled': (5, replace(base, gate=five, simseg=compiled)),
        '5 candidates, bf16': (5, replace(base, gate=five, encoder=half)),
        "5 candidates, CRF at the port's size": (5, replace(base, gate=five, refine=port_size)),
        '5 candidates, ours on all 20': (5, replace(base, gate=everything)),
        '20 candidates': (20, replace(base, gate=everything)),
    }
    rows = []
    begin = time.monotonic()
    for number, (name, (forced, config)) in enumerate(cases.items()):
        left = (time.monotonic() - begin) / max(1, number) * (len(cases) + 1 - number) / 60
        about = f', about {left:.1f} min to go' if number else ''
        print(f'{number + 1} of {len(cases) + 1}: {name}{about}', file=sys.stderr, flush=True)
        segmenter = Segmenter(config, CLASSES)
        state = torch.load(base.simseg.checkpoint, weights_only=True)['state_dict']
        port = PublishedLoop(state, segmenter.encoder.encode_text(CLASSES))
        counts = [port(frame, forced)[1] for frame in frames]
        times = time_in_turns(
            {'published': lambda rgb: port(rgb, forced), 'ours': segmenter.segment},  # noqa: B023
            frames,
        )
        rows.append(
            {
                'case': name,
                'mean_candidates_of_port': round(float(np.mean(counts)), 2),
                'published_ms': times['published'],
                'ours_ms': times['ours'],
                **ratios(times['published'], times['ours']),
            }
        )
    return rows


def compare_windows(
    folder: Path, frames: Sequence[NDArray[np.uint8]], model: str
) -> dict[str, Any]:
    """Time open_clip's six windows of a frame in one forward and one by one."""
    print('the last: windows of open_clip', file=sys.stderr, flush=True)
    config = write_random_clip(folder, model)
    cpu = torch.device('cpu')
    one = replace(config, batch=1)
    ways = {
        'batched': OpenClipEncoder(config, cpu),
        'one by one': OpenClipEncoder(one, cpu),
        'batched, bf16': OpenClipEncoder(config, cpu, 'bf16'),
        'one by one, bf16': OpenClipEncoder(one, cpu, 'bf16'),
        'whole image': OpenClipEncoder(replace(config, windows=False), cpu),
    }
    times = time_in_turns({name: way.encode_image for name, way in ways.items()}, frames)
    return {'model': model, 'times_ms': times, **ratios(times['one by one'], times['batched'])}


def print_report(report: dict[str, Any]) -> None:
    """Print both tables."""
    print_table(
        ('case', 'candidates of port', 'published ms', 'ours ms', 'ratio', 'CPU time ratio'),
        [
            (
                row['case'],
                row['mean_candidates_of_port'],
                row['published_ms']['median'],
                row['ours_ms']['median'],
                row['ratio'],
                row['cpu_ratio'],
            )
            for row in report['loops']
        ],
    )
    windows = report['windows']
    print_table(
        (f'windows, {windows["model"]}', 'median ms', 'p95 ms', 'CPU ms'),
        [(way, *times.values()) for way, times in windows['times_ms'].items()],
    )
    print(
        f'one by one against batched: {windows["ratio"]} times the wall time, '
        f'{windows["cpu_ratio"]} times the CPU time'
    )


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, default=30)
    parser.add_argument('--clip', default='ViT-B-16', help='open_clip model of the windows')
    parser.add_argument('--threads', type=int, default=os.cpu_count(), help='of torch and OpenCV')
    parser.add_argument('--json', type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ['LLMSEG_CACHE'] = name  # no embedding of random weights is kept
        frames = make_frames(arguments.frames)
        report = {
            'machine': f'{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}',
            'threads': arguments.threads,
            'frames': arguments.frames,
            'loops': compare_loops(folder, frames),
            'windows': compare_windows(
                folder, frames[: max(3, arguments.frames // 3)], arguments.clip
            ),
        }
    print_report(report)
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == '__main__':
    main()
