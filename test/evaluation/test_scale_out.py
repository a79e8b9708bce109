"""`llmseg evaluate --ray` and `llmseg replay --ray` on a real local cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmseg_ros.evaluation import scale_out
from llmseg_ros.evaluation.datasets import DatasetError, folder_dataset
from llmseg_ros.evaluation.scale_out import (
    ImagesJob,
    Job,
    Loaded,
    Pool,
    ScaleOutError,
    Shard,
    Worker,
    connected,
)
from llmseg_ros.evaluation.versions import versions

from ..helpers.bags import write_bags
from ..helpers.commands import evaluate

COPIES = 16  # of the three photographs: six shards
BAG_FRAMES = 3  # that write_bags writes into each
MARK = 'LLMSEG_TEST_RUN'  # in the environment of all processes of a run

with_ray = pytest.mark.skipif(
    importlib.util.find_spec('ray') is None, reason='ray is not installed'
)


@pytest.fixture(scope='module')
def many(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs many times over."""
    root = tmp_path_factory.mktemp('many')
    for folder in ('images', 'labels'):
        (root / folder).mkdir()
        for path in sorted((photographs / folder).iterdir()):
            for number in range(COPIES):
                (root / folder / f'{path.stem}{number:02d}.png').symlink_to(path)
    (root / 'classes.txt').write_text((photographs / 'classes.txt').read_text())
    return root


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `llmseg`; in the end nothing of it may be left."""
    environ = {**os.environ, MARK: str(tmp_path), 'OMP_NUM_THREADS': '1'}
    processes = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        program = 'from llmseg_ros.cli.main import main; main()'
        command = [sys.executable, '-c', program, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
    until(lambda: not of_this_run(tmp_path), 10)


def of_this_run(mark: Path) -> dict[int, str]:
    """Return the command lines of the processes that were started with a mark, by id."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if f'{MARK}={mark}\0'.encode() in (folder / 'environ').read_bytes():
                found[int(folder.name)] = (folder / 'cmdline').read_text()
        except OSError:
            continue
    return found


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """Wait for a condition; return what it is then."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, 'it did not happen in time'
        time.sleep(0.02)
    return value


@with_ray
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason='needs two CPUs')
def test_a_killed_worker_changes_no_pixel_of_the_sum(
    many: Path, fast_config: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """Two workers go on from what one process has begun; one of them is killed on the way."""
    arguments = ['--root', many, '--config', fast_config, '--refine', 'none']
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers: a sum over several threads is another one
    try:
        assert evaluate(*arguments, '--json', tmp_path / 'alone.json') == 0
        assert evaluate(*arguments, '--limit', 5, '--report', tmp_path) == 0
    finally:
        torch.set_num_threads(threads)
    cluster = ['--ray', 'local', '--ray-workers', 2, '--report', tmp_path, '--resume']
    process = started('evaluate', *arguments, *cluster)

    def busy_worker() -> int | None:
        lines = (tmp_path / 'images.jsonl').read_text().count('\n')
        workers = [pid for pid, name in of_this_run(tmp_path).items() if 'Worker.work' in name]
        return workers[0] if workers and lines > 1 + 5 else None

    os.kill(until(busy_worker, 120), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert 'a worker was lost' in err
    assert out.splitlines()[-1].startswith(f'{many.name}, {3 * COPIES} images')
    assert not of_this_run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / 'images.jsonl').read_text().splitlines()]
    ids = [line['id'] for line in lines[1:]]
    assert len(ids) == len(set(ids)) == 3 * COPIES
    reports = [json.loads((tmp_path / name).read_text()) for name in ('alone.json', 'report.json')]
    for report in reports:
        del report['timing_ms']
    assert reports[0] == reports[1]


@with_ray
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason='needs two CPUs')
def test_a_killed_worker_changes_nothing_about_bags(
    photographs: Path,
    fast_config: Path,
    tmp_path: Path,
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    """Six bags on two workers, one of which is killed over a bag, give what one process gives."""
    write_bags(photographs, tmp_path / 'bags', 6)
    alone, both = tmp_path / 'alone', tmp_path / 'both'
    arguments = ['replay', tmp_path / 'bags', '--classes', 'cat,cup,rocket', '--no-video']
    arguments += ['--config', fast_config, '--labels', '/truth', '--report']
    process = started(*arguments, alone)
    assert process.wait(120) == 0, process.communicate()
    process = started(*arguments, both, '--ray', 'local', '--ray-workers', 2)

    def busy_worker() -> int | None:
        done = len(list(both.glob('*/scores.json')))
        workers = [pid for pid, name in of_this_run(tmp_path).items() if 'Worker.work' in name]
        return workers[0] if workers and done else None

    os.kill(until(busy_worker, 120), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert 'a worker was lost, it starts again with bag bag' in err
    assert not of_this_run(tmp_path)
    first, second = (without_times(folder / 'report.json') for folder in (alone, both))
    assert first == second
    assert first['frames'] == 6 * BAG_FRAMES
    for bag in first['bags']:
        assert (both / bag / 'report.html').is_file()
    assert not list(both.rglob('.*'))


def without_times(path: Path) -> dict[str, Any]:
    """Return a report on a folder of bags without what the clock had a part in."""
    report: dict[str, Any] = json.loads(path.read_text())
    for part in (report, *report['bags'].values()):
        del part['timing_ms']
    return report


@with_ray
def test_ctrl_c_leaves_no_process(
    many: Path, fast_config: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started('evaluate', '--root', many, '--config', fast_config, '--ray', 'local')
    until(lambda: any('Worker.load' in name for name in of_this_run(tmp_path).values()), 120)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    until(lambda: not of_this_run(tmp_path), 5)


@with_ray
def test_failures_of_workers(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong on a worker ends in one sentence."""
    dataset = folder_dataset(many)
    job = ImagesJob(replace(dataset, samples=()), (), {}, dataset.samples[0], 1)

    class EndsOverCups:
        def load(self, job: Job, threads: int) -> Loaded:
            return Loaded('there', 'encoder', versions())

        def work(self, samples: Any) -> list[Any]:
            if any('cup' in sample.id for sample in samples):
                os._exit(1)
            if any('rocket' in sample.id for sample in samples):
                raise DatasetError('rocket.png is not an image')
            return []

    class EndsAtOnce(EndsOverCups):
        def load(self, job: Job, threads: int) -> Loaded:
            os._exit(1)

    class HasAnotherTorch(EndsOverCups):
        def load(self, job: Job, threads: int) -> Loaded:
            return Loaded('there', 'encoder', {**versions(), 'torch': '1.0'})

    def pool(worker: type, job: Job = job) -> Pool:
        monkeypatch.setattr(scale_out, 'Worker', worker)
        return Pool(ray, job, 1, 1, 0)

    cats, cups, rockets = (dataset.samples[i : i + COPIES] for i in range(0, 3 * COPIES, COPIES))
    with connected('local') as ray:
        scoring = pool(EndsOverCups)
        assert scoring.encoder == 'encoder'
        assert list(scoring.run([Shard(cats, 'cats')])) == []
        with pytest.raises(ScaleOutError, match='3 workers ended over cups, look'):
            list(scoring.run([Shard(cats, 'cats'), Shard(cups, 'cups')]))
        with pytest.raises(DatasetError, match=r'rocket\.png is not an image'):
            list(pool(EndsOverCups).run([Shard(rockets, 'rockets')]))
        with pytest.raises(ScaleOutError, match='3 workers ended while they loaded the model'):
            pool(EndsAtOnce)
        with pytest.raises(ScaleOutError, match=r'torch is 1\.0 on node there and .* here'):
            pool(HasAnotherTorch)
        elsewhere = replace(job.first, image=Path('/elsewhere/cat.png'))
        with pytest.raises(DatasetError, match=r'/elsewhere/cat\.png is not on node .* every node'):
            pool(Worker, replace(job, first=elsewhere))


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        pytest.param('127.0.0.1:9', 'no Ray cluster answers at 127.0.0.1:9', marks=with_ray),
        pytest.param(
            'auto', "--ray takes local or the HOST:PORT of a cluster, not 'auto'", marks=with_ray
        ),
    ],
)
def test_no_cluster(
    many: Path,
    fast_config: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
    message: str,
) -> None:
    assert evaluate('--root', many, '--config', fast_config, '--ray', address) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count('\n') == 1


def test_ray_is_not_installed(
    many: Path,
    fast_config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert evaluate('--root', many, '--config', fast_config, '--ray', 'local') == 1
    assert "Ray is not installed: pip install 'llmseg_ros[ray]'" in capsys.readouterr().err
