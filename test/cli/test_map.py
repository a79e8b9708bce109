"""`llmseg map`, on the ray-cast room with the real model."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from llmseg_ros.mapping.ply import write_ply
from llmseg_ros.mapping.voxels import VoxelMap

from ..helpers.commands import llmseg
from ..helpers.rgbd_bags import changed, room_messages, write_messages
from ..helpers.room import circle, write_room

CLASSES = 'wall, table, chair'
FILES = ['classes.json', 'map.ply', 'report.html', 'report.json', 'top.png']
FILES += ['view_left.png', 'view_right.png']


@pytest.fixture(scope='module')
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_room(tmp_path_factory.mktemp('room') / 'room', circle(7))


@pytest.fixture(scope='module')
def mapped(room: Path, fast_config: Path) -> Path:
    out = room.parent / 'out'
    options = ('--classes', CLASSES, '--config', fast_config, '--voxel', 0.1)
    assert llmseg('map', room, '--out', out, *options, '--json', out / 'numbers.json') == 0
    (out / 'numbers.json').unlink()
    return out


def run_map(source: Path, out: Path, config: Path, *options: object) -> int:
    return llmseg('map', source, '--classes', CLASSES, '--out', out, '--config', config, *options)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8'))


def test_everything_is_there_and_fits(mapped: Path) -> None:
    assert sorted(path.name for path in mapped.iterdir()) == FILES
    vertices = PlyData.read(mapped / 'map.ply')['vertex']
    report, classes = read_json(mapped / 'report.json'), read_json(mapped / 'classes.json')
    assert [of['name'] for of in classes['classes']] == ['background', 'wall', 'table', 'chair']
    counts = np.bincount(vertices['label'], minlength=4).tolist()
    assert [of['voxels'] for of in classes['classes']] == counts
    assert report['map']['voxels'] == len(vertices['x']) > 500
    assert report['frames'] == report['map']['views'] == 7
    assert (report['complete'], report['left_out']) == (True, '')
    assert report['frame'] == classes['frame'] == 'of the trajectory'
    assert {'points', 'map'} <= report['timing_ms'].keys()
    # The room's walls, and nothing beyond them.
    low, high = np.array(report['map']['corners_m'])
    assert (low >= (-3.1, -4.1, -0.1)).all()
    assert (high <= (3.1, 4.1, 2.6)).all()
    assert vertices['views'].max() == 7
    for name in ('top', 'view_left', 'view_right'):
        pixels = np.array(Image.open(mapped / f'{name}.png'))[:960]
        assert 0.05 < (pixels != pixels[0, 0]).any(axis=2).mean() < 0.95


def test_views_agree_better_in_the_map(mapped: Path) -> None:
    report = read_json(mapped / 'report.json')
    for apart, pairs in (('1', 6), ('5', 2)):
        before = report['view_agreement'][apart]
        after = report['view_agreement_in_map'][apart]
        assert before['pairs'] == after['pairs'] == pairs
        assert before['depth_difference_mm'] < 10
        assert after['agreement'] >= before['agreement']


def test_a_bag_of_the_same_images_makes_the_same_map(
    room: Path, mapped: Path, fast_config: Path, tmp_path: Path
) -> None:
    arguments = ['bag', 'from-images', room / 'color', '--depth', room / 'depth']
    arguments += ['--intrinsics', room / 'intrinsics.json', '--rate', 30]
    arguments += ['--trajectory', room / 'trajectory.log']
    for name, options in (('raw', []), ('compressed', ['--compressed'])):
        assert llmseg(*arguments, *options, '--out', tmp_path / name) == 0
        out = tmp_path / f'{name}_out'
        assert run_map(tmp_path / name, out, fast_config, '--voxel', 0.1) == 0
        assert read_json(out / 'report.json')['frame'] == 'map'
        one, other = (PlyData.read(f / 'map.ply')['vertex'].data for f in (mapped, out))
        assert len(one) == len(other)
        # Poses went through quaternions and back: a point on an edge may fall to the other side.
        same = [(one[name] == other[name]).mean() for name in ('x', 'label', 'views')]
        assert min(same) > 0.99


def test_a_bag_with_gaps(fast_config: Path, tmp_path: Path, capsys: Any) -> None:
    messages = changed(room_messages(8), '/camera/depth', lambda n, m: None if n == 2 else m)
    messages = changed(messages, '/tf', lambda n, m: None if n > 5 else m)
    bag = write_messages(tmp_path / 'bag', messages)
    assert run_map(bag, tmp_path / 'out', fast_config) == 0
    assert 'left out: 1 frames without depth, 2 frames without pose' in capsys.readouterr().out
    report = read_json(tmp_path / 'out' / 'report.json')
    assert report['frames'] == 5
    assert report['image_topic'] == '/camera/image'


def test_the_limit(room: Path, fast_config: Path, tmp_path: Path) -> None:
    options = ('--voxel', 0.05, '--limit', 1000, '--farthest', 3)
    assert run_map(room, tmp_path / 'out', fast_config, *options) == 0
    report = read_json(tmp_path / 'out' / 'report.json')
    assert report['map']['voxels'] <= 1000
    assert report['map']['forgotten_voxels'] > 0


@pytest.mark.parametrize(
    ('options', 'code', 'message'),
    [
        (['--image', '/camera'], 2, 'are for a bag'),
        (['--farthest', '0.02'], 1, 'no depth is known within --farthest: the map is empty'),
        (['--voxel', '0'], 2, 'voxel'),
    ],
)
def test_wrong_usage(
    room: Path,
    fast_config: Path,
    tmp_path: Path,
    capsys: Any,
    options: list[str],
    code: int,
    message: str,
) -> None:
    assert run_map(room, tmp_path / 'out', fast_config, *options) == code
    assert message in ' '.join(capsys.readouterr().err.replace('│', ' ').split())
    assert not list(tmp_path.rglob('*.*'))


def test_half_a_folder(room: Path, fast_config: Path, tmp_path: Path, capsys: Any) -> None:
    half = tmp_path / 'half'
    (half / 'color').mkdir(parents=True)
    assert run_map(half, tmp_path / 'out', fast_config) == 1
    assert 'half has no folder depth' in capsys.readouterr().err
    assert run_map(tmp_path / 'none', tmp_path / 'out', fast_config) == 1
    assert 'none does not exist' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_no_frame_can_be_used(fast_config: Path, tmp_path: Path, capsys: Any) -> None:
    bag = write_messages(tmp_path / 'bag', room_messages(3, depth_lag=50_000_000))
    assert run_map(bag, tmp_path / 'out', fast_config) == 1
    assert 'no frame of bag can be used: 3 frames without depth' in capsys.readouterr().err
    assert not list((tmp_path / 'out').iterdir())


def test_bags_are_made_of_whole_folders_alone(room: Path, tmp_path: Path, capsys: Any) -> None:
    made = ['bag', 'from-images', room / 'color', '--out', tmp_path / 'bag']
    assert llmseg(*made, '--depth', room / 'depth') == 2
    assert 'go together' in ' '.join(capsys.readouterr().err.split())
    rest = ['--intrinsics', room / 'intrinsics.json', '--trajectory', room / 'trajectory.log']
    assert llmseg(*made, '--depth', room / 'none', *rest) == 1
    assert 'none is no folder' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_a_whole_map(
    room: Path, fast_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It comes amid the fourth frame, which is in the map as a whole or not at all."""
    add = VoxelMap.add

    def add_and_end(voxels: VoxelMap, *view: Any) -> None:
        if voxels.views == 3:
            signal.raise_signal(signal.SIGINT)
        add(voxels, *view)

    monkeypatch.setattr(VoxelMap, 'add', add_and_end)
    out = tmp_path / 'out'
    assert run_map(room, out, fast_config) == 130
    assert sorted(path.name for path in out.iterdir()) == FILES
    report = read_json(out / 'report.json')
    assert (report['complete'], report['frames'], report['map']['views']) == (False, 4, 4)
    assert 'interrupted: the map has the first 4 frames' in capsys.readouterr().err
    assert len(PlyData.read(out / 'map.ply')['vertex']['x']) == report['map']['voxels']
    assert 'Interrupted before the last frame' in (out / 'report.html').read_text()


def test_ctrl_c_twice_ends_without_a_map(
    room: Path, fast_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VoxelMap, 'add', end)
    assert run_map(room, tmp_path / 'out', fast_config) == 130
    assert not list((tmp_path / 'out').iterdir())


def test_ctrl_c_does_not_cut_what_is_written(
    room: Path, fast_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_end(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write_ply(*arguments)

    monkeypatch.setattr('llmseg_ros.mapping.ply.write_ply', write_and_end)
    out = tmp_path / 'out'
    assert run_map(room, out, fast_config) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES


@pytest.mark.parametrize('folder', ['empty', 'room/color'])
def test_what_is_neither_bag_nor_folder_of_frames(
    room: Path, fast_config: Path, tmp_path: Path, capsys: Any, folder: str
) -> None:
    (room.parent / 'empty').mkdir(exist_ok=True)
    assert run_map(room.parent / folder, tmp_path / 'out', fast_config) == 1
    assert 'neither a bag nor a folder of RGB-D frames' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
