"""Publishers of what a frame led to."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.candidates import Found
from llmseg_ros.msg import ClassMaskArray, PatchFeatures
from llmseg_ros.ros import qos
from llmseg_ros.ros.conversions import (
    array_to_image,
    confidence_to_image,
    label_encoding,
    labels_to_image,
    segmentation_to_masks,
)
from llmseg_ros.ros.features import found_to_features
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.visualize import overlay


class ResultPublishers:
    """Publish labels, masks, confidence, overlay and features, each with the frame's own header.

    What nobody subscribes to is not computed.
    """

    def __init__(self, node: LifecycleNode, below: str = '~/') -> None:
        """Advertise the topics below a name; they stay silent until the node is active."""
        self._node = node
        create = partial(node.create_lifecycle_publisher, event_callbacks=qos.SILENT_PUBLISHER)
        self._labels = create(Image, f'{below}labels', qos.RESULTS)
        self._masks = create(ClassMaskArray, f'{below}masks', qos.RESULTS)
        self._confidence = create(Image, f'{below}confidence', qos.PICTURES)
        self._overlay = create(Image, f'{below}overlay', qos.PICTURES)
        self._features = create(PatchFeatures, f'{below}features', qos.CLOUDS)
        self._all = (self._labels, self._masks, self._confidence, self._overlay, self._features)

    def wanted(self) -> bool:
        """Return whether anyone subscribes to any result."""
        return any(publisher.get_subscription_count() for publisher in self._all)

    def publish(
        self, rgb: NDArray[np.uint8], segmentation: Segmentation, header: Header, encoding: str
    ) -> None:
        """Publish the segmentation of an (H, W, 3) image; for `encoding` see `label_encoding`."""
        if self._labels.get_subscription_count():
            highest = max((result.id for result in segmentation.classes), default=0)
            encoding = label_encoding(encoding, highest)
            self._labels.publish(labels_to_image(segmentation.labels, encoding, header))
        if self._masks.get_subscription_count():
            self._masks.publish(segmentation_to_masks(segmentation, header))
        if self._confidence.get_subscription_count():
            self._confidence.publish(confidence_to_image(segmentation.confidence, header))
        if self._overlay.get_subscription_count():
            picture = overlay(rgb, segmentation.labels)
            self._overlay.publish(array_to_image(picture, 'rgb8', header))

    def publish_features(self, found: Found, header: Header) -> None:
        """Publish the patches that the classes of an image were compared with."""
        if self._features.get_subscription_count():
            self._features.publish(found_to_features(found, header))

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)
