"""Depth, cameras and poses out of bags of the ray-cast room, whole and broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmseg_ros.bags.depth import BagDepth, find_depth_topics, read_rgbd_frames
from llmseg_ros.bags.reading import find_image_connections, opened_bag
from llmseg_ros.bags.storage import BagError
from llmseg_ros.mapping.rgbd import RgbdFrame, frame_points

from ..helpers.bags import SECOND, image
from ..helpers.rgbd_bags import (
    COMPRESSED,
    IN_BASE,
    STEP,
    TF,
    Messages,
    camera_info,
    changed,
    compressed_depth,
    room_messages,
    transform,
    write_messages,
)
from ..helpers.room import CAMERA, circle, shoot


def read(
    path: Path, messages: Messages, world: str = '', depth: str = '', odometry: str = ''
) -> tuple[list[RgbdFrame], BagDepth]:
    write_messages(path / 'bag', messages)
    with opened_bag(path / 'bag') as reader:
        camera = find_image_connections(reader, '', other_than=depth)
        topics = find_depth_topics(reader, camera[0].topic, depth, odometry)
        found = BagDepth(reader, topics, world)
        found.require_poses()
        return list(read_rgbd_frames(reader, camera, found)), found


@pytest.mark.parametrize(('poses', 'world'), [('tf', 'map'), ('odometry', 'odom')])
def test_the_room(tmp_path: Path, poses: str, world: str) -> None:
    frames, depth = read(tmp_path, room_messages(poses=poses))
    assert depth.world == world
    assert depth.missing_in_words() == ''
    assert len(frames) == 4
    for frame, pose in zip(frames, circle(4), strict=True):
        shot = shoot(pose)
        np.testing.assert_allclose(frame.pose, pose, atol=1e-9)
        np.testing.assert_array_equal(frame.rgb, shot.rgb)
        np.testing.assert_allclose(frame.depth, shot.depth, atol=0.00051)
        assert frame.camera == CAMERA


def test_in_another_frame(tmp_path: Path) -> None:
    frames, _ = read(tmp_path, room_messages(), world='base_link')
    np.testing.assert_allclose(frames[0].pose, frames[3].pose)


def test_compressed_depth_beside_raw(tmp_path: Path) -> None:
    """Of both the raw one is taken; alone the compressed one is the same."""
    messages = room_messages()
    twins: Messages = [
        ('/camera/depth/compressedDepth', COMPRESSED, compressed_depth(message), stamp)
        for topic, _, message, stamp in messages
        if topic == '/camera/depth'
    ]
    (tmp_path / 'both').mkdir()
    raw, both = read(tmp_path / 'both', [*messages, *twins])
    assert both.topics.depth == '/camera/depth'
    alone = changed([*messages, *twins], '/camera/depth', lambda *_: None)
    frames, depth = read(tmp_path, alone)
    assert depth.topics == ('/camera/depth/compressedDepth', '/camera/camera_info', '')
    for one, other in zip(raw, frames, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)


def test_depth_a_little_later(tmp_path: Path) -> None:
    frames, _ = read(tmp_path, room_messages(depth_lag=15_000_000))
    assert len(frames) == 4


def test_depth_too_late(tmp_path: Path) -> None:
    frames, depth = read(tmp_path, room_messages(depth_lag=30_000_000))
    assert not frames
    assert depth.missing_in_words() == '4 frames without depth'


def test_dropouts_and_gaps(tmp_path: Path) -> None:
    """Ten frames; two have no depth, and no pose is known for the last three."""
    messages = changed(room_messages(10), '/camera/depth', lambda n, m: None if n in (2, 3) else m)
    messages = changed(messages, '/tf', lambda n, m: None if n > 6 else m)
    frames, depth = read(tmp_path, messages)
    assert [frame.name for frame in frames] == [f'frame {n}' for n in (1, 2, 5, 6, 7)]
    assert depth.missing == {'depth': 2, 'pose': 3}
    assert depth.missing_in_words() == '2 frames without depth, 3 frames without pose'


def test_a_pose_in_between(tmp_path: Path) -> None:
    frames, _ = read(tmp_path, changed(room_messages(), '/tf', lambda n, m: None if n == 1 else m))
    first, second, third = (frame.pose[:3, 3] for frame in frames[:3])
    # The robot moves straight, its camera turns with it: near the middle, not in it.
    np.testing.assert_allclose(second, (first + third) / 2, atol=0.1)


def test_poses_that_are_none(tmp_path: Path) -> None:
    def spoil(number: int, message: Any) -> Any:
        if number == 3:
            message.transforms[0].transform.translation.x = float('nan')
        return message

    frames, depth = read(tmp_path, changed(room_messages(), '/tf', spoil))
    assert len(frames) == 3
    assert depth.missing_in_words() == '1 frames without pose, 1 transforms that are no poses'


def test_camera_info_that_changes_size(tmp_path: Path) -> None:
    """From the third frame on, the driver sends half the pixels."""

    def halve_info(number: int, message: Any) -> Any:
        stamp = SECOND + number * STEP
        return message if number < 2 else camera_info(CAMERA.scaled(80, 60), stamp)

    def halve(channels: int) -> Callable[[int, Any], Any]:
        def change(number: int, message: Any) -> Any:
            if number < 2:
                return message
            kind = np.uint16 if channels == 1 else np.uint8
            pixels = message.data.view(kind).reshape(120, 160, -1)[::2, ::2]
            stamp = SECOND + number * STEP
            pixels = pixels[..., 0] if channels == 1 else pixels
            return image(pixels, message.encoding, stamp)

        return change

    messages = changed(room_messages(), '/camera/camera_info', halve_info)
    messages = changed(messages, '/camera/depth', halve(1))
    frames, _ = read(tmp_path, changed(messages, '/camera/image', halve(3)))
    assert [frame.camera.width for frame in frames] == [160, 160, 80, 80]
    assert [frame_points(frame).shape[1] for frame in frames] == [160, 160, 80, 80]


def jumping(number: int, message: Any) -> Any:
    if number == 3:
        message.transforms[0].header.stamp = replace(message.transforms[0].header.stamp, sec=0)
        later = transform('base_link', 'map', np.eye(4), 9 * SECOND)
        message.transforms.insert(0, later.transforms[0])
    return message


def elsewhere(_: int, message: Any) -> Any:
    message.header.frame_id = 'depth_optical'
    return message


def test_damaged_messages_cost_themselves(tmp_path: Path) -> None:
    """An image of too few bytes, and depth in colours."""

    def cut(number: int, message: Any) -> Any:
        return replace(message, data=message.data[:100]) if number == 1 else message

    def coloured(number: int, message: Any) -> Any:
        stamp = SECOND + number * STEP
        return message if number != 2 else image(np.zeros((120, 160, 3), np.uint8), 'rgb8', stamp)

    messages = changed(room_messages(), '/camera/image', cut)
    frames, depth = read(tmp_path, changed(messages, '/camera/depth', coloured))
    assert [frame.name for frame in frames] == ['frame 1', 'frame 4']
    said = '1 frames without usable image, 1 frames without usable depth (an image can not be used'
    assert depth.missing_in_words().startswith(said)


def uncalibrated(number: int, _: Any) -> Any:
    return camera_info(CAMERA, SECOND + number * STEP, k=np.zeros(9))


def fisheye(number: int, _: Any) -> Any:
    values = {'distortion_model': 'equidistant', 'd': np.full(4, 0.1)}
    return camera_info(CAMERA, SECOND + number * STEP, **values)


def gone(*_: Any) -> None:
    return None


@pytest.mark.parametrize(
    ('topic', 'change', 'message'),
    [
        ('/camera/camera_info', gone, 'no camera_info for /camera/depth: expected /camera/camera_'),
        ('/camera/camera_info', uncalibrated, 'focal lengths of the camera are 0 and 0'),
        ('/camera/camera_info', fisheye, "model 'equidistant' with 4 coefficients is not"),
        ('/camera/depth', gone, 'the bag has no depth images; it has /camera/camera_info'),
        ('/camera/depth', elsewhere, "depth of /camera/depth is in the frame 'depth_optical', the"),
        ('/tf', gone, 'the frame camera does not hang on map, but on base_link'),
        ('/tf', jumping, r'base_link in map: the stamps of the poses jump back by 8\.\d+ s'),
        ('/tf_static', gone, "the frame 'camera' of the image hangs on nothing in tf"),
    ],
)
def test_bags_that_can_not_be_used(
    tmp_path: Path, topic: str, change: Callable[[int, Any], Any], message: str
) -> None:
    with pytest.raises(BagError, match=message):
        read(tmp_path, changed(room_messages(), topic, change), world='map')


@pytest.mark.parametrize('frame', ['nowhere', ''])
def test_a_camera_that_hangs_on_nothing(tmp_path: Path, frame: str) -> None:
    """Or every view would be put onto the origin, and the map would be of nothing."""
    with pytest.raises(BagError, match=f"the frame '{frame}' of the image hangs on nothing in tf"):
        read(tmp_path, in_frame(frame))


def test_names_of_frames_as_in_ros1(tmp_path: Path) -> None:
    frames, depth = read(tmp_path, in_frame('/camera'))
    assert (len(frames), depth.world) == (4, 'map')
    assert len({frame.pose.tobytes() for frame in frames}) == 4


def in_frame(name: str) -> Any:
    messages = room_messages()
    for topic, _, message, _ in messages:
        if topic in ('/camera/image', '/camera/depth'):
            message.header.frame_id = name
    return messages


def test_wheels_in_tf_and_poses_as_odometry(tmp_path: Path) -> None:
    """Or all views would be put where the robot's base is."""
    messages = room_messages(poses='odometry')
    wheels = [
        ('/tf', TF, transform('wheel', 'base_link', IN_BASE, SECOND + n * STEP), SECOND + n * STEP)
        for n in range(4)
    ]
    moves = "in tf nothing moves between the camera and 'base_link', choose the poses with"
    with pytest.raises(BagError, match=f'{moves} --odometry, one of /odometry'):
        read(tmp_path, [*messages, *wheels])
    frames, depth = read(tmp_path / 'other', [*messages, *wheels], odometry='/odometry')
    assert (len(frames), depth.world) == (4, 'odom')


def test_no_poses(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='the bag has no poses, neither on /tf nor as odometry'):
        read(tmp_path, room_messages(poses=''))


def test_several_topics(tmp_path: Path) -> None:
    messages = room_messages()
    second = [('/left/depth', k, m, s) for t, k, m, s in messages if t == '/camera/depth']
    with pytest.raises(BagError, match='--depth, one of /camera/depth, /left/depth'):
        read(tmp_path, [*messages, *second])


def test_several_odometries(tmp_path: Path) -> None:
    messages = [m for m in room_messages(poses='odometry') if m[0] != '/tf_static']
    second = [('/wheels', k, m, s) for t, k, m, s in messages if t == '/odometry']
    with pytest.raises(BagError, match='--odometry, one of /odometry, /wheels'):
        read(tmp_path, [*messages, *second])
