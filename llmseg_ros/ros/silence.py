"""Why nothing comes, in sentences for the log: no frame, no clock, a name given twice."""

from __future__ import annotations

from collections.abc import Iterator

import rclpy
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.files import shipped_path
from llmseg_ros.ros.image_subscription import COMPRESSED, ImageSubscription, image_name
from llmseg_ros.ros.qos import endpoint_name
from llmseg_ros.ros.transport import SHARED_PROFILE

PATIENCE_S = 5.0  # with a camera that sends nothing, before it is worth a word
IMAGES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
MAX_TOPICS = 5  # named as those that could be meant


def silent_images(node: Node, images: ImageSubscription, camera: str = '') -> str:
    """Say why no frame of a camera has come for a while, by its name where it has one."""
    publishers = node.get_publishers_info_by_topic(images.topic)
    kinds = {end.topic_type for end in publishers}
    heard = [end for end in publishers if IMAGES.get(end.topic_type) is images.kind]
    begin = f'no frame for {PATIENCE_S:.0f} s on {images.topic}'
    if heard:
        names = ', '.join(sorted({endpoint_name(end) for end in heard}))
        best_effort = any(
            end.qos_profile.reliability != ReliabilityPolicy.RELIABLE for end in heard
        )
        return f'{begin}, though {names} publishes it: {lost_frames(best_effort)}'
    if kinds:
        return (
            f'{begin}: it has {", ".join(sorted(kinds))}{how_to_hear(images.topic, kinds, camera)}'
        )
    own = node.get_fully_qualified_name()
    others = {
        topic: set(types) & set(IMAGES)
        for topic, types in node.get_topic_names_and_types()
        if set(types) & set(IMAGES)
        and any(endpoint_name(end) != own for end in node.get_publishers_info_by_topic(topic))
    }
    for topic in (images.topic + COMPRESSED, images.topic.removesuffix(COMPRESSED)):
        if topic in others:
            return f'{begin}, only on {topic}{how_to_hear(topic, others[topic], camera)}'
    there = ', '.join(sorted(others)[:MAX_TOPICS])
    hint = (
        f'remap it ({image_name(camera)}:=TOPIC): images are on {there}'
        if there
        else 'is the camera started?'
    )
    return f'{begin}: nobody publishes it; {hint}'


def lost_frames(best_effort: bool) -> str:
    """Say how frames of a camera may get lost between processes, and what to do."""
    rmw = rclpy.get_rmw_implementation_identifier()
    if 'fastrtps' not in rmw:
        return (
            'it sends nothing, or the frames are lost: raise net.core.rmem_max, and see what '
            f'`llmseg doctor` says of {rmw}'
        )
    reliable = ', or let it publish reliably' if best_effort else ''
    return (
        'it sends nothing, or its frames do not fit its shared memory: start it with '
        f'FASTRTPS_DEFAULT_PROFILES_FILE={shipped_path(SHARED_PROFILE)}{reliable}'
    )


def how_to_hear(topic: str, kinds: set[str], camera: str = '') -> str:
    """Say which parameter makes the node hear a topic; empty where none does."""
    image = image_name(camera)
    if 'sensor_msgs/msg/Image' in kinds:
        raw = 'set node.image_transport to raw'
        if camera:
            raw += f', leave {camera} out of node.compressed_cameras'
        return f': {raw} and remap {image} to {topic}'
    if 'sensor_msgs/msg/CompressedImage' in kinds:
        compress = 'set node.image_transport to compressed'
        if camera:
            compress = f'put {camera} into node.compressed_cameras'
        remap = f' and remap {image} to {topic.removesuffix(COMPRESSED)}'
        if not topic.endswith(COMPRESSED):
            return f'; rename it to {topic}{COMPRESSED} and {compress}'
        return f': {compress}{remap}'
    return ', which are no images'


def misfits(node: Node) -> Iterator[str]:
    """Give a sentence for what is wrong with the node's name and time."""
    name = node.get_fully_qualified_name()
    same = sum(
        f'{space.rstrip("/")}/{other}' == name
        for other, space in node.get_node_names_and_namespaces()
    )
    if same > 1:
        yield (
            f'there are {same} nodes {name}: topics, services and parameters of one are '
            'mistaken for those of the other, give each a name or namespace of its own'
        )
    if node.get_parameter('use_sim_time').value and not node.count_publishers('/clock'):
        yield 'use_sim_time is set, but nobody publishes /clock: times and ages are not known'
