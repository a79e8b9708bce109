"""Topics and message types, as node, demo and replays name them."""

from __future__ import annotations

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from llmseg_ros.files import shipped_path

IMAGE_TOPIC = '/camera/image_raw'
IMAGE_TYPE = 'sensor_msgs/msg/Image'
FRAME_ID = 'camera'
CLASSES_TOPIC = '/seg/classes'
LABELS_TOPIC = '/seg/labels'
MASKS_TOPIC = '/seg/masks'
LABEL_MAP_TOPIC = '/seg/label_map'
DIAGNOSTICS_TOPIC = '/diagnostics'
RECEIVED_TYPES = {
    LABELS_TOPIC: IMAGE_TYPE,
    MASKS_TOPIC: 'llmseg_ros/msg/ClassMaskArray',
    LABEL_MAP_TOPIC: 'llmseg_ros/msg/LabelMap',
    DIAGNOSTICS_TOPIC: 'diagnostic_msgs/msg/DiagnosticArray',
}
MESSAGES = ('ClassInfo', 'ClassList', 'ClassMask', 'ClassMaskArray', 'LabelMap')
NANOSECONDS = 1_000_000_000


def message_types() -> Typestore:
    """Return the types of ROS 2 Jazzy and our own messages."""
    types = get_typestore(Stores.ROS2_JAZZY)
    for name in MESSAGES:
        text = shipped_path(f'msg/{name}.msg').read_text(encoding='utf-8')
        types.register(get_types_from_msg(text, f'llmseg_ros/msg/{name}'))
    return types
