"""Publishers of what a frame led to."""

from __future__ import annotations

import importlib.util
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llmseg_ros.candidates import Found
from llmseg_ros.method.components import Component, find_components
from llmseg_ros.msg import ClassMaskArray, PatchFeatures
from llmseg_ros.ros import qos
from llmseg_ros.ros.conversions import (
    array_to_image,
    components_to_detections,
    confidence_to_image,
    segmentation_to_labels,
    segmentation_to_masks,
)
from llmseg_ros.ros.features import found_to_features
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.visualize import overlay


class ResultPublishers:
    """Publish labels, masks, detections, confidence, overlay and features, by the frame's header.

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
        self._of_labels = [self._labels, self._masks, self._confidence, self._overlay]
        self._detections = None
        if importlib.util.find_spec('vision_msgs') is not None:
            from vision_msgs.msg import Detection2DArray

            self._detections = create(Detection2DArray, f'{below}detections', qos.RESULTS)
            self._of_labels.append(self._detections)

    def wanted(self) -> bool:
        """Return whether anyone subscribes to any result."""
        return self.labels_wanted() or self._features.get_subscription_count() > 0

    def labels_wanted(self) -> bool:
        """Return whether anyone subscribes to what is made of labels."""
        return any(publisher.get_subscription_count() for publisher in self._of_labels)

    def publish(
        self, rgb: NDArray[np.uint8], segmentation: Segmentation, header: Header, config: NodeConfig
    ) -> None:
        """Publish the segmentation of an (H, W, 3) image."""
        if self._labels.get_subscription_count():
            labels = segmentation_to_labels(segmentation, header, config.label_encoding)
            self._labels.publish(labels)
        self._publish_masks(segmentation, header, config)
        if self._confidence.get_subscription_count():
            self._confidence.publish(confidence_to_image(segmentation.confidence, header))
        if self._overlay.get_subscription_count():
            picture = overlay(rgb, segmentation.labels)
            self._overlay.publish(array_to_image(picture, 'rgb8', header))

    def _publish_masks(
        self, segmentation: Segmentation, header: Header, config: NodeConfig
    ) -> None:
        """Publish masks and detections; both are of the same components, which are found once."""
        masks = self._masks.get_subscription_count() > 0
        boxes = self._detections
        detections = boxes is not None and boxes.get_subscription_count() > 0
        components: tuple[Component, ...] = ()
        if detections or (masks and config.instances):
            components = find_components(segmentation, config.instance_area)
        if masks:
            instances = components if config.instances else None
            self._masks.publish(segmentation_to_masks(segmentation, header, instances))
        if boxes is not None and detections:
            boxes.publish(components_to_detections(components, header))

    def publish_features(self, found: Found, header: Header) -> None:
        """Publish the patches that the classes of an image were compared with."""
        if self._features.get_subscription_count():
            self._features.publish(found_to_features(found, header))

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in (*self._of_labels, self._features):
            self._node.destroy_lifecycle_publisher(publisher)
