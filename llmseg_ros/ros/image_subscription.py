"""Subscriptions to images and clouds: as reliable as their publishers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.ros import qos
from llmseg_ros.ros.parameters import NodeConfig

COMPRESSED = '/compressed'


class ImageSubscription:
    """Hear images, or what else is large.

    With the reliability `auto` reliably until a publisher is seen that isn't: over Fast DDS's
    default transports frames arrive whole only where what was lost is sent again.

    Attributes:
        topic: full name of what is heard.
        kind: message type of it.
    """

    def __init__(
        self,
        node: Node,
        kind: type[Any],
        topic: str,
        take: Callable[[Any], None],
        reliability: str = 'auto',
        depth: int = 1,
    ) -> None:
        """Subscribe; `take` gets every message, of which `depth` may wait."""
        self.kind = kind
        self.topic = topic
        self._node, self._take = node, take
        self._asked_for, self._depth = reliability, depth
        self._subscription: Any = None
        self._reliability = ''
        self.agree()

    def agree(self) -> None:
        """Be reliable where all publishers are; anew where that has changed."""
        wanted = self._asked_for
        if wanted == 'auto':
            offered = {
                end.qos_profile.reliability
                for end in self._node.get_publishers_info_by_topic(self.topic)
            }
            wanted = 'best_effort' if ReliabilityPolicy.BEST_EFFORT in offered else 'reliable'
        if wanted == self._reliability:
            return
        self.destroy()
        self._reliability = wanted
        # Told by an event, a publisher that is not reliable is heard before its next frame.
        self._subscription = self._node.create_subscription(
            self.kind,
            self.topic,
            self._take,
            qos.image_profile(wanted, self._depth),
            event_callbacks=qos.telling_incompatible(lambda _: self.agree()),
        )

    def destroy(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None


def image_name(camera: str) -> str:
    """Return the name of a camera's topic, before it is remapped; without a name the only one's."""
    return f'~/{camera}/image' if camera else 'image'


def subscribe_to_camera(
    node: Node,
    config: NodeConfig,
    take: Callable[[Image | CompressedImage], None],
    camera: str = '',
) -> ImageSubscription:
    """Hear a camera, by its name where it has one, raw or compressed."""
    compressed = config.image_transport == 'compressed'
    return ImageSubscription(
        node,
        CompressedImage if compressed else Image,
        node.resolve_topic_name(image_name(camera)) + (COMPRESSED if compressed else ''),
        take,
        config.image_reliability,
        config.image_depth,
    )
