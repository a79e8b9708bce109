"""Everything a GPU is needed for, in one run of under eight minutes: time, rate, memory, floor.

Each encoder in each precision and runtime, each refiner, two image sizes, 5 and 80 classes; one
camera frame by frame, one whose stages overlap as in the node, and four cameras on one model, each
on a thread of its own and all four encoded in one batch, as the node does.
Weights are random where they are not installed: time does not go with what they say. What can't be
run is left out with a sentence, and so is what the time does not suffice for: what is left of it is
shared evenly among the encoders, precisions and runtimes still to come.

Beside torch it needs numpy, opencv-python-headless and PyYAML, and of an encoder, ONNX Runtime or
pydensecrf what requirements/ says.

"GPU waits" is the share of a frame's time in which the GPU runs nothing. "floor" is the larger of
the products and convolutions of a frame over the rate of a large matrix product measured here in
that precision, and of what must be read and written over the bandwidth measured here.

    python bench/gpu.py --json gpu.json
    python bench/gpu.py --device cpu --small
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gpu_floor import DTYPES, Work, count_work, covered, measure_device, wait_for
from numpy.typing import NDArray
from random_weights import write_random_clip, write_random_simseg

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.config_files import load_config
from llmseg_ros.encoders import EncoderUnavailable, find_device
from llmseg_ros.files import shipped_path, write_json
from llmseg_ros.method.crf import crf_available
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.ahead import map_ahead
from llmseg_ros.system.memory import free_memory, process_memory_mib

ENCODERS = ('imagenet', 'open_clip', 'simseg')
ONE_PRECISION = ('imagenet', 'torch')  # whatever is asked for
PRESETS = {'imagenet': 'offline', 'open_clip': 'open_clip', 'simseg': 'paper'}
RUNTIMES = ('torch', 'onnxruntime')
REFINERS = {  # the CRF in torch, and on one CPU core
    'crf': {'name': 'crf', 'backend': 'torch'},
    'crf, pydensecrf': {'name': 'crf', 'backend': 'pydensecrf'},
    'pamr': {'name': 'pamr'},
    'none': {'name': 'none'},
}
CAMERAS = {'1': 1, '1, stages overlap': 1, '4': 4, '4, in batches': 4}
WARM_UP = 3
PROFILED = 3  # frames
COLUMNS = (
    *('encoder', 'precision', 'runtime', 'refiner', 'size', 'classes', 'cameras', 'ms', 'p95'),
    *('frames/s', 'GPU waits %', 'floor ms', 'MiB'),
)

Frames = Sequence[NDArray[np.uint8]]


class Scale(NamedTuple):
    """How much is measured.

    Attributes:
        sizes: width and height of the images.
        classes: how many.
        models: of the imagenet and open_clip encoders.
        layers: of SimSeg's image tower.
        seconds: for each row.
        side: of the matrices that the rate of products is measured with.
    """

    sizes: Sequence[tuple[int, int]]
    classes: Sequence[int]
    models: tuple[str, str]
    layers: int
    seconds: float
    side: int


FULL = Scale(((640, 480), (1280, 720)), (5, 80), ('lite2', 'ViT-B-16-quickgelu'), 12, 0.3, 8192)
SMALL = Scale(((64, 48),), (2, 3), ('lite0', 'small'), 2, 0.02, 512)


@dataclass(frozen=True)
class Row:
    """One line of the table; what can't be known here is None."""

    encoder: str
    precision: str
    runtime: str
    refiner: str
    size: str
    classes: int
    cameras: str
    ms: float
    p95_ms: float
    frames_per_s: float
    waits_percent: float | None
    floor_ms: float | None
    memory_mib: float


def make_frames(width: int, height: int, count: int = 8) -> list[NDArray[np.uint8]]:
    """Return (height, width, 3) uint8 pictures, smooth and noisy in parts."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode='bicubic')
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    pixels = (255 * noisy.clamp(0, 1)).byte().permute(0, 2, 3, 1)
    return [np.ascontiguousarray(rgb) for rgb in pixels.numpy()]


def run_cameras(
    segmenter: Segmenter, frames: Frames, cameras: str, seconds: float
) -> tuple[list[float], float]:
    """Return the milliseconds of each frame, and the frames a second."""

    def film(_: int) -> list[float]:
        laps = []
        rgbs = endless(frames, time.perf_counter() + seconds)
        overlap = int('overlap' in cameras)
        started = time.perf_counter()
        for found in map_ahead(segmenter.find, rgbs, overlap):
            segmenter.finish(found)
            now = time.perf_counter()
            laps.append(1000 * (now - started))
            started = now
        return laps

    for rgb in frames[:WARM_UP]:
        segmenter.segment(rgb)
    count = CAMERAS[cameras]
    if 'batch' in cameras:
        segmenter.find_all(frames[:count], [None] * count)  # memory of that size is got once
        begin = time.perf_counter()
        laps = film_together(segmenter, frames[:count], begin + seconds)
        return laps, len(laps) / (time.perf_counter() - begin)
    begin = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        laps = [lap for of in pool.map(film, range(count)) for lap in of]
    return laps, len(laps) / (time.perf_counter() - begin)


def film_together(segmenter: Segmenter, rgbs: Frames, end: float) -> list[float]:
    """Return the milliseconds from the beginning of a batch to each frame's labels."""
    laps: list[float] = []
    while not laps or time.perf_counter() < end:
        started = time.perf_counter()
        for found in segmenter.find_all(rgbs, [None] * len(rgbs)):
            segmenter.finish(found)
            laps.append(1000 * (time.perf_counter() - started))
    return laps


def endless(frames: Frames, end: float) -> Iterator[NDArray[np.uint8]]:
    """Yield frames over and over, at least one, until a time by time.perf_counter."""
    for rgb in itertools.cycle(frames):
        yield rgb
        if time.perf_counter() >= end:
            return


def busy_ms(segmenter: Segmenter, frames: Frames) -> float | None:
    """Return the milliseconds of a frame in which the GPU runs something; None without a GPU."""
    if segmenter.encoder.device.type != 'cuda':
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for rgb in frames[:PROFILED]:
            segmenter.segment(rgb)
        wait_for(segmenter.encoder.device)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(spans) / 1000 / PROFILED  # of microseconds


def memory_mib(device: torch.device) -> float:
    """Return the GPU's memory in use, by whatever library; without a GPU that of this process."""
    if device.type != 'cuda':
        return process_memory_mib()
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / (1 << 20)


class Bench:
    """Goes through everything until the time is up.

    Attributes:
        rows: measured so far.
        left_out: a sentence for each thing that could not be run.
    """

    def __init__(self, device: torch.device, scale: Scale, end: float) -> None:
        self.rows: list[Row] = []
        self.left_out: list[str] = []
        self._device, self._scale, self._end = device, scale, end
        self._until = end  # for one encoder in one precision and runtime
        self._works: dict[tuple[object, ...], Work] = {}
        self.operations_per_s, self.bytes_per_s = measure_device(device, scale.side)

    def run(self, folder: Path) -> None:
        """Measure everything; checkpoints of random weights go to the folder."""
        cases = [
            (encoder, precision, runtime)
            for encoder, precision, runtime in itertools.product(ENCODERS, DTYPES, RUNTIMES)
            if precision == 'fp32' or (encoder, runtime) != ONE_PRECISION
        ]
        configs: dict[str, SegmenterConfig | str] = {}  # or why there is none
        for index, (encoder, precision, runtime) in enumerate(cases):
            left_s = max(0.0, self._end - time.monotonic())
            self._until = time.monotonic() + left_s / (len(cases) - index)
            if encoder not in configs:
                configs[encoder] = self._configure_or_say(encoder, folder)
            config = configs[encoder]
            if isinstance(config, str):
                self._leave_out(config)
                continue
            if not left_s:
                self._leave_out(f'{encoder}, {precision}, {runtime}: time is up')
                continue
            try:
                self._measure_encoder(config, precision, runtime)
            except (EncoderUnavailable, RuntimeError, ImportError) as error:
                reason = str(error).splitlines()[0]
                self._leave_out(f'{encoder}, {precision}, {runtime}: {reason}')
            free_memory()

    def _configure_or_say(self, encoder: str, folder: Path) -> SegmenterConfig | str:
        try:
            return self._configure(encoder, folder)
        except ImportError as error:
            return f'{encoder}: the package {error.name} is not installed'

    def _configure(self, encoder: str, folder: Path) -> SegmenterConfig:
        config = load_config(shipped_path(f'config/{PRESETS[encoder]}.yaml'))
        classifier, clip = self._scale.models
        if encoder == 'imagenet':
            return replace(config, imagenet=replace(config.imagenet, model=classifier))
        if encoder == 'open_clip':
            random = write_random_clip(folder, clip)
            own = replace(config.open_clip, model=random.model, pretrained=random.pretrained)
            return replace(config, open_clip=replace(own, templates='photo'))
        return replace(config, simseg=write_random_simseg(folder, self._scale.layers))

    def _measure_encoder(self, config: SegmenterConfig, precision: str, runtime: str) -> None:
        device = str(self._device)
        used = replace(config.encoder, device=device, precision=precision, runtime=runtime)
        segmenter = Segmenter(replace(config, encoder=used))
        names = class_names()
        before = len(self.rows)
        for count, size in itertools.product(self._scale.classes, self._scale.sizes):
            segmenter.set_classes(names[:count])
            frames = make_frames(*size)
            for refiner, settings in REFINERS.items():
                if len(self.rows) > before and time.monotonic() > self._until:
                    case = f'{config.encoder.name}, {precision}, {runtime}'
                    self._leave_out(
                        f'{case}: from {count} classes, {size[0]}x{size[1]}, {refiner} on, '
                        'for lack of time'
                    )
                    return
                if settings.get('backend') == 'pydensecrf' and not crf_available():
                    self._leave_out(f'{refiner}: pip install pydensecrf2')
                    continue
                refine = replace(segmenter.config.refine, **settings)
                segmenter.reconfigure(replace(segmenter.config, refine=refine))
                key = (segmenter.config.encoder.name, precision, refiner, size, count)
                if runtime == 'torch':
                    self._works[key] = count_work(partial(segmenter.segment, frames[0]))
                self._measure_refiner(segmenter, frames, (*key[:2], runtime, *key[2:]))

    def _measure_refiner(self, segmenter: Segmenter, frames: Frames, key: tuple[Any, ...]) -> None:
        encoder, precision, runtime, refiner, size, count = key
        busy = work = None
        for cameras in CAMERAS:
            if 'batch' in cameras and segmenter.encoder.images_at_once == 1:
                continue
            laps, per_s = run_cameras(segmenter, frames, cameras, self._scale.seconds)
            if busy is None:
                busy = busy_ms(segmenter, frames)
            work = self._works.get((encoder, precision, refiner, size, count))
            self.rows.append(
                Row(
                    *(encoder, precision, runtime, refiner, f'{size[0]}x{size[1]}', count, cameras),
                    statistics.median(laps),
                    float(np.percentile(laps, 95)),
                    per_s,
                    None if busy is None else 100 * max(0.0, 1 - busy * per_s / 1000),
                    work and work.floor_ms(self.operations_per_s, self.bytes_per_s),
                    memory_mib(self._device),
                )
            )

    def _leave_out(self, sentence: str) -> None:
        if sentence not in self.left_out:
            self.left_out.append(sentence)


def class_names() -> list[str]:
    """Return the 80 names of COCO."""
    lines = shipped_path('config/classes/coco_object.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def describe(device: torch.device) -> str:
    """Name the card and what runs on it."""
    card = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    return f'{card}, {device}, {os.cpu_count()} CPUs, torch {torch.__version__}'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='auto', help='cuda, cuda:N or cpu')
    parser.add_argument('--minutes', type=float, default=7.0, help='when to stop measuring')
    parser.add_argument('--small', action='store_true', help='tiny images and models, to try it')
    parser.add_argument('--json', type=Path, help='file for the rows')
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    device = find_device(arguments.device)
    with tempfile.TemporaryDirectory(prefix='llmseg_gpu_') as name:
        os.environ['LLMSEG_CACHE'] = name  # no embedding of random weights is kept
        bench = Bench(device, SMALL if arguments.small else FULL, end)
        bench.run(Path(name))
    print_bench(bench, describe(device))
    if arguments.json:
        rates = {'operations_per_s': bench.operations_per_s, 'bytes_per_s': bench.bytes_per_s}
        rows = [asdict(row) for row in bench.rows]
        write_json(arguments.json, {'device': describe(device), **rates, 'rows': rows})


def print_bench(bench: Bench, device: str) -> None:
    """Print what was measured and what was not."""
    peaks = ', '.join(f'{n} {v / 1e12:.2f} TFLOP/s' for n, v in bench.operations_per_s.items())
    print(f'{device}; measured: {peaks}, {bench.bytes_per_s / 1e9:.0f} GB/s')
    rows = [[str(short(value)) for value in asdict(row).values()] for row in bench.rows]
    for cells in (COLUMNS, ['---'] * len(COLUMNS), *rows):
        print(f'| {" | ".join(cells)} |')
    for sentence in bench.left_out:
        print(f'left out: {sentence}', file=sys.stderr)


def short(value: object) -> object:
    """Round a number to what is worth reading."""
    if isinstance(value, float):
        return f'{value:.1f}' if value < 100 else f'{value:.0f}'
    return '-' if value is None else value


if __name__ == '__main__':
    main()
