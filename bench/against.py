"""The working tree against an older commit: time by stage on the same frames, in turns.

Each tree runs in a process of its own, on this environment's packages, with a text cache of its
own. A frame goes through one, then through the other, the order changing from frame to frame, so
that both see the same machine. Then the frames go through each as a stream, some at a time, in
turns too: there the stages of two frames may overlap, as in the node, `replay` and `evaluate`.
Quote its ratios; the milliseconds are this machine's.

    python bench/against.py 4878c9a --frames 40
    python bench/against.py HEAD~3 --images photos/ --classes "cat, sofa" --config config/paper.yaml
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
TIMED = ('encode', 'gate', 'fuse', 'refine', 'total')
WARM_UP = 5
STREAM = 16  # frames of a stream, begun without one before and ended without one after


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    if options.worker:
        work(*options.worker)
        return
    frames = read_frames(options.images, options.frames)
    names = [name.strip() for name in options.classes.split(',')]
    with ExitStack() as stack:
        old_tree = stack.enter_context(checked_out(options.rev))
        trees = {'old': old_tree, 'new': ROOT}
        workers = {
            name: stack.enter_context(started(tree, name, options.config, names))
            for name, tree in trees.items()
        }
        laps, equal = measure(workers, frames)
        stream_ms = measure_streams(workers, frames)
        memory_mib = {name: worker.recv_after('memory') for name, worker in workers.items()}
    print_comparison(options.rev, laps, stream_ms, equal, memory_mib)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('rev', nargs='?', default='HEAD', help='the older commit')
    parser.add_argument('--frames', type=int, default=40, help='how many are measured')
    parser.add_argument('--images', type=Path, help="a folder of pictures, else the demo's frames")
    parser.add_argument('--classes', default='cat, cup, person, rocket, dog')
    parser.add_argument('--config', default='config/offline.yaml', help="each tree's own file")
    parser.add_argument('--worker', nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def read_frames(folder: Path | None, count: int) -> list[NDArray[np.uint8]]:
    """Return RGB images to measure and WARM_UP before them, those of a folder over and over."""
    from PIL import Image

    from llmseg_ros.demo.scenes import SCENES, camera_frames

    total = count + WARM_UP
    if folder is None:
        return [rgb for _, rgb in camera_frames(-(-total // len(SCENES)))][:total]
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in ('.jpg', '.jpeg', '.png')]
    if not paths:
        raise SystemExit(f'{folder} has no .jpg or .png pictures')
    images = [np.asarray(Image.open(path).convert('RGB')) for path in paths[:total]]
    return [images[index % len(images)] for index in range(total)]


@contextmanager
def checked_out(rev: str) -> Iterator[Path]:
    """Give a work tree of a commit."""
    with tempfile.TemporaryDirectory(prefix='llmseg_against_') as name:
        tree = Path(name) / 'tree'
        git = ['git', '-C', str(ROOT), 'worktree']
        result = subprocess.run(
            [*git, 'add', '--detach', str(tree), rev], capture_output=True, text=True
        )
        if result.returncode:
            raise SystemExit(f'{rev} can not be checked out: {result.stderr.strip()}')
        try:
            yield tree
        finally:
            subprocess.run([*git, 'remove', '--force', str(tree)], capture_output=True)


class Worker:
    """A process that segments with one tree."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def recv_after(self, request: Any) -> Any:
        """Send a request; return the answer."""
        self._connection.send(request)
        return self._connection.recv()


@contextmanager
def started(tree: Path, name: str, config: str, names: Sequence[str]) -> Iterator[Worker]:
    """Start a worker on a tree and wait for its model."""
    ours, its = Pipe()
    with tempfile.TemporaryDirectory(prefix=f'llmseg_{name}_') as folder:
        environment = {
            **os.environ,
            'PYTHONPATH': str(tree),
            'LLMSEG_CACHE': folder,
            'OMP_WAIT_POLICY': 'PASSIVE',
        }
        command = [sys.executable, __file__, '--worker', str(its.fileno()), str(tree), config]
        process = subprocess.Popen(
            [*command, ','.join(names)], env=environment, cwd=folder, pass_fds=[its.fileno()]
        )
        its.close()
        try:
            print(f'{name}: {ours.recv()}', flush=True)
            yield Worker(ours)
        except EOFError:
            raise SystemExit(f'the process of the {name} tree ended, see above') from None
        finally:
            process.terminate()
            process.wait()


def work(descriptor: str, tree: str, config: str, names: str) -> None:
    """Segment what comes over a pipe, with the package of a tree."""
    sys.path.insert(0, tree)
    from llmseg_ros import segmenter as module

    if not Path(module.__file__).is_relative_to(tree):
        raise SystemExit(f'{module.__file__} is not of {tree}')
    with Connection(int(descriptor)) as connection:
        begin = time.perf_counter()
        segmenter = module.Segmenter.from_config(Path(tree) / config, names.split(','))
        connection.send(
            f'{segmenter.encoder.name}, ready after {time.perf_counter() - begin:.1f} s'
        )
        while True:
            try:
                request = connection.recv()
            except EOFError:
                return
            if isinstance(request, str):
                connection.send(resident_mib())
                continue
            begin = time.perf_counter()
            if isinstance(request, list):
                count = sum(1 for _ in segment_stream(segmenter, request))
                connection.send(1000 * (time.perf_counter() - begin) / count)
                continue
            result = segmenter.segment(request)
            total_ms = 1000 * (time.perf_counter() - begin)
            connection.send((result.labels, {**result.timings_ms, 'total': total_ms}))


def segment_stream(segmenter: Any, frames: list[NDArray[np.uint8]]) -> Iterator[Any]:
    """Segment frames in order, stages side by side where the tree can and finds it a gain."""
    if not getattr(segmenter, 'overlaps', False):
        return map(segmenter.segment, frames)
    from llmseg_ros.system.ahead import map_ahead

    return map(segmenter.finish, map_ahead(segmenter.find, frames, 1))


def resident_mib() -> float:
    """Return the resident memory of this process."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(
    workers: dict[str, Worker], frames: Sequence[NDArray[np.uint8]]
) -> tuple[dict[str, list[dict[str, float]]], list[float]]:
    """Return every tree's times by frame, and the share of equal labels by frame."""
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    equal = []
    for index, rgb in enumerate(frames):
        labels = {}
        for name in sorted(workers, reverse=bool(index % 2)):
            labels[name], times = workers[name].recv_after(rgb)
            laps[name].append(times)
        equal.append(float(np.mean(labels['old'] == labels['new'])))
    return {name: values[WARM_UP:] for name, values in laps.items()}, equal[WARM_UP:]


def measure_streams(
    workers: dict[str, Worker], frames: Sequence[NDArray[np.uint8]]
) -> dict[str, list[float]]:
    """Return every tree's milliseconds a frame in streams."""
    stream_ms: dict[str, list[float]] = {name: [] for name in workers}
    for index, first in enumerate(range(0, len(frames), STREAM)):
        for name in sorted(workers, reverse=bool(index % 2)):
            some = list(frames[first : first + STREAM])
            stream_ms[name].append(workers[name].recv_after(some))
    return stream_ms


def print_comparison(
    rev: str,
    laps: dict[str, list[dict[str, float]]],
    stream_ms: dict[str, list[float]],
    equal: Sequence[float],
    memory_mib: dict[str, float],
) -> None:
    """Print medians by stage and how many times faster the working tree is."""
    print(f'{"ms, median":12}{rev[:12]:>14}{"working tree":>14}{"faster":>9}')
    times = {stage: {n: [lap[stage] for lap in of] for n, of in laps.items()} for stage in TIMED}
    for stage, of in (times | {'stream': stream_ms}).items():
        old, new = (float(np.median(of[name])) for name in ('old', 'new'))
        ratio = f'{old / new:.2f}x' if new else '-'
        print(f'{stage:12}{old:14.1f}{new:14.1f}{ratio:>9}')
    print(
        f'{len(equal)} frames; {100 * np.mean(equal):.2f} % of the labels equal, '
        f'{100 * min(equal):.2f} % in the worst frame; '
        f'memory {memory_mib["old"]:.0f} and {memory_mib["new"]:.0f} MiB'
    )


if __name__ == '__main__':
    main()
