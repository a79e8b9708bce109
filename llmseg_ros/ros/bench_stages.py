"""The node's conversions and publishing, to be timed by `llmseg bench`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.formats.image_messages import image_to_rgb
from llmseg_ros.msg import ClassMaskArray
from llmseg_ros.ros import qos
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.results import ResultPublishers
from llmseg_ros.segmentation import Segmentation


class MessageStages:
    """Convert camera messages and publish results with the node's own parts."""

    def __init__(self, results: ResultPublishers) -> None:
        self._results = results

    def camera_message(self, rgb: NDArray[np.uint8]) -> Image:
        """Return an (H, W, 3) uint8 RGB frame as a bgr8 image, which most cameras send."""
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        return array_to_image(bgr, 'bgr8', Header(frame_id='camera'))

    def convert(self, message: Image) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB frame of a camera message."""
        return image_to_rgb(message)

    def publish(self, rgb: NDArray[np.uint8], result: Segmentation, header: Header) -> None:
        """Publish labels and masks."""
        self._results.publish(rgb, result, header, NodeConfig())


@contextmanager
def message_stages() -> Iterator[MessageStages]:
    """Give the stages, with a subscriber to labels and masks so that publishing has work to do."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode('llmseg_bench', context=context)
    listener = rclpy.create_node('llmseg_bench_listener', context=context)
    try:
        results = ResultPublishers(node)
        node.trigger_configure()
        node.trigger_activate()
        for message_type, topic in ((Image, 'labels'), (ClassMaskArray, 'masks')):
            topic = f'{node.get_name()}/{topic}'
            listener.create_subscription(message_type, topic, lambda _: None, qos.RESULTS)
        yield MessageStages(results)
    finally:
        listener.destroy_node()
        node.destroy_node()
        rclpy.shutdown(context=context)
