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

from llmseg_ros.class_rules import FIELDS, Given
from llmseg_ros.classes import BACKGROUND_ID, name_key
from llmseg_ros.msg import ClassInfo, ClassMask, ClassMaskArray, ClassRule, LabelMap
from llmseg_ros.segmentation import Segmentation

if TYPE_CHECKING:
    from vision_msgs.msg import LabelInfo

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


def confidence_to_image(confidence: NDArray[np.float32], header: Header) -> Image:
    """Make a mono8 image of (H, W) probabilities, 255 for 1."""
    return array_to_image(cv2.convertScaleAbs(confidence, alpha=255.0), 'mono8', header)


def segmentation_to_masks(segmentation: Segmentation, header: Header) -> ClassMaskArray:
    """Make a message of the masks of all classes found, largest first, each cropped to its box."""
    height, width = segmentation.labels.shape
    masks = ClassMaskArray(
        header=header, label_version=segmentation.version, height=height, width=width
    )
    for found in segmentation.found:
        x, y, box_width, box_height = found.box
        labels = segmentation.labels[y : y + box_height, x : x + box_width]
        mask = cv2.compare(labels, found.id, cv2.CMP_EQ)
        masks.masks.append(
            ClassMask(
                class_id=found.id,
                class_name=found.name,
                score=float(found.score),
                area=int(found.area),
                roi=RegionOfInterest(x_offset=x, y_offset=y, width=box_width, height=box_height),
                mask=array_to_image(mask, 'mono8', header),
            )
        )
    return masks


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
    rules = [
        ClassRule(
            name=item.name,
            minimum_score=rule.minimum_score,
            minimum_area=rule.minimum_area,
            also=list(rule.also),
            never=list(rule.never),
        )
        for item in vocabulary.classes
        if (rule := vocabulary.rules.get(name_key(item.name)))
    ]
    return LabelMap(header=header, version=vocabulary.version, classes=classes, rules=rules)


def given_rules(messages: Sequence[ClassRule]) -> Given:
    """Return the rules of messages as people write them, to be checked."""
    return [(one.name, {part: getattr(one, part) for part in FIELDS}) for one in messages]


def label_map_to_label_info(label_map: LabelMap) -> LabelInfo:
    """Make the vision_msgs form of a label map, background included."""
    from vision_msgs.msg import LabelInfo, VisionClass

    classes = [VisionClass(class_id=BACKGROUND_ID, class_name='background')]
    classes += [VisionClass(class_id=item.id, class_name=item.name) for item in label_map.classes]
    return LabelInfo(header=label_map.header, class_map=classes)
