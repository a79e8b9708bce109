"""`llmseg bench`: its numbers are of the stages it names."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmseg_ros.cli.bench import WARM_UP_FRAMES, bench_frames, class_lists, spread

has_ros = bool(importlib.util.find_spec('rclpy') and importlib.util.find_spec('llmseg_ros.msg'))


def test_class_lists_are_5_and_150() -> None:
    assert [len(set(names)) for names in class_lists()] == [5, 150]


@pytest.mark.parametrize('count', [1, 30, 33])
def test_bench_frames(count: int) -> None:
    frames = bench_frames(count)
    assert len(frames) == count + WARM_UP_FRAMES
    assert {frame.shape for frame in frames} == {(480, 640, 3)}


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {'median': 2.0, 'p95': 2.9}


def test_bench(llmseg: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / 'small.yaml'
    config.write_text('imagenet: {model: lite0, short_sides: [64]}')
    before = dict(os.environ)
    outcome = llmseg('bench', '--config', config, '--frames', 2, '--json', tmp_path / 'bench.json')
    assert outcome.code == 0, outcome.err
    assert os.environ == before  # the graph it measures in is left
    report = json.loads((tmp_path / 'bench.json').read_text(encoding='utf-8'))
    assert [run['classes'] for run in report['runs']] == [5, 150]
    assert min(report['total_ratio'], report['outside_refine_ratio']) > 0
    expected = {'encode', 'fuse', 'gate', 'refine'} | ({'convert', 'publish'} if has_ros else set())
    for run in report['runs']:
        assert set(run['stages_ms']) == expected
        stages = sum(times['median'] for times in run['stages_ms'].values())
        assert 0 < stages < 2 * run['total_ms']['p95']
        assert 100 < run['memory_mib']['first'] <= 1 + report['peak_rss_mb']
        assert 100 < run['memory_mib']['last'] <= 1 + report['peak_rss_mb']
    assert all(stage in outcome.out for stage in expected)
