"""`llmseg bench`: time by stage and memory, for short and long class lists."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmseg_ros.cli.common import (
    ConfigOption,
    NumbersOption,
    note,
    print_table,
    resolve_config,
    track,
    waiting,
)
from llmseg_ros.files import shipped_path, write_json
from llmseg_ros.system.memory import process_memory_mib

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmseg_ros.ros.bench_stages import MessageStages
    from llmseg_ros.segmenter import Segmenter

STAGES = ('convert', 'encode', 'gate', 'fuse', 'refine', 'publish')
MESSAGE_STAGES = ('convert', 'publish')
SHORT_LIST = ('cat', 'cup', 'person', 'rocket', 'dog')
LONG_LIST = 'config/classes/ade20k.txt'
LONG_LENGTH = 150
QUALIFIERS = ('small', 'large', 'old', 'new', 'red', 'blue', 'wooden', 'metal', 'broken', 'toy')
WARM_UP_FRAMES = 3
SETTLED_SHARE = 10  # a tenth of the frames, until allocators and caches are full


def bench(
    config: ConfigOption = None,
    frames: Annotated[int, typer.Option(min=1, help='640x480 frames per class list.')] = 40,
    json: NumbersOption = None,
) -> None:
    """Measure time by stage and memory on 640x480 frames, for 5 and for 150 classes.

    Every class has ten subclasses. convert and publish are the node's own functions over DDS;
    without ROS 2 they are left out.

    \b
    Example:
      llmseg bench --frames 40 --json bench.json
    """
    path = resolve_config(config)
    with ExitStack() as stack:
        messages = enter_message_stages(stack)
        with waiting('loading the model'):
            segmenter = load_segmenter(path)
        images = bench_frames(frames)
        runs = [
            {'classes': len(names), **measure(segmenter, names, images, messages)}
            for names in class_lists()
        ]
    report = {
        'config': str(path),
        'encoder': segmenter.encoder.name,
        'machine': machine(),
        'frames': frames,
        'image_size': [640, 480],
        'runs': runs,
        'total_ratio': ratio(runs, 'total_ms'),
        'outside_refine_ratio': ratio(runs, 'outside_refine_ms'),
        'peak_rss_mb': peak_rss_mb(),
    }
    print_report(report)
    if json:
        write_json(json, report)


def load_segmenter(config: Path) -> Segmenter:
    """Load the model; every class that is measured gets its subclasses."""
    from llmseg_ros.config_files import load_config
    from llmseg_ros.segmenter import Segmenter
    from llmseg_ros.subclasses.resolver import Resolver, Subclasses

    known = {
        name: Subclasses(tuple(f'{word} {name}' for word in QUALIFIERS), 'pack')
        for names in class_lists()
        for name in names
    }
    settings = load_config(config)
    return Segmenter(settings, resolver=Resolver(settings.subclasses, known))


def ratio(runs: Sequence[dict[str, Any]], name: str) -> float:
    """Return by how much a median of the last run is above that of the first."""
    return round(float(runs[-1][name]['median'] / runs[0][name]['median']), 3)


def enter_message_stages(stack: ExitStack) -> MessageStages | None:
    """Set up the node's conversions and publishers, None where ROS 2 is missing."""
    try:
        from llmseg_ros.ros.isolation import isolated_graph

        graph = stack.enter_context(isolated_graph())
        stack.callback(restore_environment, dict(os.environ))
        os.environ.update(graph)
        from llmseg_ros.ros.bench_stages import message_stages
    except ImportError as error:
        note(f'convert and publish are not measured: {error}')
        return None
    return stack.enter_context(message_stages())


def restore_environment(variables: dict[str, str]) -> None:
    """Make the environment of this process what it was."""
    os.environ.clear()
    os.environ.update(variables)


def bench_frames(count: int) -> list[NDArray[np.uint8]]:
    """Return 640x480 frames panned over the demo's photographs, plus those to warm up on."""
    from llmseg_ros.demo.scenes import SCENES, camera_frames

    per_scene = -(-(count + WARM_UP_FRAMES) // len(SCENES))
    return [frame for _, frame in camera_frames(per_scene)][: count + WARM_UP_FRAMES]


def class_lists() -> tuple[list[str], list[str]]:
    """Return 5 class names, and 150 that begin with these."""
    more = shipped_path(LONG_LIST).read_text(encoding='utf-8').splitlines()
    return list(SHORT_LIST), list(dict.fromkeys((*SHORT_LIST, *more)))[:LONG_LENGTH]


def measure(
    segmenter: Segmenter,
    names: list[str],
    images: list[NDArray[np.uint8]],
    messages: MessageStages | None,
) -> dict[str, Any]:
    """Return the median and p95 of every stage and of the whole, in milliseconds, and memory."""
    started = time.perf_counter()
    segmenter.set_classes(names)
    describing_ms = 1000 * (time.perf_counter() - started)
    laps, memory_mib = [], []
    for image in track(images, f'{len(names)} classes'):
        laps.append(time_frame(segmenter, image, messages))
        memory_mib.append(process_memory_mib())
    laps, memory_mib = laps[WARM_UP_FRAMES:], memory_mib[len(images) // SETTLED_SHARE :]
    stages = [stage for stage in STAGES if messages or stage not in MESSAGE_STAGES]
    return {
        'set_classes_ms': round(describing_ms, 1),
        'stages_ms': {stage: spread([lap[stage] for lap in laps]) for stage in stages},
        'total_ms': spread([lap['total'] for lap in laps]),
        'outside_refine_ms': spread([lap['total'] - lap['refine'] for lap in laps]),
        'memory_mib': {'first': round(memory_mib[0], 1), 'last': round(memory_mib[-1], 1)},
    }


def time_frame(
    segmenter: Segmenter, image: NDArray[np.uint8], messages: MessageStages | None
) -> dict[str, float]:
    """Take one frame the way the node takes it; return milliseconds by stage."""
    camera = messages.camera_message(image) if messages else None
    begin = time.perf_counter()
    rgb = messages.convert(camera) if messages and camera else image
    converted = time.perf_counter()
    result = segmenter.segment(rgb)
    segmented = time.perf_counter()
    if messages and camera:
        messages.publish(rgb, result, camera.header)
    end = time.perf_counter()
    return {
        **result.timings_ms,
        'convert': 1000 * (converted - begin),
        'publish': 1000 * (end - segmented),
        'total': 1000 * (end - begin),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median and 95th percentile."""
    import numpy as np

    median, p95 = np.percentile(values, [50, 95])
    return {'median': round(float(median), 2), 'p95': round(float(p95), 2)}


def machine() -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    import torch

    return {
        'processor': processor_name(),
        'cores': os.cpu_count(),
        'torch': torch.__version__,
        'torch_threads': torch.get_num_threads(),
        'python': platform.python_version(),
    }


def processor_name() -> str:
    """Return the processor's model as Linux names it, else as Python does."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    named = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return named[0] if named else platform.processor() or platform.machine()


def peak_rss_mb() -> int:
    """Return the peak resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == 'darwin' else 1024))


def in_words(times: dict[str, float]) -> str:
    return f'{times["median"]:.1f} ({times["p95"]:.1f})'


def print_report(report: dict[str, Any]) -> None:
    """Print median and p95 by stage, a column per class list."""
    runs = report['runs']
    columns = ['ms, median (p95)', *(f'{run["classes"]} classes' for run in runs)]
    rows = [
        [stage, *(in_words(run['stages_ms'][stage]) for run in runs)]
        for stage in runs[0]['stages_ms']
    ]
    rows.append(['total', *(in_words(run['total_ms']) for run in runs)])
    print_table(columns, rows)
    where = report['machine']
    print(
        f'{report["encoder"]}, {report["frames"]} frames of 640x480; {where["processor"]}, '
        f'{where["cores"]} cores, torch {where["torch"]}; '
        f'{runs[-1]["classes"]} against {runs[0]["classes"]} classes: '
        f'{report["total_ratio"]:.2f} times, without refining '
        f'{report["outside_refine_ratio"]:.2f}; peak memory {report["peak_rss_mb"]} MB'
    )
    for run in runs:
        first, last = run['memory_mib'].values()
        print(
            f'{run["classes"]} classes: memory {first:.0f} MiB after a tenth of the frames, '
            f'{last:.0f} at the end'
        )
