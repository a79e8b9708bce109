"""What depth makes of a result: points, and masks and depth for those who build maps."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from llmseg_ros.classes import BACKGROUND_ID, name_key
from llmseg_ros.formats.decoding import BadImage
from llmseg_ros.mapping.depth_messages import message_to_depth
from llmseg_ros.mapping.geometry import (
    Camera,
    Floats,
    GeometryError,
    camera_from_info,
    depth_to_points,
    fit_depth,
)
from llmseg_ros.ros import qos
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.depth_subscription import DepthSubscription, HeldDepth
from llmseg_ros.ros.diagnostics import RECENT_S
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.point_cloud import camera_to_info, points_to_cloud
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.system.frame_statistics import FrameStatistics

LOG_EVERY_S = 10.0


class NoDepth(Exception):
    """A frame has no depth that can be used; the message is one sentence that says why."""


class DepthResults:
    """Publish points, mask, depth and camera_info of frames, each with the frame's own header.

    Without `node.depth` there is none of them. A frame without depth costs its cloud, never its
    labels: those are published before.
    """

    def __init__(
        self,
        node: LifecycleNode,
        config: NodeConfig,
        counts: FrameStatistics,
        below: str = '~/',
    ) -> None:
        """Advertise the topics below a name; nothing is heard before `start`."""
        self._node = node
        self._config = config
        self._counts = counts
        self._subscription: DepthSubscription | None = None
        self._problem = ''
        self._cloud: PointCloud2 | None = None  # the last one, for the memory of the next
        self._all = []
        if not config.depth:
            return
        create = partial(node.create_lifecycle_publisher, event_callbacks=qos.SILENT_PUBLISHER)
        self._points = create(PointCloud2, f'{below}points', qos.CLOUDS)
        self._mask = create(Image, f'{below}mask', qos.CLOUDS)
        self._depth = create(Image, f'{below}depth', qos.CLOUDS)
        self._info = create(CameraInfo, f'{below}camera_info', qos.CLOUDS)
        self._all = [self._mask, self._points, self._depth, self._info]

    def wanted(self) -> bool:
        """Return whether anyone subscribes to any of them."""
        return any(publisher.get_subscription_count() for publisher in self._all)

    @property
    def problem(self) -> str:
        """Why frames of the last seconds have no cloud; empty where they have, or needn't."""
        recent = self._counts.since('without_depth') < RECENT_S
        return self._problem if recent and self.wanted() else ''

    def start(self) -> None:
        """Subscribe to the depth."""
        if self._config.depth and self._subscription is None:
            self._subscription = DepthSubscription(self._node, self._config)

    def stop(self) -> None:
        """Unsubscribe from the depth."""
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None

    def agree(self) -> None:
        """Be as reliable as the publishers of depth are."""
        if self._subscription is not None:
            self._subscription.agree()

    def hold(self, header: Header, slop_s: float) -> HeldDepth | None:
        """Return the depth for a frame that is taken; None where nobody wants what it makes."""
        if self._subscription is None or not self.wanted():
            return None
        return self._subscription.hold(header, slop_s)

    def destroy(self) -> None:
        """Withdraw the topics."""
        self.stop()
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(
        self,
        rgb: NDArray[np.uint8],
        segmentation: Segmentation,
        header: Header,
        held: HeldDepth | None,
        config: NodeConfig,
    ) -> None:
        """Publish what is subscribed to; a frame without depth is counted, and the log says why."""
        if held is None:
            return
        try:
            self._publish(rgb, segmentation, header, held, config)
            self._counts.count('clouds')
        except (NoDepth, GeometryError, BadImage) as error:
            self._problem = f'frames without points: {held.topic}: {error}'
            self._counts.count('without_depth')
            self._node.get_logger().warning(self._problem, throttle_duration_sec=LOG_EVERY_S)

    def _publish(
        self,
        rgb: NDArray[np.uint8],
        segmentation: Segmentation,
        header: Header,
        held: HeldDepth,
        config: NodeConfig,
    ) -> None:
        height, width = segmentation.labels.shape
        if missing := names_not_listed(segmentation, config.mask_classes):
            self._node.get_logger().warning(
                f'node.mask_classes: not in the class list, so never masked: {", ".join(missing)}',
                throttle_duration_sec=LOG_EVERY_S,
            )
        if self._mask.get_subscription_count():
            mask = class_mask(segmentation, config.mask_classes)
            self._mask.publish(array_to_image(mask, 'mono8', header))
        wanted = [publisher.get_subscription_count() > 0 for publisher in self._all[1:]]
        points_wanted, depth_wanted, info_wanted = wanted
        if info_wanted:
            self._info.publish(camera_to_info(self._camera(held, width, height), header))
        if not (points_wanted or depth_wanted):
            return
        depth = self._depth_of(held, header, width, height)
        if depth_wanted:
            visible = depth
            if config.mask_depth:
                mask = class_mask(segmentation, config.mask_classes)
                visible = np.where(mask, np.float32(np.nan), depth)
            self._depth.publish(array_to_image(visible, '32FC1', header))
        if points_wanted:
            points = depth_to_points(depth, self._camera(held, width, height))
            self._cloud = points_to_cloud(points, rgb, segmentation, header, self._cloud)
            self._points.publish(self._cloud)

    def _camera(self, held: HeldDepth, width: int, height: int) -> Camera:
        if held.info is None:
            raise NoDepth(f'no camera_info on {held.info_topic}')
        return camera_from_info(held.info, held.topic).scaled(width, height)

    def _depth_of(self, held: HeldDepth, header: Header, width: int, height: int) -> Floats:
        """Return the depth of a frame in the size of its labels, (H, W) metres."""
        if held.depth is None and not self._node.count_publishers(held.topic):
            raise NoDepth('nobody publishes it')
        if held.depth is None:
            raise NoDepth(f'no depth within {held.slop_ns / 1e9:g} s of the frame')
        if held.depth.header.frame_id != header.frame_id:
            raise NoDepth(
                f'the depth is in the frame {held.depth.header.frame_id!a}, the image in '
                f'{header.frame_id!a}: choose depth that is registered to the image'
            )
        return fit_depth(message_to_depth(held.depth), width, height)


def names_not_listed(segmentation: Segmentation, names: str) -> list[str]:
    """Return those of the names, separated by commas, that no class of the list has."""
    keys = {name_key(of.name) for of in segmentation.classes}
    return [
        name.strip() for name in names.split(',') if name.strip() and name_key(name) not in keys
    ]


def class_mask(segmentation: Segmentation, names: str) -> NDArray[np.uint8]:
    """Return the (H, W) mask, 255 inside, of classes separated by commas; of every one for ''."""
    if not names.strip():
        return np.where(segmentation.labels != BACKGROUND_ID, np.uint8(255), np.uint8(0))
    keys = {name_key(name) for name in names.split(',')}
    inside = np.zeros(1 << 16, np.uint8)
    inside[[found.id for found in segmentation.found if name_key(found.name) in keys]] = 255
    return np.take(inside, segmentation.labels)
