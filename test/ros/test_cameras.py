"""Several cameras in one node: each with its own topics, all with one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray
from llmseg_ros.srv import GetClasses, SegmentImage, SetClasses
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.files import shipped_path
from llmseg_ros.live.frames import LiveFrame
from llmseg_ros.live.session import LiveError
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.diagnostics import WARN
from llmseg_ros.ros.live_session import Graph, NodeSession

CAT = data.chelsea()
CUP = np.ascontiguousarray(data.coffee()[::2, ::2])
LABELLED = ('labels', 'masks', 'confidence', 'overlay', 'features')
WITH_VISION_MSGS = {'label_info', 'detections'}
WITH_DEPTH = ('points', 'mask', 'depth', 'camera_info')


@pytest.fixture(scope='module')
def many(
    context: Any, seg_process: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Start a node with three cameras, set up as the session's node with one."""
    process = seg_process(
        tmp_path_factory.mktemp('many'),
        '--params-file',
        str(shipped_path('config/offline.yaml')),
        *('-p', 'imagenet.model:=lite0', '-p', 'imagenet.short_sides:=[160]'),
        *('-p', 'node.cameras:=[front, rear, side]', '-p', 'node.compressed_cameras:=[side]'),
        *('-p', 'node.depth:=/{camera}/depth/image', '-p', 'classes:=[cat, cup]'),
        *('-r', '__node:=many', '-r', '~/rear/image:=/back/image_raw'),
    )
    process.wait_for_log('listening to /many/front/image, depth from /front/depth/image; /back/')
    yield process
    process.stop()


def frame(rgb: NDArray[np.uint8], second: int) -> Image:
    message = array_to_image(rgb, 'rgb8', Header(frame_id='camera'))
    message.header.stamp.sec = second
    return message


def answers(peer: Any, publisher: Any, received: list[Image], message: Any) -> Image:
    """Send a frame until its labels are here."""

    def answered() -> bool:
        if not any(labels.header == message.header for labels in received):
            publisher.publish(message)
            peer.spin_for(0.3)
        return any(labels.header == message.header for labels in received)

    peer.spin_until(answered)
    return next(labels for labels in received if labels.header == message.header)


def names_of_pixels(peer: Any, node: str, labels: Image) -> NDArray[np.str_]:
    answer = peer.call(GetClasses, f'/{node}/get_classes', GetClasses.Request())
    names = np.full(256, 'background', dtype='U20')
    for item in answer.label_map.classes:
        names[item.id] = item.name
    return names[np.frombuffer(labels.data, np.uint8).reshape(labels.height, labels.width)]


def statuses(peer: Any, told: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what the node says of itself and its cameras, once it has told something."""
    arrays = peer.collect(DiagnosticArray, '/diagnostics')
    of_node: dict[str, Any] = {}

    def said() -> bool:
        of_node.update((s.name, s) for array in arrays for s in array.status)
        return '/many' in of_node and told(of_node)

    peer.spin_until(said)
    return of_node


def value(status: Any, key: str) -> int:
    return int(next(pair.value for pair in status.values if pair.key == key))


def test_every_camera_has_topics_of_its_own(many: Any, peer: Any) -> None:
    wanted = {f'/many/{c}/{t}' for c in ('front', 'rear', 'side') for t in LABELLED + WITH_DEPTH}
    node = peer.node
    peer.spin_until(lambda: ('many', '/') in node.get_node_names_and_namespaces())
    peer.spin_until(lambda: all(node.count_publishers(topic) for topic in wanted))
    found = {name for name, _ in node.get_publisher_names_and_types_by_node('many', '/')}
    others = {name.rpartition('/')[2] for name in found - wanted if '/many/' in name}
    others -= WITH_VISION_MSGS
    assert others == {'label_map', 'transition_event'}
    images = ('/many/front/image', '/back/image_raw', '/many/side/image/compressed')
    peer.spin_until(lambda: all(node.count_subscribers(topic) for topic in images))


def test_labels_are_those_of_a_node_with_one_camera(many: Any, seg: Any, peer: Any) -> None:
    peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat', 'cup']))
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    alone = [
        names_of_pixels(
            peer, 'seg', answers(peer, camera, peer.collect(Image, '/seg/labels'), message)
        )
        for message in (frame(CAT, 1000), frame(CUP, 2000))
    ]
    assert all(len(np.unique(names)) == 2 for names in alone)

    png = cv2.imencode('.png', CUP[..., ::-1])[1].tobytes()
    packed = CompressedImage(header=frame(CUP, 3).header, format='png', data=png)
    for topic, name, message, expected in (
        ('/many/front/image', 'front', frame(CAT, 1), alone[0]),
        ('/back/image_raw', 'rear', frame(CUP, 2), alone[1]),
        ('/many/side/image/compressed', 'side', packed, alone[1]),
    ):
        publisher = peer.publisher(type(message), topic, qos_profile_sensor_data)
        received = peer.collect(Image, f'/many/{name}/labels')
        labels = answers(peer, publisher, received, message)
        np.testing.assert_array_equal(names_of_pixels(peer, 'many', labels), expected)


def test_a_call_names_the_camera_it_means(many: Any, peer: Any) -> None:
    rear = peer.publisher(Image, '/back/image_raw', qos_profile_sensor_data)
    labels = peer.collect(Image, '/many/rear/labels')
    streamed = answers(peer, rear, labels, frame(CUP, 7))
    call = partial(peer.call, SegmentImage, '/many/segment')
    answer = call(SegmentImage.Request(camera='rear', max_age=60.0))
    assert answer.success, answer.message
    assert answer.labels.header == streamed.header
    refused = call(SegmentImage.Request(camera='left'))
    assert not refused.success
    assert "there is no camera 'left': its cameras are front, rear, side" in refused.message


def test_a_page_looks_at_one_camera(many: Any, peer: Any) -> None:
    session = NodeSession(Graph(), '/many')
    frames: list[LiveFrame] = []
    try:
        session.look_at()
        assert session.describe()['source'] == 'node /many/front'
        with pytest.raises(LiveError, match="no camera 'left': its cameras are front, rear, side"):
            session.look_at('left')
        session.look_at('rear')
        session.start(frames.append)
        session.watch(True)
        rear = peer.publisher(Image, '/back/image_raw', qos_profile_sensor_data)

        def shown() -> bool:
            rear.publish(frame(CUP, 8))
            peer.spin_for(0.2)
            return bool(frames)

        peer.spin_until(shown)
        assert frames[-1].labels.shape == CUP.shape[:2]
    finally:
        session.close()


def test_a_camera_that_is_rejected_or_silent_harms_no_other(many: Any, peer: Any) -> None:
    front = peer.publisher(Image, '/many/front/image', qos_profile_sensor_data)
    rear = peer.publisher(Image, '/back/image_raw', qos_profile_sensor_data)
    labels = peer.collect(Image, '/many/front/labels')
    peer.collect(Image, '/many/rear/labels')
    bad = frame(CAT, 10)
    bad.encoding = 'theora'
    peer.spin_until(lambda: peer.node.count_subscribers('/many/rear/labels'))
    for second in range(20, 26):
        rear.publish(bad)
        answers(peer, front, labels, frame(CAT, second))
    found = statuses(peer, lambda of: value(of['/many/rear'], 'frames rejected') >= 3)
    many.wait_for_log('/back/image_raw: frame rejected: ', 5)
    assert value(found['/many/front'], 'frames rejected') == 0
    assert value(found['/many'], 'frames in') == sum(
        value(found[f'/many/{name}'], 'frames in') for name in ('front', 'rear', 'side')
    )
    assert found['/many'].level == WARN
    assert 'rear: frames are rejected, the log says why' in found['/many'].message
    assert found['/many/rear'].level == WARN


def test_every_camera_has_points_of_its_own_depth(many: Any, peer: Any) -> None:
    image = peer.publisher(Image, '/back/image_raw', qos_profile_sensor_data)
    clouds = peer.collect(PointCloud2, '/many/rear/points')
    of_front = peer.collect(PointCloud2, '/many/front/points')
    depth = peer.publisher(Image, '/rear/depth/image', qos_profile_sensor_data)
    camera_info = peer.publisher(CameraInfo, '/rear/depth/camera_info', qos_profile_sensor_data)
    height, width = CUP.shape[:2]
    message = frame(CUP, 50)
    millimetres = array_to_image(np.full((height, width), 1500, np.uint16), '16UC1', message.header)
    info = CameraInfo(header=message.header, height=height, width=width)
    info.k = [300.0, 0.0, width / 2, 0.0, 300.0, height / 2, 0.0, 0.0, 1.0]
    info.distortion_model, info.d = 'plumb_bob', [0.0] * 5

    def clouded() -> bool:
        for publisher, part in ((camera_info, info), (depth, millimetres), (image, message)):
            publisher.publish(part)
        peer.spin_for(0.3)
        return bool(clouds)

    peer.spin_until(clouded)
    assert clouds[0].header == message.header
    assert (clouds[0].height, clouds[0].width) == (height, width)
    assert of_front == []


def test_a_camera_may_change_its_size(many: Any, peer: Any) -> None:
    front = peer.publisher(Image, '/many/front/image', qos_profile_sensor_data)
    labels = peer.collect(Image, '/many/front/labels')
    sizes = ((300, 451), (60, 80), (300, 451), (480, 360))
    for second, (height, width) in enumerate(sizes, 30):
        message = frame(cv2.resize(CAT, (width, height)), second)
        answer = answers(peer, front, labels, message)
        assert (answer.height, answer.width) == (height, width)
    assert 'frame lost' not in many.log


def test_frames_above_the_rate_are_counted_apart(many: Any, peer: Any) -> None:
    publishers = [
        peer.publisher(Image, topic, qos_profile_sensor_data)
        for topic in ('/many/front/image', '/back/image_raw')
    ]
    received = [peer.collect(Image, f'/many/{name}/labels') for name in ('front', 'rear')]
    peer.spin_for(0.5)

    def limit(rate_hz: float) -> None:
        parameter = Parameter('node.max_rate', value=rate_hz).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        assert peer.call(SetParameters, '/many/set_parameters', request).results[0].successful

    limit(2.0)
    for labels in received:
        labels.clear()
    begin = time.monotonic()
    for _ in range(30):
        for publisher in publishers:
            publisher.publish(frame(CUP, 60))
        peer.spin_for(0.05)
    peer.spin_for(0.3)
    most = 2 + 2 * (time.monotonic() - begin)
    limit(0.0)
    assert all(2 <= len(labels) <= most for labels in received)
    key = 'frames above the rate'
    statuses(peer, lambda of: all(value(of[f'/many/{c}'], key) > 10 for c in ('front', 'rear')))
