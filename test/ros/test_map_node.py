"""How semantic_map begins and ends where something is in its way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.mapping.voxels import VoxelMap
from llmseg_ros.ros.ending import Interrupt
from llmseg_ros.ros.semantic_map import MapNode

from ..helpers.disk import room_for
from ..helpers.room import POSES
from .test_semantic_map import room_cloud


def test_ctrl_c_does_not_cut_a_view(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes where half of the view is in the tables of the map."""
    interrupt = Interrupt()
    node = MapNode(interrupt, context=context, namespace='/interrupted')
    before = signal.signal(signal.SIGINT, interrupt)
    add_runs = VoxelMap._add_runs

    def add_and_end(voxels: VoxelMap, *runs: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        add_runs(voxels, *runs)

    monkeypatch.setattr(VoxelMap, '_add_runs', add_and_end)
    try:
        with pytest.raises(KeyboardInterrupt):
            node._add(room_cloud(1.0, POSES[0]), POSES[0])
        assert len(node._voxels) > 1000
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
        node.destroy_node()


def test_a_file_that_can_not_be_written_is_told_at_once(tmp_path: Path) -> None:
    """Not after an hour of mapping."""
    command = [sys.executable, '-m', 'llmseg_ros.ros.semantic_map', '--ros-args', '-p']
    for file, reason in (
        (tmp_path, 'which is a folder: name a file in it'),
        ('/dev/null/map.ply', '/dev/null can not be written: File exists'),
    ):
        ended = subprocess.run(
            [*command, f'map.file:={file}'], cwd=tmp_path, capture_output=True, text=True
        )
        assert ended.returncode == 1
        assert reason in ended.stderr
        assert 'Traceback' not in ended.stderr


def test_a_full_disk_at_the_end_is_told(context: Any, tmp_path: Path) -> None:
    node = MapNode(context=context, namespace='/full', cli_args=file_option(tmp_path))
    node._add(room_cloud(1.0, POSES[0]), POSES[0])
    with room_for(4096):
        assert not node.write()
    assert list(tmp_path.iterdir()) == []
    assert node.write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['map.ply', 'map_classes.json']
    node.destroy_node()


def file_option(folder: Path) -> list[str]:
    return ['--ros-args', '-p', f'map.file:={folder}/map.ply']
