"""Arrays and results to ROS messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from llmseg_ros.class_rules import FIELDS, Given, Rules
from llmseg_ros.classes import BACKGROUND_ID
from llmseg_ros.method.components import Component
from llmseg_ros.msg import ClassInfo, ClassMask, ClassMaskArray, ClassRule, LabelMap
from llmseg_ros.segmentation import ClassResult, Segmentation

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2DArray, LabelInfo

    from llmseg_ros.vocabulary import Vocabulary

MONO8_MAX_ID = 254  # 255 is "unlabelled"


def array_to_image(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Make an image message of an (H, W) or (H, W, C) array in this machine's byte order."""
    message = Image(header=header, encoding=encoding)
    message.height, message.width = pixels.shape[:2]
    message.step = pixels[:1].nbytes
    message.is_bigendian = int(pixels.itemsize > 1 and sys.byteorder == 'big')
    # One copy; what is assigned to `data` is copied once more, or walked number by number.
    message.data.frombytes(np.ascontiguousarray(pixels).view(np.uint8))
    return message


def label_encoding(wanted: str, highest_id: int) -> str:
    """Return the encoding of a label image: `wanted`, or with 'auto' the smallest that fits."""
    if wanted != 'auto':
        return wanted
    return 'mono8' if highest_id <= MONO8_MAX_ID else 'mono16'


def labels_to_image(labels: NDArray[np.uint16], encoding: str, header: Header) -> Image:
    """Make a label image of (H, W) labels: mono8, mono16 or 16SC1, whose bits are the same."""
    dtype = {'mono8': np.uint8, 'mono16': np.uint16, '16SC1': np.int16}[encoding]
    return array_to_image(labels.astype(dtype, copy=False), encoding, header)


def segmentation_to_labels(segmentation: Segmentation, header: Header, wanted: str) -> Image:
    """Make a label image of a segmentation; for `wanted` see `label_encoding`."""
    highest = max((result.id for result in segmentation.classes), default=0)
    return labels_to_image(segmentation.labels, label_encoding(wanted, highest), header)


def confidence_to_image(confidence: NDArray[np.float32], header: Header) -> Image:
    """Make a mono8 image of (H, W) probabilities, 255 for 1."""
    return array_to_image(cv2.convertScaleAbs(confidence, alpha=255.0), 'mono8', header)


def segmentation_to_masks(
    segmentation: Segmentation, header: Header, components: Sequence[Component] | None = None
) -> ClassMaskArray:
    """Make a message of the masks of all classes found, or of their components where given.

    The largest comes first, each is cropped to its box.
    """
    height, width = segmentation.labels.shape
    masks = ClassMaskArray(
        header=header, label_version=segmentation.version, height=height, width=width
    )
    if components is not None:
        masks.masks = [
            to_class_mask(one.of, one.area, one.box, one.mask, header, one.number)
            for one in components
        ]
        return masks
    for found in segmentation.found:
        mask = segmentation.mask_in_box(found)
        masks.masks.append(to_class_mask(found, found.area, found.box, mask, header))
    return masks


def to_class_mask(
    of: ClassResult,
    area: int,
    box: tuple[int, int, int, int],
    mask: NDArray[np.uint8],
    header: Header,
    instance: int = 0,
) -> ClassMask:
    """Make a message of a mask of a class, (height, width) as its box; of all pixels for 0."""
    x, y, width, height = box
    return ClassMask(
        class_id=of.id,
        class_name=of.name,
        score=float(of.score),
        area=int(area),
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        mask=array_to_image(mask, 'mono8', header),
        instance=instance,
    )


def components_to_detections(components: Sequence[Component], header: Header) -> Detection2DArray:
    """Make the vision_msgs form of components; class_id is the name, the score their confidence.

    A box spans its pixels from edge to edge: one of a single pixel at 0, 0 has its centre at 0.5,
    0.5 and size 1.
    """
    from vision_msgs.msg import (
        BoundingBox2D,
        Detection2D,
        Detection2DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
    )

    detections = []
    for one in components:
        x, y, width, height = map(float, one.box)
        box = BoundingBox2D(size_x=width, size_y=height)
        box.center.position.x, box.center.position.y = x + width / 2, y + height / 2
        hypothesis = ObjectHypothesis(class_id=one.of.name, score=one.confidence)
        result = ObjectHypothesisWithPose(hypothesis=hypothesis)
        detections.append(
            Detection2D(header=header, results=[result], bbox=box, id=str(one.number))
        )
    return Detection2DArray(header=header, detections=detections)


def vocabulary_to_label_map(vocabulary: Vocabulary, header: Header) -> LabelMap:
    """Make a message of the class list in force."""
    classes = [
        ClassInfo(
            id=item.id,
            name=item.name,
            subclasses=[item.name, *item.subclasses],
            source=item.source,
            contrasts=list(item.contrasts),
        )
        for item in vocabulary.classes
    ]
    rules = rules_to_messages(vocabulary.rules_by_name)
    return LabelMap(header=header, version=vocabulary.version, classes=classes, rules=rules)


def rules_to_messages(rules: Rules) -> list[ClassRule]:
    """Make messages of rules by the name of their class."""
    return [
        ClassRule(
            name=name,
            minimum_score=rule.minimum_score,
            minimum_area=rule.minimum_area,
            also=list(rule.also),
            never=list(rule.never),
        )
        for name, rule in rules.items()
    ]


def given_rules(messages: Sequence[ClassRule]) -> Given:
    """Return the rules of messages as people write them, to be checked."""
    return [(one.name, {part: getattr(one, part) for part in FIELDS}) for one in messages]


def label_map_to_label_info(label_map: LabelMap) -> LabelInfo:
    """Make the vision_msgs form of a label map, background included."""
    from vision_msgs.msg import LabelInfo, VisionClass

    classes = [VisionClass(class_id=BACKGROUND_ID, class_name='background')]
    classes += [VisionClass(class_id=item.id, class_name=item.name) for item in label_map.classes]
    return LabelInfo(header=label_map.header, class_map=classes)
