"""Objects of a map as ROS messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point, Pose, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from llmseg_ros.mapping.objects import MapObject
from llmseg_ros.visualize import palette

if TYPE_CHECKING:
    from vision_msgs.msg import Detection3DArray

OPACITY = 0.4
TEXT_M = 0.12  # height of letters


def objects_to_markers(
    objects: Iterable[MapObject], names: Mapping[int, str], header: Header
) -> MarkerArray:
    """Make a box and a line of text for each object, in the place of all those of before."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for number, found in enumerate(objects):
        red, green, blue = (palette(found.label + 1)[found.label] / 255).tolist()
        box = Marker(header=header, ns='boxes', id=number, type=Marker.CUBE, action=Marker.ADD)
        box.pose = Pose(position=Point(**by_axis(found.centre)))
        box.scale = Vector3(**by_axis(found.size))
        box.color = ColorRGBA(r=red, g=green, b=blue, a=OPACITY)
        text = Marker(header=header, ns='names', id=number, action=Marker.ADD)
        text.type = Marker.TEXT_VIEW_FACING
        above = found.centre + np.array([0, 0, found.size[2] / 2 + TEXT_M])
        text.pose = Pose(position=Point(**by_axis(above)))
        text.scale.z = TEXT_M
        text.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        text.text = f'{names.get(found.label, found.label)} {found.probability:.2f}'
        markers += [box, text]
    return MarkerArray(markers=markers)


def objects_to_detections(
    objects: Iterable[MapObject], names: Mapping[int, str], header: Header
) -> Detection3DArray:
    """Make the vision_msgs form of objects; class_id is the name of the class."""
    from vision_msgs.msg import (
        BoundingBox3D,
        Detection3D,
        Detection3DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
    )

    detections = []
    for number, found in enumerate(objects):
        pose = Pose(position=Point(**by_axis(found.centre)))
        name = names.get(found.label, str(found.label))
        result = ObjectHypothesisWithPose(
            hypothesis=ObjectHypothesis(class_id=name, score=found.probability)
        )
        result.pose.pose = pose
        box = BoundingBox3D(center=pose, size=Vector3(**by_axis(found.size)))
        detections.append(Detection3D(header=header, results=[result], bbox=box, id=str(number)))
    return Detection3DArray(header=header, detections=detections)


def by_axis(values: Iterable[float]) -> dict[str, float]:
    """Return three numbers by the names of their axes."""
    return {axis: float(value) for axis, value in zip('xyz', values, strict=True)}
