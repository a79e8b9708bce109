"""Labelled points, masks and depth of the node over DDS, with and without depth."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.srv import SetClasses
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.mapping.geometry import Camera, camera_from_info
from llmseg_ros.mapping.point_cloud2 import read_cloud
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.depth_results import DepthResults, class_mask, names_not_listed
from llmseg_ros.ros.depth_subscription import DepthSubscription, HeldDepth, stamp_ns
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.point_cloud import camera_to_info, points_to_cloud
from llmseg_ros.segmentation import ClassResult, Segmentation
from llmseg_ros.system.frame_statistics import FrameStatistics

CAT = data.chelsea()  # 451 x 300
HEIGHT, WIDTH = CAT.shape[:2]
CAMERA = Camera(WIDTH, HEIGHT, 400.0, 410.0, 225.0, 149.0)
FRAME = 'camera_optical'
MILLIMETRES = np.linspace(0, 3000, WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)
Shots = list[Any]


def header(stamp: float, frame: str = FRAME) -> Header:
    made = Header(frame_id=frame)
    made.stamp.sec, made.stamp.nanosec = int(stamp), round(stamp % 1 * 1e9)
    return made


def true_points(millimetres: NDArray[Any], camera: Camera = CAMERA) -> NDArray[np.float64]:
    depth = np.where(millimetres, millimetres / 1000, np.nan)
    y, x = np.mgrid[: camera.height, : camera.width]
    return np.stack(
        [(x - camera.cx) / camera.fx * depth, (y - camera.cy) / camera.fy * depth, depth], axis=-1
    )


class Rig:
    """A camera with depth in front of the node."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.image = peer.publisher(Image, '/image', qos_profile_sensor_data)
        self.depth = peer.publisher(Image, '/depth/image', qos_profile_sensor_data)
        self.info = peer.publisher(CameraInfo, '/depth/camera_info', qos_profile_sensor_data)
        answer = peer.call(SetClasses, '/seg/set_classes', SetClasses.Request(names=['cat', 'cup']))
        self.ids = {item.name: item.id for item in answer.label_map.classes}

    def shoot(
        self,
        stamp: float,
        received: Shots,
        millimetres: NDArray[np.uint16] | None = MILLIMETRES,
        camera: Camera = CAMERA,
        frame: str = FRAME,
        depth_first: bool = True,
        calibrated: bool = True,
    ) -> Any:
        """Send a frame until what belongs to it has come."""
        colour = array_to_image(CAT, 'rgb8', header(stamp))

        def arrived() -> Any:
            return next((m for m in received if m.header == colour.header), None)

        def answered() -> Any:
            if arrived() is None:
                info = camera_to_info(camera, header(stamp))
                info.k[0] *= calibrated
                self.info.publish(info)
                if not depth_first:
                    self.image.publish(colour)
                    self.peer.spin_for(0.02)
                if millimetres is not None:
                    depth = array_to_image(millimetres, '16UC1', header(stamp, frame))
                    self.depth.publish(depth)
                if depth_first:
                    self.peer.spin_for(0.02)
                    self.image.publish(colour)
                self.peer.spin_for(0.4)
            return arrived()

        self.peer.spin_until(answered)
        return arrived()


@pytest.fixture
def rig(seg: Any, peer: Any) -> Rig:
    return Rig(peer)


def values(peer: Any) -> dict[str, str]:
    """Return what the node's next diagnostics say."""
    found: dict[str, str] = peer.diagnostics('/seg')
    return found


@pytest.mark.parametrize('depth_first', [True, False], ids=['depth first', 'frame first'])
def test_points_are_those_of_the_frame(rig: Rig, peer: Any, depth_first: bool) -> None:
    clouds = peer.collect(PointCloud2, '/seg/points')
    all_labels = peer.collect(Image, '/seg/labels')
    stamp = 10.25 + depth_first
    cloud = rig.shoot(stamp, clouds, depth_first=depth_first)
    peer.spin_until(lambda: any(m.header == cloud.header for m in all_labels))
    labels = next(m for m in all_labels if m.header == cloud.header)

    assert cloud.header == header(stamp)
    assert (cloud.height, cloud.width) == (HEIGHT, WIDTH)
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'rgba', 'label', 'confidence']
    found = read_cloud(cloud)
    np.testing.assert_allclose(found.points, true_points(MILLIMETRES), atol=1e-4)
    label_hw = np.frombuffer(labels.data, np.uint8).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(found.labels, label_hw)
    assert rig.ids['cat'] in found.labels
    np.testing.assert_array_equal(found.rgb, CAT)
    assert 0 < found.confidence.min() <= found.confidence.max() <= 1


def test_without_depth_labels_come_and_no_cloud(rig: Rig, peer: Any, seg: Any) -> None:
    clouds = peer.collect(PointCloud2, '/seg/points')
    labels = peer.collect(Image, '/seg/labels')
    before = int(values(peer)['frames without depth'])
    rig.shoot(20.0, labels, millimetres=None)
    peer.spin_until(lambda: int(values(peer)['frames without depth']) > before)
    assert 'no depth within 0.02 s' in values(peer)['message']
    assert clouds == []
    seg.wait_for_log('frames without points: /depth/image: no depth within 0.02 s', 5)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'frame': 'depth_optical'}, "the depth is in the frame 'depth_optical'"),
        ({'millimetres': MILLIMETRES[:, :300].copy()}, 'of another aspect'),
        ({'camera': Camera(640, 300, 400.0, 400.0, 320.0, 150.0)}, 'of another aspect'),
        ({'calibrated': False}, 'it is not calibrated'),
    ],
    ids=['not registered', 'aspect of depth', 'aspect of camera', 'not calibrated'],
)
def test_depth_that_does_not_fit_costs_the_cloud_alone(
    rig: Rig, peer: Any, change: dict[str, Any], reason: str
) -> None:
    clouds = peer.collect(PointCloud2, '/seg/points')
    labels = peer.collect(Image, '/seg/labels')
    stamp = 30.0 + len(reason) + len(change)
    rig.shoot(stamp, labels, **change)
    peer.spin_until(lambda: reason in values(peer)['message'])
    assert clouds == []
    assert rig.shoot(stamp + 0.5, clouds).header == header(stamp + 0.5)


def test_a_camera_that_changes_its_size_is_followed(rig: Rig, peer: Any) -> None:
    """Depth and camera_info of twice the size are those of every second pixel."""
    clouds = peer.collect(PointCloud2, '/seg/points')
    rig.shoot(70.0, clouds)
    big = np.repeat(np.repeat(MILLIMETRES, 2, axis=0), 2, axis=1)
    cloud = rig.shoot(70.5, clouds, big, CAMERA.scaled(2 * WIDTH, 2 * HEIGHT))
    np.testing.assert_allclose(read_cloud(cloud).points, true_points(MILLIMETRES), atol=1e-4)


def test_mask_depth_and_camera_for_those_who_build_maps(rig: Rig, peer: Any) -> None:
    clouds = peer.collect(PointCloud2, '/seg/points')
    received = {
        name: peer.collect(kind, f'/seg/{name}', qos_profile_sensor_data)
        for name, kind in (('mask', Image), ('depth', Image), ('camera_info', CameraInfo))
    }
    cloud = rig.shoot(80.0, clouds)
    mine: dict[str, Any] = {}
    for name, messages in received.items():
        peer.spin_until(lambda messages=messages: any(m.header == cloud.header for m in messages))
        mine[name] = next(m for m in messages if m.header == cloud.header)
    mask_hw = np.frombuffer(mine['mask'].data, np.uint8).reshape(HEIGHT, WIDTH)
    found = read_cloud(cloud)
    assert (mine['mask'].encoding, mine['depth'].encoding) == ('mono8', '32FC1')
    np.testing.assert_array_equal(mask_hw == 255, found.labels != 0)  # every class, unasked
    depth_hw = np.frombuffer(mine['depth'].data, np.float32).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(depth_hw, np.where(mask_hw, np.nan, found.points[..., 2]))
    assert camera_from_info(mine['camera_info']) == CAMERA


def test_nothing_is_made_without_subscribers(rig: Rig, peer: Any) -> None:
    labels = peer.collect(Image, '/seg/labels')
    before = values(peer)
    rig.shoot(90.0, labels)
    peer.spin_for(1.1)
    after = values(peer)
    for count in ('clouds out', 'frames without depth'):
        assert after[count] == before[count]
    assert int(after['frames out']) > int(before['frames out'])


def test_the_mask_is_of_the_classes_asked_for() -> None:
    classes = tuple(
        ClassResult(n, name, 1.0, 1, (0, 0, 1, 1)) for n, name in ((3, 'cat'), (7, 'Cup'))
    )
    labels = np.array([[0, 3, 7]], np.uint16)
    result = Segmentation(labels, np.ones((1, 3), np.float32), classes, 1, {})
    assert class_mask(result, 'cup , zebra').tolist() == [[0, 0, 255]]
    assert class_mask(result, '').tolist() == [[0, 255, 255]]
    assert names_not_listed(result, 'cup , zebra,, persn') == ['zebra', 'persn']
    assert names_not_listed(result, '') == []


def test_the_nearest_depth_within_the_slop_counts() -> None:
    def depth(stamp: float) -> Image:
        return Image(header=header(stamp))

    def held(*stamps: float) -> Image | None:
        found = HeldDepth(10_000_000_000, 20_000_000)
        for stamp in stamps:
            found.offer(depth(stamp))
        return found.depth

    assert held(9.985, 10.0, 10.01) == depth(10.0)
    assert held(9.985, 10.01) == depth(10.01)
    assert held(9.979, 10.021) is None


def test_a_missing_camera_info_is_named(context: Any, peer: Any) -> None:
    node = LifecycleNode('bare', context=context)
    counts = FrameStatistics()
    results = DepthResults(node, NodeConfig(depth='/bare/depth/image'), counts)
    peer.collect(PointCloud2, '/bare/points')
    peer.spin_until(results.wanted)
    results.start()
    held = results.hold(header(3.0), 0.02)
    assert held is not None
    held.offer(array_to_image(MILLIMETRES, '16UC1', header(3.0)))
    empty = np.zeros((HEIGHT, WIDTH), np.uint16)
    result = Segmentation(empty, np.ones(empty.shape, np.float32), (), 1, {})
    results.publish(CAT, result, header(3.0), held, NodeConfig())
    assert counts.without_depth == 1
    assert results.problem.endswith('no camera_info on /bare/depth/camera_info')
    results.destroy()
    node.destroy_node()


def test_compressed_depth_is_heard_and_let_go_of(peer: Any) -> None:
    config = NodeConfig(depth='/packed/depth/image/compressedDepth')
    subscription = DepthSubscription(peer.node, config)
    assert subscription.info_topic == '/packed/depth/camera_info'
    publisher = peer.publisher(CompressedImage, config.depth, qos_profile_sensor_data)
    png = cv2.imencode('.png', MILLIMETRES)[1].tobytes()
    message = CompressedImage(header=header(5.0), format='16UC1; compressedDepth png')
    message.data.frombytes(bytes(12) + png)
    held = subscription.hold(header(5.0), 0.02)
    publisher.publish(message)
    peer.spin_until(lambda: held.depth is not None)
    assert stamp_ns(held.depth.header) == 5_000_000_000
    held = None
    assert len(subscription._held) == 0
    subscription.destroy()


def test_a_cloud_is_written_over_the_last_of_its_size() -> None:
    rng = np.random.default_rng(0)

    def cloud_of(stamp: float, height: int, last: PointCloud2 | None) -> tuple[PointCloud2, Any]:
        shape = height, 7
        labels = rng.integers(0, 300, shape).astype(np.uint16)
        result = Segmentation(labels, rng.random(shape).astype(np.float32), (), 1, {})
        points = rng.normal(size=(*shape, 3)).astype(np.float32)
        rgb = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        fresh = points_to_cloud(points, rgb, result, header(stamp))
        return points_to_cloud(points, rgb, result, header(stamp), last), fresh

    first, _ = cloud_of(1.0, 5, None)
    second, fresh = cloud_of(2.0, 5, first)
    assert second is first
    assert second == fresh
    third, fresh = cloud_of(3.0, 6, second)
    assert third is not second
    assert third == fresh
