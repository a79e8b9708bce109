"""The node `semantic_map`: labelled clouds and poses in, a voxel map and boxes of objects out."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from llmseg_ros.classes import name_key
from llmseg_ros.files import WriteError, prepare_folder, write_json
from llmseg_ros.mapping.geometry import GeometryError, Matrix
from llmseg_ros.mapping.objects import find_objects
from llmseg_ros.mapping.ply import write_ply
from llmseg_ros.mapping.point_cloud2 import read_cloud
from llmseg_ros.mapping.voxels import VoxelMap, Voxels
from llmseg_ros.msg import ClassInfo, LabelMap
from llmseg_ros.ros import qos
from llmseg_ros.ros.arguments import initialize
from llmseg_ros.ros.cloud_poses import CloudPoses, NoPose, OdometryPoses, TfPoses, has_tf
from llmseg_ros.ros.compat import call_after_set_parameters
from llmseg_ros.ros.diagnostics import (
    OK,
    RECENT_S,
    SILENT_S,
    STALE,
    WARN,
    status_message,
)
from llmseg_ros.ros.ending import Interrupt, end_by, launcher_gone
from llmseg_ros.ros.image_subscription import ImageSubscription
from llmseg_ros.ros.map_messages import objects_to_detections, objects_to_markers
from llmseg_ros.ros.map_settings import MAP_FIELDS, MapConfig
from llmseg_ros.ros.parameters import declare_settings, read_sections, unknown_parameters
from llmseg_ros.ros.point_cloud import voxels_to_cloud
from llmseg_ros.ros.transport import choose_settings
from llmseg_ros.settings import ConfigError, build_section
from llmseg_ros.system.frame_statistics import FrameStatistics
from llmseg_ros.system.memory import process_memory_mib

WAITING = 10  # clouds at most that wait for their poses
LOG_EVERY_S = 10.0
PERIOD_S = 1.0  # of diagnostics
REST = 3  # times as long as it took, before the map is sent again: clouds have their turn


class WaitingCloud(NamedTuple):
    """A cloud, and when it came by a steady clock in seconds."""

    message: PointCloud2
    came: float


class MapNode(Node):  # type: ignore[misc]
    """Put what comes in on `points` into a map that is sent on `~/map`."""

    def __init__(self, interrupt: Interrupt | None = None, **options: Any) -> None:
        """Declare parameters, subscribe and advertise; a view is added whole before an interrupt.

        Raises:
            ConfigError: a parameter given can't be used.
            WriteError: `map.file` can't be written.
        """
        super().__init__('semantic_map', **options)
        declare_settings(self, MAP_FIELDS)
        for name in unknown_parameters(self):
            self.get_logger().warning(f'there is no parameter {name!r}: what is given is not used')
        self._config = read_map_config(self)
        if self._config.file:
            check_file(Path(self._config.file))
        self._voxels = VoxelMap(self._config.voxel, self._config.limit)
        self._interrupt = interrupt or Interrupt()
        self._counts = FrameStatistics()
        self._waiting: deque[WaitingCloud] = deque()
        self._classes: dict[int, ClassInfo] = {}
        self._renamed = ''  # why labels no longer mean what they did
        self._header = Header()  # of the map: frame, and stamp of the newest cloud in it
        self._problem = ''
        self._began = time.monotonic()
        self._sent_views: dict[str, int] = {}
        self._rest_until = 0.0
        self._poses = self._make_poses()
        self._clouds = ImageSubscription(
            self, PointCloud2, self.resolve_topic_name('points'), self._take, depth=WAITING
        )
        self.create_subscription(
            LabelMap, 'label_map', self._take_names, qos.LATCHED, event_callbacks=qos.SILENT
        )
        create = partial(self.create_publisher, event_callbacks=qos.SILENT_PUBLISHER)
        self._map = create(PointCloud2, '~/map', qos.LATCHED)
        self._markers = create(MarkerArray, '~/boxes', qos.LATCHED)
        self._detections: Any = None
        if importlib.util.find_spec('vision_msgs') is not None:
            from vision_msgs.msg import Detection3DArray

            self._detections = create(Detection3DArray, '~/objects', qos.LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1 / self._config.rate, self._send, clock=steady)
        self.create_timer(PERIOD_S, self._look_after, clock=steady)
        self.add_on_set_parameters_callback(self._check_parameters)
        call_after_set_parameters(self, self._apply_parameters)
        self.get_logger().info(f'listening to {self._clouds.topic}, poses from {self._source}')

    def write(self) -> bool:
        """Write the map to `map.file`, where that is given and there is something in it.

        What its labels mean is in a file beside it, which ends in _classes.json.

        Returns:
            False where it could not be written.
        """
        if not self._config.file or not len(self._voxels):
            return True
        from llmseg_ros.reports.map_report import class_list

        path, voxels = Path(self._config.file), self._voxels.voxels()
        beside = path.with_name(f'{path.stem}_classes.json')
        classes = sorted(self._classes.values(), key=lambda item: item.id)
        listed = class_list(classes, voxels, self._voxels.voxel_m, self._poses.world)
        try:
            write_ply(path, voxels, beside.name)
            write_json(beside, listed)
            self.get_logger().info(f'the map is in {path}, what its labels mean in {beside}')
        except WriteError as error:
            self.get_logger().error(f'the map is not written: {error}')
            return False
        return True

    def _make_poses(self) -> CloudPoses:
        wanted = self._config.poses
        if wanted == 'tf' and not has_tf():
            raise ConfigError(
                'map.poses is tf, which needs tf2_ros: apt install ros-$ROS_DISTRO-tf2-ros'
            )
        if wanted == 'tf' or (wanted == 'auto' and has_tf()):
            self._source = '/tf'
            return TfPoses(self, self._config.frame)
        found = OdometryPoses(self, lambda: self._config.camera_in_base, self._work)
        self._source = found.topic
        return found

    def _take_names(self, message: LabelMap) -> None:
        # Ids are append-only: classes of former lists are still in the map.
        self._renamed = ''
        for item in message.classes:
            known = self._classes.get(item.id, item)
            if name_key(known.name) != name_key(item.name):
                self._renamed = (
                    f'the label {item.id} was {known.name!a} and is now {item.name!a}: the '
                    'segmentation node began anew with other classes, so has this node to'
                )
                self.get_logger().error(self._renamed)
                return
        self._classes.update({item.id: item for item in message.classes})

    def _take(self, message: PointCloud2) -> None:
        self._counts.count('received')
        self._waiting.append(WaitingCloud(message, time.monotonic()))
        self._work()
        if len(self._waiting) > WAITING:
            self._waiting.popleft()
            self._lose('too many clouds wait for their poses')

    def _work(self) -> None:
        """Put the clouds into the map whose poses are there."""
        while self._waiting:
            cloud = self._waiting[0]
            try:
                pose = self._pose(cloud)
            except (NoPose, GeometryError) as error:
                self._waiting.popleft()
                self._lose(str(error))
                continue
            if pose is None:
                return
            self._waiting.popleft()
            try:
                self._add(cloud.message, pose)
            except GeometryError as error:
                self._counts.count('rejected')
                self._tell(f'{self._clouds.topic}: cloud rejected: {error}')

    def _pose(self, cloud: WaitingCloud) -> Matrix | None:
        pose = self._poses.find(cloud.message.header)
        if pose is None and time.monotonic() - cloud.came > self._config.pose_wait:
            reason = self._poses.reason
            raise NoPose(f'no pose from {self._source} for its time{reason and f": {reason}"}')
        return pose

    def _add(self, message: PointCloud2, pose: Matrix) -> None:
        if self._renamed:
            raise GeometryError(self._renamed)
        begin = time.perf_counter()
        points, rgb, labels, confidence = read_cloud(message)
        near = points[..., 2] <= self._config.farthest
        if not near.all():
            points = np.where(near[..., None], points, np.float32(np.nan))
        with self._interrupt.held():
            self._voxels.add(points, labels, confidence, rgb, pose)
        self._header = Header(stamp=message.header.stamp, frame_id=self._poses.world)
        self._counts.add_result({'map': 1000 * (time.perf_counter() - begin)})

    def _lose(self, reason: str) -> None:
        self._counts.count('failed')
        self._tell(f'a cloud is lost: {reason}')

    def _tell(self, problem: str) -> None:
        self._problem = problem
        self.get_logger().warning(problem, throttle_duration_sec=LOG_EVERY_S)

    def _send(self) -> None:
        """Send what has subscribers and has changed."""
        wanted = {
            name: publisher
            for name, publisher in (
                ('map', self._map),
                ('boxes', self._markers),
                ('objects', self._detections),
            )
            if publisher is not None
            and publisher.get_subscription_count()
            and self._sent_views.get(name) != self._voxels.views
        }
        begin = time.monotonic()
        if not wanted or not len(self._voxels) or begin < self._rest_until:
            return
        voxels = seen_often(self._voxels.voxels(), self._config.least_views)
        if 'map' in wanted:
            self._map.publish(voxels_to_cloud(voxels, self._header))
        if wanted.keys() & {'boxes', 'objects'}:
            objects = find_objects(voxels, self._config.voxel, self._config.least_voxels)
            names = {number: item.name for number, item in self._classes.items()}
            if 'boxes' in wanted:
                self._markers.publish(objects_to_markers(objects, names, self._header))
            if 'objects' in wanted:
                found = objects_to_detections(objects, names, self._header)
                self._detections.publish(found)
        self._sent_views.update(dict.fromkeys(wanted, self._voxels.views))
        took_s = time.monotonic() - begin
        self._rest_until = begin + took_s * (1 + REST)
        self._counts.add_times({'send': 1000 * took_s})

    def _look_after(self) -> None:
        """Once a second: give up on poses that do not come, and tell how it goes."""
        if launcher_gone():
            self.get_logger().error('the launch that started this node is gone, so it ends')
            self.context.try_shutdown()
            return
        self._clouds.agree()
        self._work()
        level, sentence = self._judge()
        name = self.get_fully_qualified_name()
        message = DiagnosticArray(
            status=[status_message(name, '', level, sentence, self._values())]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _judge(self) -> tuple[bytes, str]:
        silent_s = min(self._counts.since('received'), time.monotonic() - self._began)
        if silent_s > SILENT_S:
            return STALE, f'no cloud on {self._clouds.topic} for {silent_s:.0f} s'
        if min(self._counts.since('failed'), self._counts.since('rejected')) < RECENT_S:
            return WARN, self._problem
        return OK, 'mapping'

    def _values(self) -> dict[str, object]:
        counts = self._counts
        values: dict[str, object] = {
            'clouds in': counts.received,
            'clouds in the map': counts.published,
            'clouds rejected': counts.rejected,
            'clouds without pose': counts.failed,
            'clouds waiting': len(self._waiting),
            'voxels': len(self._voxels),
            'voxels forgotten': self._voxels.forgotten,
        }
        if isinstance(self._poses, OdometryPoses):
            values['poses left out'] = self._poses.bad
        for stage, (median, p95) in counts.percentiles_ms().items():
            values[f'{stage} p50 ms'], values[f'{stage} p95 ms'] = median, p95
        values['memory MiB'] = process_memory_mib()
        values['frame'] = self._poses.world
        return values

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        try:
            read_map_config(self, changed)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        self._config = read_map_config(self)


def check_file(path: Path) -> None:
    """Check that a map can be written, before there is one.

    Raises:
        WriteError: it can't.
    """
    if path.is_dir():
        raise WriteError(f'map.file is {path}, which is a folder: name a file in it')
    prepare_folder(path.parent)


def seen_often(voxels: Voxels, least_views: int) -> Voxels:
    """Return the voxels that were seen in enough views."""
    if least_views <= 1:
        return voxels
    chosen = voxels.views >= least_views
    return voxels._replace(**{name: of[chosen] for name, of in voxels._asdict().items()})


def read_map_config(node: Node, changed: Sequence[Parameter] = ()) -> MapConfig:
    """Build the configuration from the parameters in force and those about to change.

    Raises:
        ConfigError: a value is not allowed.
    """
    values = read_sections(node, MAP_FIELDS, changed)['map']
    config = build_section(MapConfig, values, 'map')
    if len(config.camera_in_base) != 6 or not np.isfinite(config.camera_in_base).all():
        raise ConfigError(
            f'map.camera_in_base is {list(config.camera_in_base)}, expected x, y, z, roll, pitch '
            'and yaw'
        )
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; 1 where its parameters or the file can't be used."""
    interrupt = Interrupt()
    end_by(interrupt)
    try:
        choose_settings()
        initialize(arguments)
        node = MapNode(interrupt)
    except (ConfigError, InvalidParameterTypeException, WriteError) as error:
        print(f'semantic_map: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    end_by(signal.SIG_IGN)
    is_written = node.write()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if is_written else 1


if __name__ == '__main__':
    sys.exit(main())
