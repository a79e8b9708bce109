"""The service ~/segment: one image, asked for once, between two frames of the stream."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.formats.decoding import extent
from llmseg_ros.formats.image_messages import BadImage, picture_to_rgb
from llmseg_ros.live.thresholds import describe_thresholds, with_threshold
from llmseg_ros.method.components import find_components
from llmseg_ros.msg import LabelMap
from llmseg_ros.ros.calls import CallQueue, Refused, late
from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.class_list import ClassListInterface
from llmseg_ros.ros.conversions import (
    confidence_to_image,
    given_rules,
    segmentation_to_labels,
    segmentation_to_masks,
    vocabulary_to_label_map,
)
from llmseg_ros.ros.describe_service import configured, describe_in_time
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.pipeline import FramePipeline
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.settings import ConfigError
from llmseg_ros.srv import SegmentImage
from llmseg_ros.vocabulary import Vocabulary

MOST_PIXELS = 1 << 24  # of an image in a call: the labels of more hold frames up for a second
AS_THE_NODE = -1.0  # of a threshold


class SegmentService:
    """Answer `~/segment`.

    Args:
        node: whose service it is.
        updates: the one thread that describes class lists.
        class_list: of the node.
        pipeline: returns the node's, None while it has none.
    """

    def __init__(
        self,
        node: Node,
        updates: ThreadPoolExecutor,
        class_list: ClassListInterface,
        pipeline: Callable[[], FramePipeline | None],
    ) -> None:
        self._node = node
        self._updates = updates
        self._class_list = class_list
        self._pipeline = pipeline
        self._queue = CallQueue(node, SegmentImage, '~/segment', self._answer)
        self.stop = self._queue.stop

    def _answer(self, request: SegmentImage.Request, deadline: float) -> SegmentImage.Response:
        begun = time.perf_counter()
        pipeline = configured(self._pipeline())
        segmenter = pipeline.segmenter
        thresholds_of(segmenter.config, request)  # refused before the work on image and names
        message = choose_image(request, pipeline.cameras)
        rgb = to_rgb(message, segmenter.config.images.sixteen_bit)
        converted = time.perf_counter()
        rules = given_rules(request.rules)
        own = describe_in_time(self._updates, segmenter, request.names, rules, deadline)
        own = own._replace(config=thresholds_of(own.config, request))
        described = time.perf_counter()
        turns: list[float] = []

        def segment() -> Segmentation:
            turns.append(time.perf_counter())
            return segmenter.segment(rgb, own=own)

        try:
            segmentation = pipeline.between_frames(segment, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise late() from None
        timings_ms = {
            'convert': 1000 * (converted - begun),
            'describe': 1000 * (described - converted),
            'wait': 1000 * (turns[0] - described),
            **segmentation.timings_ms,
        }
        response = self._respond(segmentation, message.header, own.vocabulary, pipeline.config)
        response.message = '; '.join(own.notes)
        response.stages = list(timings_ms)
        response.milliseconds = list(timings_ms.values())
        return response

    def _respond(
        self,
        segmentation: Segmentation,
        header: Header,
        vocabulary: Vocabulary,
        config: NodeConfig,
    ) -> SegmentImage.Response:
        now = Header(stamp=self._node.get_clock().now().to_msg())
        components = None
        if config.instances:
            components = find_components(segmentation, config.instance_area)
        return SegmentImage.Response(
            success=True,
            header=header,
            labels=segmentation_to_labels(segmentation, header, config.label_encoding),
            confidence=confidence_to_image(segmentation.confidence, header),
            masks=segmentation_to_masks(segmentation, header, components),
            label_map=label_map_of(vocabulary, self._class_list.label_map, now),
        )


def label_map_of(vocabulary: Vocabulary, in_force: LabelMap, now: Header) -> LabelMap:
    """Return the label map of a list: the one in force where it is that of the same version."""
    # While the node is being configured there is an empty one of version 0, as that of calls is.
    if vocabulary.version and vocabulary.version == in_force.version:
        return in_force
    return vocabulary_to_label_map(vocabulary, now)


def thresholds_of(config: SegmenterConfig, request: SegmentImage.Request) -> SegmenterConfig:
    """Return the settings of a call: the node's, with the thresholds that it has of its own.

    Raises:
        Refused: one is out of range, or of a stage that the node does without.
    """
    in_use = [threshold['name'] for threshold in describe_thresholds(config)]
    background = [name for name in in_use if name.startswith('background.')]
    wanted = {
        'gate.minimum': request.minimum,
        (background or ['background.threshold'])[0]: request.background,
    }
    try:
        for name, value in wanted.items():
            if value != AS_THE_NODE:
                config = with_threshold(config, name, value)
    except ConfigError as error:
        raise Refused(str(error)) from error
    return config


def choose_image(
    request: SegmentImage.Request, cameras: Sequence[CameraStream]
) -> Image | CompressedImage:
    """Return the image that a call is about: the one in it, else the newest of a camera.

    Raises:
        Refused: there is none, or it is too large or too old.
    """
    image = request.image
    # A picture that came out empty is not answered by another one.
    if image.data or image.width or image.height or image.encoding:
        check_pixels(image.width, image.height)
        return image
    if request.compressed.data or request.compressed.format:
        with contextlib.suppress(BadImage):  # which is told when it is decoded
            check_pixels(*extent(bytes(request.compressed.data))[1:3])
        return request.compressed
    if not request.max_age >= 0:
        raise Refused(f'max_age is {request.max_age}, expected seconds from 0 on')
    return newest_frame(cameras, request.camera, request.max_age)


def check_pixels(width: int, height: int) -> None:
    """Refuse an image whose labels would hold up the stream.

    Raises:
        Refused: it is of more pixels than a call may have.
    """
    if width * height > MOST_PIXELS:
        raise Refused(
            f'{width} x {height} pixels are more than the {MOST_PIXELS} of a call: '
            'scale the image down, the encoder does so anyway'
        )


def newest_frame(
    cameras: Sequence[CameraStream], name: str, max_age_s: float
) -> Image | CompressedImage:
    """Return the newest frame of a camera.

    Raises:
        Refused: there is no such camera, or no frame of that age.
    """
    names = ', '.join(camera.name for camera in cameras)
    found = [camera for camera in cameras if camera.name == name]
    if not found and not name:
        raise Refused(f'the node has several cameras: name one of {names}, or send an image')
    if not found:
        others = f'its cameras are {names}' if names else 'its one camera has no name'
        raise Refused(f'there is no camera {name[:64]!a}: {others}')
    camera = found[0]
    message, age_s = camera.newest, camera.statistics.since('received')
    if message is None:
        raise Refused(
            f'there is no frame of {camera.topic}: it is heard while the node is active; '
            'or send an image'
        )
    if age_s > max_age_s:
        raise Refused(
            f'the newest frame of {camera.topic} came {age_s:.1f} s ago, max_age is {max_age_s:g} s'
        )
    return message


def to_rgb(message: Image | CompressedImage, sixteen_bit: str) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) uint8 RGB.

    Raises:
        Refused: it can't be used.
    """
    try:
        return picture_to_rgb(message, sixteen_bit)
    except BadImage as error:
        raise Refused(f'image rejected: {error}') from error
