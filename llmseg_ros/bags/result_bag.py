"""A new bag: the messages of the old one, and labels, masks, label map and cloud beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.frames import Frame
from llmseg_ros.bags.mcap_writing import McapBag, new_mcap_bag
from llmseg_ros.bags.reading import Bag, BagMessage
from llmseg_ros.bags.storage import BagError, Connection
from llmseg_ros.bags.topics import (
    IMAGE_TYPE,
    LABEL_MAP_TOPIC,
    LABELS_TOPIC,
    MASKS_TOPIC,
    NANOSECONDS,
    POINTS_TOPIC,
    POINTS_TYPE,
    message_types,
)
from llmseg_ros.bags.writing import complete_bag
from llmseg_ros.mapping.point_cloud2 import FIELDS, POINT_BYTES, pack_cloud
from llmseg_ros.segmentation import Segmentation
from llmseg_ros.vocabulary import Vocabulary

MASKS_TYPE = 'llmseg_ros/msg/ClassMaskArray'
LABEL_MAP_TYPE = 'llmseg_ros/msg/LabelMap'


class ResultBag:
    """Write messages as they were and results as the node would publish them."""

    def __init__(self, written: McapBag, bag: Bag, with_points: bool = False) -> None:
        """Announce all topics in the new bag, that of the labelled cloud where there will be one.

        Raises:
            BagError: the old bag is of ROS 1, or has results already.
        """
        if bag.is_ros1:
            raise BagError('--out takes bags of ROS 2: convert this one with rosbags-convert first')
        topics = {
            LABELS_TOPIC: IMAGE_TYPE,
            MASKS_TOPIC: MASKS_TYPE,
            LABEL_MAP_TOPIC: LABEL_MAP_TYPE,
            **({POINTS_TOPIC: POINTS_TYPE} if with_points else {}),
        }
        taken = {c.topic for c in bag.connections} & topics.keys()
        if taken:
            raise BagError(f'the bag has a topic {sorted(taken)[0]} already')
        self._written = written
        self._types = message_types()
        self._numbers = {c.id: written.add(self._described(c)) for c in bag.connections}
        self._results = {
            topic: written.add(self._described(Connection(0, topic, kind, 'cdr', 0)))
            for topic, kind in topics.items()
        }

    def _described(self, connection: Connection) -> Connection:
        """Return a connection with the definition of its type, where only the bag lacks it."""
        kind = connection.msgtype
        if connection.definition or connection.encoding != 'cdr' or kind not in self._types.types:
            return connection
        definition, _ = self._types.generate_msgdef(kind, ros_version=2)
        metadata = {**connection.metadata, 'topic_type_hash': self._types.hash_rihs01(kind)}
        return replace(
            connection,
            definition=definition.encode(),
            definition_encoding='ros2msg',
            metadata=metadata,
        )

    def write_message(self, message: BagMessage) -> None:
        """Write a message of the old bag."""
        self._written.write(self._numbers[message.connection.id], message.time, message.raw)

    def write_raw(self, topic: str, raw: bytes | memoryview, time: int) -> None:
        """Write a result as the node sent it."""
        self._written.write(self._results[topic], time, raw)

    def write_label_map(self, vocabulary: Vocabulary, time: int) -> None:
        """Write the class list in force."""
        info = self._types.types['llmseg_ros/msg/ClassInfo']
        classes = [
            info(c.id, c.name, [c.name, *c.subclasses], c.source, [*c.contrasts])
            for c in vocabulary.classes
        ]
        rule = self._types.types['llmseg_ros/msg/ClassRule']
        rules = [
            rule(name, own.minimum_score, own.minimum_area, [*own.also], [*own.never])
            for name, own in vocabulary.rules_by_name.items()
        ]
        label_map = self._types.types[LABEL_MAP_TYPE]
        message = label_map(
            header=self._header(time, ''),
            version=vocabulary.version,
            classes=classes,
            rules=rules,
        )
        self._write(LABEL_MAP_TOPIC, LABEL_MAP_TYPE, message, time)

    def write_result(self, frame: Frame, result: Segmentation, time: int) -> None:
        """Write labels and masks of a frame, with its stamp and frame id."""
        header = self._header(frame.stamp, frame.header.frame_id)
        narrow = len(result.classes) < 255
        labels = self._image(
            result.labels.astype(np.uint8 if narrow else np.uint16),
            'mono8' if narrow else 'mono16',
            header,
        )
        self._write(LABELS_TOPIC, IMAGE_TYPE, labels, time)
        self._write(MASKS_TOPIC, MASKS_TYPE, self._masks(result, header), time)

    def write_points(
        self, frame: Frame, result: Segmentation, points: NDArray[np.float32], time: int
    ) -> None:
        """Write the labelled cloud of a frame, organised like its image."""
        field = self._types.types['sensor_msgs/msg/PointField']
        data = pack_cloud(points, frame.rgb, result.labels, result.confidence)
        height, width = result.labels.shape
        message = self._types.types[POINTS_TYPE](
            header=self._header(frame.stamp, frame.header.frame_id),
            height=height,
            width=width,
            fields=[field(name=n, offset=o, datatype=kind, count=1) for n, o, kind in FIELDS],
            is_bigendian=False,
            point_step=POINT_BYTES,
            row_step=width * POINT_BYTES,
            data=data,
            is_dense=False,
        )
        self._write(POINTS_TOPIC, POINTS_TYPE, message, time)

    def _masks(self, result: Segmentation, header: Any) -> Any:
        mask_type = self._types.types['llmseg_ros/msg/ClassMask']
        roi = self._types.types['sensor_msgs/msg/RegionOfInterest']
        masks = []
        for found in result.found:
            x, y, width, height = found.box
            box = roi(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)
            masks.append(
                mask_type(
                    class_id=found.id,
                    class_name=found.name,
                    score=found.score,
                    area=found.area,
                    roi=box,
                    mask=self._image(result.mask_in_box(found), 'mono8', header),
                    instance=0,
                )
            )
        height, width = result.labels.shape
        array = self._types.types[MASKS_TYPE]
        return array(
            header=header, label_version=result.version, height=height, width=width, masks=masks
        )

    def _image(self, pixels: NDArray[Any], encoding: str, header: Any) -> Any:
        little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder('<'))
        return self._types.types[IMAGE_TYPE](
            header=header,
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.shape[1] * pixels.dtype.itemsize,
            data=little.reshape(-1).view(np.uint8),
        )

    def _header(self, stamp: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp, NANOSECONDS)
        time = self._types.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
        return self._types.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)

    def _write(self, topic: str, kind: str, message: Any, time: int) -> None:
        self.write_raw(topic, self._types.serialize_cdr(message, kind), time)


@contextmanager
def result_bag(path: Path, bag: Bag, with_points: bool = False) -> Iterator[ResultBag]:
    """Open a new bag for results; it has its name only once it is complete.

    Raises:
        BagError: the name is taken, the old bag can't be copied, or the disk is full.
    """
    try:
        with complete_bag(path) as partial, new_mcap_bag(partial) as written:
            yield ResultBag(written, bag, with_points)
    except OSError as error:
        raise BagError(f'{path} can not be written: {error.strerror or error}') from error
