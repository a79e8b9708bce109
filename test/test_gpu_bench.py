"""`bench/gpu.py` on the CPU, at tiny sizes: it can't be run on a GPU here."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

BENCH = Path(__file__).parents[1] / 'bench'
CPU = torch.device('cpu')


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv('LLMSEG_CACHE', str(tmp_path / 'cache'))
    import gpu

    monkeypatch.setattr(gpu, 'DTYPES', {'fp32': torch.float32})
    monkeypatch.setattr(gpu, 'RUNTIMES', ('torch',))
    monkeypatch.setattr(gpu, 'WARM_UP', 1)
    return gpu


def test_every_row_has_its_time_its_rate_and_a_floor_below(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, 'ENCODERS', ('open_clip',))
    scale = gpu.SMALL._replace(classes=(2,))
    bench = gpu.Bench(CPU, scale, time.monotonic() + 240)
    bench.run(tmp_path)
    assert bench.left_out == []
    assert {(row.refiner, row.cameras) for row in bench.rows} == {
        (refiner, cameras) for refiner in gpu.REFINERS for cameras in gpu.CAMERAS
    }
    for row in bench.rows:
        assert (row.encoder, row.precision, row.size) == ('open_clip', 'fp32', '64x48')
        assert 0 < row.floor_ms < row.ms <= row.p95_ms
        assert row.frames_per_s > 0
        assert row.waits_percent is None  # there is no GPU
        assert row.memory_mib > 100


def test_what_can_not_be_run_is_left_out_with_a_sentence(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'timm'", name='timm')

    monkeypatch.setattr(gpu, 'write_random_simseg', missing)
    monkeypatch.setattr(gpu, 'ENCODERS', ('simseg', 'open_clip'))
    bench = gpu.Bench(CPU, gpu.SMALL, time.monotonic() - 1)
    bench.run(tmp_path)
    assert bench.rows == []
    assert bench.left_out == [
        'simseg: the package timm is not installed',
        'open_clip, fp32, torch: time is up',
    ]


def test_operations_are_counted_by_precision_and_bytes_once(gpu: Any) -> None:
    from gpu_floor import count_work

    left, right = torch.ones(20, 30), torch.ones(30, 40)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            first = torch.nn.functional.linear(left, right.T)  # composite
            return (left @ right + first).half() @ torch.ones(40, 5, dtype=torch.float16)

    work = count_work(run)
    assert work.operations == {'fp32': 2 * 2 * 20 * 30 * 40, 'fp16': 2 * 20 * 40 * 5}
    assert work.moved == 4 * (20 * 30 + 30 * 40) + 2 * 20 * 5
    rates = {'fp32': 96e3, 'fp16': 8e3}
    assert work.floor_ms(rates, 1e12) == pytest.approx(2000)
    assert work.floor_ms({'fp32': 1e12, 'fp16': 1e12}, work.moved) == pytest.approx(1000)


def test_spans_that_overlap_are_covered_once(gpu: Any) -> None:
    assert gpu.covered([(5, 7), (0, 2), (1, 3), (6, 6.5)]) == 5
    assert gpu.covered([]) == 0
    assert not math.isinf(gpu.covered([(0, 1)]))
