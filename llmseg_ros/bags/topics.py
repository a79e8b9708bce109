"""Topics and message types, as node, demo and replays name them."""

from __future__ import annotations

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from llmseg_ros.files import shipped_path

IMAGE_TOPIC = '/camera/image_raw'
IMAGE_TYPE = 'sensor_msgs/msg/Image'
DEPTH_TOPIC = '/camera/depth'
CAMERA_INFO_TOPIC = '/camera/camera_info'
CAMERA_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
TF_TOPIC = '/tf'
TF_TYPES = ('tf2_msgs/msg/TFMessage', 'tf/msg/tfMessage')
ODOMETRY_TYPE = 'nav_msgs/msg/Odometry'
FRAME_ID = 'camera'
WORLD_ID = 'map'
CLASSES_TOPIC = '/seg/classes'
LABELS_TOPIC = '/seg/labels'
MASKS_TOPIC = '/seg/masks'
LABEL_MAP_TOPIC = '/seg/label_map'
POINTS_TOPIC = '/seg/points'
POINTS_TYPE = 'sensor_msgs/msg/PointCloud2'
DIAGNOSTICS_TOPIC = '/diagnostics'
RECEIVED_TYPES = {
    LABELS_TOPIC: IMAGE_TYPE,
    MASKS_TOPIC: 'llmseg_ros/msg/ClassMaskArray',
    LABEL_MAP_TOPIC: 'llmseg_ros/msg/LabelMap',
    DIAGNOSTICS_TOPIC: 'diagnostic_msgs/msg/DiagnosticArray',
}
MESSAGES = ('ClassInfo', 'ClassList', 'ClassMask', 'ClassMaskArray', 'ClassRule', 'LabelMap')
NANOSECONDS = 1_000_000_000


def message_types() -> Typestore:
    """Return the types of ROS 2 Jazzy and our own messages."""
    types = get_typestore(Stores.ROS2_JAZZY)
    for name in MESSAGES:
        text = shipped_path(f'msg/{name}.msg').read_text(encoding='utf-8')
        types.register(get_types_from_msg(text, f'llmseg_ros/msg/{name}'))
    return types
