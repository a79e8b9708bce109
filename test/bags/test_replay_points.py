"""Replays of bags with depth: the cloud in the new bag, the agreement of views in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmseg_ros.bags.reading import opened_bag
from llmseg_ros.mapping.geometry import depth_to_points

from ..helpers.commands import replay
from ..helpers.rgbd_bags import changed, room_messages, write_messages
from ..helpers.room import CAMERA, circle, shoot

KINDS = {4: '<u2', 6: '<u4', 7: '<f4'}  # of sensor_msgs/PointField


def run(bag: Path, config: Path, folder: Path, *options: object) -> dict[str, Any]:
    arguments = [bag, '--classes', 'wall, table', '--config', config, '--no-video']
    assert replay(*arguments, '--report', folder / 'report', *options) == 0
    summary: dict[str, Any] = json.loads((folder / 'report' / 'report.json').read_text())
    return summary


def read_topics(bag: Path, *topics: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {topic: [] for topic in topics}
    with opened_bag(bag) as reader:
        connections = [c for c in reader.connections if c.topic in topics]
        for message in reader.messages(connections):
            found[message.connection.topic].append(reader.deserialize(message))
    return found


def test_clouds_lie_on_the_labels(fast_config: Path, tmp_path: Path) -> None:
    """One frame has no depth, and no cloud; all have labels."""
    messages = changed(room_messages(), '/camera/depth', lambda n, m: None if n == 2 else m)
    bag = write_messages(tmp_path / 'bag', messages)
    run(bag, fast_config, tmp_path, '--out', tmp_path / 'out')
    found = read_topics(tmp_path / 'out', '/seg/points', '/seg/labels')
    clouds, labels = found['/seg/points'], found['/seg/labels']
    assert len(labels) == 4
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in labels]
    assert [(c.header.stamp.sec, c.header.stamp.nanosec) for c in clouds] == [
        stamps[index] for index in (0, 1, 3)
    ]
    cloud, label = clouds[0], labels[0]
    assert cloud.header == label.header
    assert (cloud.height, cloud.width) == (label.height, label.width) == (120, 160)
    assert (cloud.point_step, cloud.row_step, cloud.is_bigendian) == (24, 24 * 160, False)
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'rgba', 'label', 'confidence']
    of = {
        f.name: np.ndarray((120, 160), KINDS[f.datatype], cloud.data, f.offset, (3840, 24))
        for f in cloud.fields
    }
    shot = shoot(circle(4)[0])
    millimetres = np.rint(1000 * shot.depth).astype(np.float32) / 1000
    points = depth_to_points(millimetres, CAMERA)
    for axis, name in enumerate('xyz'):
        np.testing.assert_allclose(of[name], points[..., axis], atol=1e-6)
    np.testing.assert_array_equal(of['label'], label.data.reshape(120, 160))
    assert (of['rgba'] >> 16 & 255 == shot.rgb[..., 0]).all()
    assert ((of['confidence'] > 0) & (of['confidence'] <= 1)).all()


def test_agreement_stands_in_the_report(
    fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_messages(tmp_path / 'bag', room_messages(7))
    summary = run(bag, fast_config, tmp_path)
    assert [of['pairs'] for of in summary['view_agreement'].values()] == [6, 2]
    assert summary['view_agreement']['1']['places'] > 500
    assert 0 < summary['view_agreement']['1']['depth_difference_mm'] < 20
    assert 'views 1 apart: ' in capsys.readouterr().out
    assert 'Labels of places that two views see' in (tmp_path / 'report/report.html').read_text()


def test_depth_without_poses(fast_config: Path, tmp_path: Path) -> None:
    bag = write_messages(tmp_path / 'bag', room_messages(3, poses=''))
    summary = run(bag, fast_config, tmp_path, '--out', tmp_path / 'out')
    assert 'view_agreement' not in summary
    assert len(read_topics(tmp_path / 'out', '/seg/points')['/seg/points']) == 3


def test_unusable_depth_does_not_cost_the_labels(
    fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless it was asked for."""

    def elsewhere(_: int, message: Any) -> Any:
        message.header.frame_id = 'depth_optical'
        return message

    bag = write_messages(tmp_path / 'bag', changed(room_messages(), '/camera/depth', elsewhere))
    summary = run(bag, fast_config, tmp_path)
    assert summary['frames'] == 4
    assert 'view_agreement' not in summary
    said = capsys.readouterr().err
    assert said.count('choose depth that is registered to the image; going on without depth') == 1
    options = ('--classes', 'wall', '--config', fast_config, '--depth', '/camera/depth')
    assert replay(bag, *options) == 1
    assert 'choose depth that is registered to the image' in capsys.readouterr().err
    assert replay(bag, *options[:-1], '/camera/none') == 1
    assert 'no camera_info for /camera/none' not in capsys.readouterr().err


def test_without_depth_nothing_changes(fast_config: Path, tmp_path: Path) -> None:
    messages = [m for m in room_messages() if m[0] == '/camera/image']
    bag = write_messages(tmp_path / 'bag', messages)
    summary = run(bag, fast_config, tmp_path, '--out', tmp_path / 'out')
    assert 'view_agreement' not in summary
    with opened_bag(tmp_path / 'out') as reader:
        assert '/seg/points' not in {c.topic for c in reader.connections}
