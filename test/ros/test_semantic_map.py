"""The node semantic_map over DDS: clouds and odometry in, a map and boxes out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, Pose, Quaternion
from llmseg_ros.msg import ClassInfo, LabelMap
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from plyfile import PlyData
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from llmseg_ros.mapping.geometry import depth_to_points
from llmseg_ros.mapping.objects import MapObject
from llmseg_ros.mapping.point_cloud2 import cloud_table
from llmseg_ros.mapping.voxels import VoxelMap
from llmseg_ros.ros.map_messages import objects_to_detections
from llmseg_ros.ros.point_cloud import points_to_cloud
from llmseg_ros.segmentation import Segmentation

from ..helpers.rgbd_bags import IN_BASE
from ..helpers.room import BOXES, CAMERA, CHAIR, NAMES, POSES, TABLE, shoot
from .test_points import FRAME, Rig
from .test_security import ONLY_SOMETIMES, allowed

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
VOXEL = 0.1
EULER = Rotation.from_matrix(IN_BASE[:3, :3]).as_euler('xyz')
STEP = 0.05


@pytest.fixture(scope='module')
def mapper(
    context: Any, seg_process: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp('semantic_map')
    in_base = ', '.join(f'{value!r}' for value in (*IN_BASE[:3, 3].tolist(), *EULER.tolist()))
    options = {
        'map.voxel': VOXEL,
        'map.poses': 'odometry',
        'map.farthest': 20.0,
        'map.rate': 5.0,
        'map.pose_wait': 0.4,
        'map.least_voxels': 10,
        'map.camera_in_base': f'[{in_base}]',
        'map.file': folder / 'map.ply',
    }
    arguments = [part for name, value in options.items() for part in ('-p', f'{name}:={value}')]
    remap = ('-r', 'points:=/seg/points', '-r', 'label_map:=/room/label_map')
    process = seg_process(folder, *arguments, *remap, module='semantic_map')
    process.folder = folder
    process.wait_for_log('listening to /seg/points, poses from /odometry')
    yield process
    process.stop()


def header(stamp: float, frame: str) -> Header:
    made = Header(frame_id=frame)
    made.stamp.sec, made.stamp.nanosec = divmod(round(stamp * 1e9), 1_000_000_000)
    return made


class Robot:
    """Sends clouds of the ray-cast room and where it is."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.odometry = peer.publisher(Odometry, '/odometry', QoSProfile(depth=100))
        self.points = peer.publisher(PointCloud2, '/seg/points')
        self.told = peer.collect(DiagnosticArray, '/diagnostics')
        self.names = peer.publisher(LabelMap, '/room/label_map', LATCHED)
        peer.spin_for(0.3)  # the node has yet to hear of who publishes, as Peer.call says
        self.name(NAMES)

    def name(self, names: Sequence[str]) -> None:
        """Say what the labels from 1 on mean."""
        classes = [ClassInfo(id=n, name=name) for n, name in enumerate(names, start=1)]
        self.names.publish(LabelMap(classes=classes))

    def count(self, what: str) -> int:
        return int(self.say()[what])

    def say(self) -> dict[str, str]:
        """Return what the node said last, as Peer.diagnostics does."""
        mine = [m.status[0] for m in self.told if m.status[0].name == '/semantic_map']
        if not mine:
            said: dict[str, str] = self.peer.diagnostics('/semantic_map')
            return said
        return {'message': mine[-1].message} | {of.key: of.value for of in mine[-1].values}

    def move(self, stamp: float, camera: NDArray[np.float64]) -> None:
        """Send the odometry that puts the camera there."""
        base = camera @ np.linalg.inv(IN_BASE)
        turn = Rotation.from_matrix(base[:3, :3]).as_quat().tolist()
        message = Odometry(header=header(stamp, 'odom'), child_frame_id='base_link')
        message.pose.pose = Pose(
            position=Point(**dict(zip('xyz', base[:3, 3].tolist(), strict=True))),
            orientation=Quaternion(**dict(zip('xyzw', turn, strict=True))),
        )
        self.odometry.publish(message)

    def look(self, stamp: float, pose: NDArray[np.float64]) -> None:
        """Send what the camera sees from a pose."""
        self.points.publish(room_cloud(stamp, pose))

    def look_moving(self, stamp: float, pose: NDArray[np.float64]) -> None:
        """Send a view from the middle between two poses of the odometry."""
        before, after = pose.copy(), pose.copy()
        before[:3, 3] -= 0.04
        after[:3, 3] += 0.04
        self.move(stamp - STEP, before)
        self.look(stamp, pose)
        self.peer.spin_for(0.1)
        self.move(stamp + STEP, after)


def room_cloud(stamp: float, pose: NDArray[np.float64]) -> PointCloud2:
    shot = shoot(pose)
    result = Segmentation(shot.labels, np.full(shot.labels.shape, 0.8, np.float32), (), 1, {})
    points = depth_to_points(shot.depth, CAMERA)
    return points_to_cloud(points, shot.rgb, result, header(stamp, FRAME))


@pytest.fixture
def robot(mapper: Any, peer: Any) -> Robot:
    return Robot(peer)


def put_into_map(robot: Robot, stamp: float, pose: NDArray[np.float64]) -> float:
    """Send a view until it is in the map; return its stamp.

    One is lost where the node subscribes anew, as reliably as its publisher, at that very time, or
    where a busy machine holds up the odometry for longer than `map.pose_wait`.
    """
    before = robot.count('clouds in the map')
    for late in range(6):
        robot.look_moving(stamp + 0.15 * late, pose)
        for _ in range(40):
            robot.peer.spin_for(0.1)
            if robot.count('clouds in the map') > before:
                return stamp + 0.15 * late
    raise AssertionError(f'the view is not in the map: {robot.say()}')


def test_views_of_a_room_become_its_map(robot: Robot, peer: Any) -> None:
    stamps = [put_into_map(robot, 10.0 + index, pose) for index, pose in enumerate(POSES)]
    maps = peer.collect(PointCloud2, '/semantic_map/map', LATCHED)
    peer.spin_until(lambda: maps)

    expected = VoxelMap(VOXEL)
    for pose in POSES:
        shot = shoot(pose)
        points = depth_to_points(shot.depth, CAMERA)
        confidence = np.full(shot.labels.shape, 0.8, np.float32)
        expected.add(points, shot.labels, confidence, shot.rgb, pose)
    table = cloud_table(maps[-1])[0]
    assert maps[-1].header == header(stamps[-1], 'odom')
    assert [f.name for f in maps[-1].fields] == [
        'x',
        'y',
        'z',
        'rgba',
        'label',
        'probability',
        'views',
    ]
    places = np.stack([table[axis] for axis in 'xyz'], axis=1)
    cells = {tuple(cell) for cell in np.rint(places / VOXEL).astype(int).tolist()}
    truth = expected.voxels()
    true_cells = {tuple(cell) for cell in np.rint(truth.centres / VOXEL).astype(int).tolist()}
    # Quaternions and Euler angles round: a point on the border of two voxels may change sides.
    assert len(cells ^ true_cells) < 0.03 * len(true_cells)
    rows = expected.rows_at(places)
    same = truth.labels[rows[rows >= 0]] == table['label'][rows >= 0]
    assert same.mean() > 0.99
    assert table['views'].max() == len(POSES)


def test_objects_get_boxes_with_their_names(robot: Robot, peer: Any) -> None:
    peer.spin_until(lambda: robot.count('voxels') > 0)
    heard = peer.collect(MarkerArray, '/semantic_map/boxes', LATCHED)
    peer.spin_until(lambda: heard)
    markers = heard[-1].markers
    assert markers[0].action == Marker.DELETEALL
    texts = {m.id: m.text.split()[0] for m in markers if m.type == Marker.TEXT_VIEW_FACING}
    assert set(texts.values()) == {'chair', 'table', 'wall'}
    for low, high, label in BOXES:
        name = NAMES[label - 1]
        box = next(m for m in markers if m.type == Marker.CUBE and texts[m.id] == name)
        centre, size = box.pose.position, box.scale
        assert centre.z + size.z / 2 == pytest.approx(high[2], abs=1.5 * VOXEL)
        assert centre.x == pytest.approx((low[0] + high[0]) / 2, abs=2 * VOXEL)
    assert {TABLE, CHAIR} == {label for _, _, label in BOXES}


def test_objects_as_detections() -> None:
    messages = pytest.importorskip('vision_msgs.msg')
    found = MapObject(2, np.array([1.0, 2.0, 3.0]), np.array([0.4, 0.5, 0.6]), 30, 0.75)
    made = objects_to_detections([found], {2: 'table'}, header(1.5, 'odom'))
    assert isinstance(made, messages.Detection3DArray)
    (detection,) = made.detections
    assert detection.header == made.header == header(1.5, 'odom')
    assert (detection.bbox.center.position.y, detection.bbox.size.z) == (2.0, 0.6)
    hypothesis = detection.results[0].hypothesis
    assert (hypothesis.class_id, hypothesis.score) == ('table', 0.75)


@pytest.mark.parametrize(
    ('moves', 'reason'),
    [
        ((), 'no pose from /odometry for its time'),
        ((-1.0, 1.0), '/odometry has no poses around its time'),
    ],
    ids=['odometry has stopped', 'gap'],
)
def test_a_cloud_without_pose_is_lost_and_said(
    robot: Robot, peer: Any, moves: tuple[float, ...], reason: str
) -> None:
    stamp = 100.0 + 50 * len(moves)
    lost, mapped = robot.count('clouds without pose'), robot.count('clouds in the map')
    for move in moves:
        robot.move(stamp + move, POSES[0])
    peer.spin_for(0.2)
    robot.look(stamp, POSES[0])
    peer.spin_until(lambda: robot.count('clouds without pose') == lost + 1)
    assert reason in robot.say()['message']
    assert robot.count('clouds in the map') == mapped
    robot.look_moving(stamp + 5, POSES[0])
    peer.spin_until(lambda: robot.count('clouds in the map') == mapped + 1)


def test_time_may_go_back_as_when_a_bag_is_played_again(robot: Robot, peer: Any) -> None:
    before = robot.count('clouds in the map')
    robot.look_moving(300.0, POSES[0])
    peer.spin_until(lambda: robot.count('clouds in the map') == before + 1)
    robot.look_moving(20.0, POSES[1])
    peer.spin_until(lambda: robot.count('clouds in the map') == before + 2)


def test_bad_poses_and_clouds_cost_themselves_alone(robot: Robot, peer: Any) -> None:
    rejected, before = robot.count('clouds rejected'), robot.count('clouds in the map')
    bad_poses = robot.count('poses left out')
    nowhere = Odometry(header=header(400.0, 'odom'), child_frame_id='base_link')
    nowhere.pose.pose.position.x = np.nan
    robot.odometry.publish(nowhere)
    bad = room_cloud(400.5, POSES[0])
    bad.fields = bad.fields[:4]
    robot.points.publish(bad)
    robot.move(400.5, POSES[0])
    peer.spin_until(lambda: robot.count('clouds rejected') == rejected + 1)
    said = robot.say()
    assert 'has no field label' in said['message']
    assert int(said['poses left out']) == bad_poses + 1
    robot.look_moving(401.0, POSES[0])
    peer.spin_until(lambda: robot.count('clouds in the map') == before + 1)


def test_labels_that_change_their_meaning_stay_out(robot: Robot, peer: Any) -> None:
    """As when the segmentation node is started anew with other classes."""
    rejected, before = robot.count('clouds rejected'), robot.count('clouds in the map')
    robot.name(('wall', 'cup', 'chair'))
    peer.spin_for(0.2)
    robot.look_moving(420.0, POSES[0])
    peer.spin_until(lambda: robot.count('clouds rejected') == rejected + 1)
    assert "the label 2 was 'table' and is now 'cup'" in robot.say()['message']
    robot.name(('Wall', 'table', 'chair', 'cup'))
    peer.spin_for(0.2)
    robot.look_moving(421.0, POSES[0])
    peer.spin_until(lambda: robot.count('clouds in the map') == before + 1)


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('map.farthest', -1.0, 'map.farthest out of range'),
        ('map.pose_wait', float('nan'), 'map.pose_wait'),
        ('map.camera_in_base', [0.0] * 5, 'expected x, y, z, roll, pitch and yaw'),
        ('map.camera_in_base', [float('inf')] * 6, 'expected x, y, z, roll, pitch and yaw'),
        ('map.voxel', 0.2, 'map.voxel'),
    ],
)
def test_what_can_not_be_set_while_it_runs(
    mapper: Any, peer: Any, name: str, value: Any, reason: str
) -> None:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    answer = peer.call(SetParameters, '/semantic_map/set_parameters', request).results[0]
    assert not answer.successful
    assert reason in answer.reason


def test_the_policy_is_what_the_node_does(mapper: Any, stranger: Any) -> None:
    node = stranger.node
    mapper_name = ('semantic_map', '/')
    stranger.spin_until(lambda: mapper_name in node.get_node_names_and_namespaces())
    stranger.spin_until(lambda: node.count_publishers('/semantic_map/boxes'))
    stranger.spin_until(lambda: node.count_subscribers('/seg/points'))
    kinds = {
        ('topic', 'publish'): node.get_publisher_names_and_types_by_node,
        ('topic', 'subscribe'): node.get_subscriber_names_and_types_by_node,
        ('service', 'reply'): node.get_service_names_and_types_by_node,
    }
    sometimes = {*ONLY_SOMETIMES, '/tf', '/tf_static', '/semantic_map/objects'}
    for (kind, access), ask in kinds.items():
        does = {name for name, _ in ask(*mapper_name)}
        remapped = {name.removeprefix('/seg').removeprefix('/room') for name in does}
        assert allowed(kind, access, 'semantic_map') - sometimes == remapped - sometimes


def test_limits_are_checked(mapper: Any, peer: Any) -> None:
    request = GetParameters.Request(names=['map.voxel', 'map.limit'])
    found = peer.call(GetParameters, '/semantic_map/get_parameters', request).values
    assert (found[0].double_value, found[1].integer_value) == (VOXEL, 1_000_000)


def test_frames_of_a_camera_come_into_the_map_by_way_of_seg(
    robot: Robot, peer: Any, seg: Any
) -> None:
    """Three processes: this one is camera and robot."""
    rig = Rig(peer)
    clouds = peer.collect(PointCloud2, '/seg/points')
    before = robot.count('clouds in the map')
    for stamp in (600.1, 601.1, 602.1, 603.1):  # a node found just now may miss the first
        robot.move(stamp - 0.1, POSES[0])
        robot.move(stamp + 0.2, POSES[0])
        cloud = rig.shoot(stamp, clouds)
        peer.spin_for(2.5)  # diagnostics come once a second
        if robot.count('clouds in the map') > before:
            break
    else:
        pytest.fail('none of the clouds came into the map')
    maps = peer.collect(PointCloud2, '/semantic_map/map', LATCHED)
    peer.spin_until(lambda: maps and maps[-1].header.stamp == cloud.header.stamp)
    assert rig.ids['cat'] in cloud_table(maps[-1])['label']


def test_told_to_end_it_writes_the_map(mapper: Any) -> None:
    """The last test: the node is gone after it."""
    code, seconds = mapper.signal(signal.SIGINT)
    assert (code, seconds < 5) == (0, True)
    vertices = PlyData.read(Path(mapper.folder) / 'map.ply')['vertex']
    assert len(vertices) > 1000
    listed = json.loads((Path(mapper.folder) / 'map_classes.json').read_text())
    assert (listed['frame'], listed['voxel_m']) == ('odom', VOXEL)
    names = {of['id']: of['name'] for of in listed['classes']}
    assert {names[label] for label in (1, 2, 3)} == {'wall', 'table', 'chair'}
    assert sum(of['voxels'] for of in listed['classes']) <= len(vertices)
    assert 'Traceback' not in mapper.log
