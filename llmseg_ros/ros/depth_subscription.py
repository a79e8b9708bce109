"""Depth images and camera_info, matched to frames by stamp."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.mapping.depth_messages import COMPRESSED_DEPTH, info_beside
from llmseg_ros.ros import qos
from llmseg_ros.ros.image_subscription import ImageSubscription
from llmseg_ros.ros.parameters import NodeConfig

KEPT = 10  # messages of a topic, for frames that come after their depth


class HeldDepth:
    """The best depth so far for one frame, and its camera.

    A frame is often there before its depth: what comes while the frame is worked on still counts.

    Attributes:
        topic, info_topic: it comes from.
        slop_ns: between a frame and its depth at most.
        depth, info: messages; None where there is none.
    """

    def __init__(self, stamp: int, slop_ns: int, topic: str = '', info_topic: str = '') -> None:
        self.topic = topic
        self.info_topic = info_topic
        self.slop_ns = slop_ns
        self.depth: Image | CompressedImage | None = None
        self.info: CameraInfo | None = None
        self._stamp = stamp
        self._errors: dict[str, int] = {}

    def offer(self, message: Any) -> None:
        """Take a message where it is nearer in time than the one before."""
        error = abs(stamp_ns(message.header) - self._stamp)
        # A camera seldom changes: of camera_info any is better than none.
        kind = 'info' if isinstance(message, CameraInfo) else 'depth'
        if kind == 'depth' and error > self.slop_ns:
            return
        if error < self._errors.get(kind, error + 1):
            self._errors[kind] = error
            setattr(self, kind, message)


class DepthSubscription:
    """Hear depth and camera_info, and keep for every frame what belongs to it.

    Attributes:
        topic: full name of the depth.
        info_topic: full name of its camera_info.
    """

    def __init__(self, node: Node, config: NodeConfig) -> None:
        """Subscribe to what `config.depth` names."""
        self._node = node
        self.topic: str = node.resolve_topic_name(config.depth)
        self.info_topic: str = node.resolve_topic_name(config.depth_info or info_beside(self.topic))
        kind = CompressedImage if self.topic.endswith(COMPRESSED_DEPTH) else Image
        self._depths: deque[Any] = deque(maxlen=KEPT)
        self._infos: deque[Any] = deque(maxlen=KEPT)
        # A frame that is dropped lets go of its depth by itself.
        self._held: weakref.WeakSet[HeldDepth] = weakref.WeakSet()
        self._images = ImageSubscription(node, kind, self.topic, self._take_depth)
        self._info = node.create_subscription(
            CameraInfo, self.info_topic, self._take_info, qos.PICTURES, event_callbacks=qos.SILENT
        )

    def hold(self, header: Header, slop_s: float) -> HeldDepth:
        """Return what there is for a frame; it is added to as long as the frame keeps it."""
        held = HeldDepth(stamp_ns(header), round(1e9 * slop_s), self.topic, self.info_topic)
        for message in (*self._depths, *self._infos):
            held.offer(message)
        self._held.add(held)
        return held

    def agree(self) -> None:
        """Be as reliable as the publishers of depth are."""
        self._images.agree()

    def destroy(self) -> None:
        """Unsubscribe."""
        self._images.destroy()
        self._node.destroy_subscription(self._info)

    def _take_depth(self, message: Image | CompressedImage) -> None:
        self._depths.append(message)
        self._offer(message)

    def _take_info(self, message: CameraInfo) -> None:
        self._infos.append(message)
        self._offer(message)

    def _offer(self, message: Any) -> None:
        for held in self._held:
            held.offer(message)


def stamp_ns(header: Header) -> int:
    """Return the stamp of a header in nanoseconds."""
    return int(Time.from_msg(header.stamp).nanoseconds)
