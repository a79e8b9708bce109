"""What others read of the node: contracts made from their code, met by real messages.

Read: kiwicampus/semantic_segmentation_layer a70cf6e, NVIDIA-ISAAC-ROS/isaac_ros_nvblox 319438a,
introlab/rtabmap_ros, OctoMap/octomap_mapping, MIT-SPARK/Hydra 2e58a35b and Hydra-ROS 5e206f0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from llmseg_ros.ros.depth_subscription import stamp_ns

from .test_points import HEIGHT, MILLIMETRES, WIDTH, Rig, header

SENSOR_DATA_50 = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
PERIOD_S = 1 / 30
LATE_S = 0.4
KINDS = {
    'labels': Image,
    'confidence': Image,
    'points': PointCloud2,
    'mask': Image,
    'depth': Image,
    'camera_info': CameraInfo,
}


class Arrival(NamedTuple):
    at: float
    topic: str
    stamp: int


class Synchroniser:
    """Of message_filters, by exact time: of more stamps than the queue holds the oldest goes."""

    def __init__(self, topics: tuple[str, ...], queue: int) -> None:
        self._topics, self._queue = set(topics), queue
        self._waiting: dict[int, set[str]] = {}
        self.matched: list[int] = []

    def add(self, topic: str, stamp: int) -> None:
        there = self._waiting.setdefault(stamp, set())
        there.add(topic)
        if there == self._topics:
            self.matched.append(stamp)
            self._waiting = {s: t for s, t in self._waiting.items() if s > stamp}
        while len(self._waiting) > self._queue:
            del self._waiting[min(self._waiting)]


@pytest.fixture(scope='module')
def seen() -> dict[str, list[Any]]:
    return {}


@pytest.fixture
def results(seg: Any, peer: Any, seen: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return messages of three frames of a stream, by topic, as a costmap or mapper hears them."""
    if not seen:
        heard = {
            name: peer.collect(kind, f'/seg/{name}', SENSOR_DATA_50) for name, kind in KINDS.items()
        }
        rig = Rig(peer)
        for number in range(3):
            of = rig.shoot(200 + number * PERIOD_S, heard['points']).header
            for name, messages in heard.items():
                peer.spin_until(lambda m=messages, of=of: any(x.header == of for x in m))
                message = next(x for x in messages if x.header == of)
                seen.setdefault(name, []).append(message)
    return seen


@pytest.mark.parametrize(('whose', 'all_match'), [('ours', True), ("the driver's", False)])
def test_results_400_ms_late_meet_points_in_a_queue_of_ten(
    results: dict[str, list[Any]], whose: str, all_match: bool
) -> None:
    """At 30 Hz ten clouds are 333 ms: the driver's is gone before our labels are there."""
    synchroniser = Synchroniser(('labels', 'confidence', 'points'), queue=10)
    stamps = [stamp_ns(message.header) for message in results['labels']]
    ours = ('labels', 'confidence', 'points') if whose == 'ours' else ('labels', 'confidence')
    arrivals = [
        Arrival(stamp / 1e9 + LATE_S, name, stamp_ns(message.header))
        for name in ours
        for message, stamp in zip(results[name], stamps, strict=True)
    ]
    if whose != 'ours':
        stream = [stamps[0] + round(n * PERIOD_S * 1e9) for n in range(30)]
        nearest = {min(stream, key=lambda s, of=stamp: abs(s - of)): stamp for stamp in stamps}
        arrivals += [Arrival(s / 1e9, 'points', nearest.get(s, s)) for s in stream]
    for arrival in sorted(arrivals):
        synchroniser.add(arrival.topic, arrival.stamp)
    assert synchroniser.matched == (stamps if all_match else [])


def test_nav2_semantic_segmentation_layer(results: dict[str, list[Any]], peer: Any) -> None:
    """syncSegmConfPointcloudCb, bufferSegmentation and their PointCloud2ConstIterator<float>."""
    for labels, confidence, points in zip(
        *(results[name] for name in ('labels', 'confidence', 'points')), strict=True
    ):
        assert labels.header == confidence.header == points.header
        assert labels.width * labels.height == points.width * points.height
        # It reads data[v * width + u] as uint8: one byte a pixel and rows without padding.
        assert (labels.encoding, confidence.encoding) == ('mono8', 'mono8')
        assert labels.step == confidence.step == labels.width
        assert len(labels.data) == len(confidence.data) == points.width * points.height
        offsets = {f.name: f.offset for f in points.fields if f.datatype == PointField.FLOAT32}
        assert {'x', 'y', 'z'} <= offsets.keys()
        assert points.row_step == points.width * points.point_step
        z = np.ndarray(
            (HEIGHT, WIDTH), '<f4', points.data, offsets['z'], (points.row_step, points.point_step)
        )
        np.testing.assert_array_equal(np.isnan(z), MILLIMETRES == 0)  # std::isfinite skips them
    publishers = peer.node.get_publishers_info_by_topic('/seg/label_map')
    assert publishers[0].qos_profile.durability.name == 'TRANSIENT_LOCAL'


def test_nvblox_with_masks(results: dict[str, list[Any]]) -> None:
    """timesync_depth_mask_ of nvblox_node.cpp: depth, mask and a camera_info for each."""
    for mask, depth, info in zip(
        *(results[name] for name in ('mask', 'depth', 'camera_info')), strict=True
    ):
        assert mask.header == depth.header == info.header  # an approximate queue of 10
        assert mask.encoding == 'mono8'
        assert depth.encoding in ('32FC1', '16UC1')
        assert (mask.height, mask.width) == (info.height, info.width) == (HEIGHT, WIDTH)
        assert set(np.frombuffer(mask.data, np.uint8).tolist()) == {0, 255}
        assert info.k[0] > 0
        assert info.k[4] > 0


def test_whole_depth_for_nvblox_on_demand(seg: Any, peer: Any) -> None:
    """nvblox cuts the mask out itself, into another layer."""

    def set_mask_depth(value: bool) -> None:
        of = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=value)
        request = SetParameters.Request(parameters=[Parameter(name='node.mask_depth', value=of)])
        assert peer.call(SetParameters, '/seg/set_parameters', request).results[0].successful

    rig = Rig(peer)
    depths = peer.collect(Image, '/seg/depth', SENSOR_DATA_50)
    known = MILLIMETRES > 0
    try:
        set_mask_depth(False)
        whole = rig.shoot(210.0, depths)
    finally:
        set_mask_depth(True)
    depth_hw = np.frombuffer(whole.data, np.float32).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(depth_hw[known], MILLIMETRES[known] / 1000, atol=1e-6)
    cut = rig.shoot(210.5, depths)
    assert np.isnan(np.frombuffer(cut.data, np.float32)).sum() > (~known).sum()


def test_rtabmap_and_octomap(results: dict[str, list[Any]]) -> None:
    """pcl::fromROSMsg into PointXYZRGB; rgbdFromROS takes depth of these encodings."""
    wanted = {
        'x': PointField.FLOAT32,
        'y': PointField.FLOAT32,
        'z': PointField.FLOAT32,
        'rgba': PointField.UINT32,  # what FieldMatches takes for rgb under this name
    }
    for cloud, depth, info in zip(
        *(results[name] for name in ('points', 'depth', 'camera_info')), strict=True
    ):
        fields = {field.name: (field.datatype, field.count) for field in cloud.fields}
        assert {name: fields[name] for name in wanted} == {n: (k, 1) for n, k in wanted.items()}
        assert not cloud.is_bigendian
        assert not cloud.is_dense  # or PCL would take NaN for points
        assert depth.encoding in ('16UC1', '32FC1', 'mono16')
        assert depth.header == info.header
        assert (depth.width, depth.height) == (info.width, info.height)


def test_hydra(results: dict[str, list[Any]]) -> None:
    """convertLabels: CV_8UC1, CV_16UC1, CV_8SC1 or CV_16SC1; PointcloudAdaptor: field label."""
    for labels, cloud in zip(results['labels'], results['points'], strict=True):
        assert labels.encoding in ('mono8', 'mono16', '16SC1')
        label = next(field for field in cloud.fields if field.name == 'label')
        assert label.datatype == PointField.UINT16
        assert isinstance(labels.header, Header)
        assert labels.header.frame_id == cloud.header.frame_id == header(0).frame_id
