"""Quality of service of every topic, and who does not agree with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from llmseg_ros.ros.compat import PublisherEventCallbacks, SubscriptionEventCallbacks

if TYPE_CHECKING:  # a module that newer distributions name otherwise
    from rclpy.topic_endpoint_info import TopicEndpointInfo

RESULTS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# A subscription that asks for latched messages does not hear volatile publishers at all, one
# that doesn't never gets what was published before it came: the class list takes both.
UNLATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# Large: what waits for a slow subscriber is memory. Best-effort subscribers hear it too.
CLOUDS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
PICTURES = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

# rclpy's own warnings of incompatible endpoints don't say whose they are, and would warn of
# every volatile publisher of a class list.
SILENT = SubscriptionEventCallbacks(use_default_callbacks=False)
SILENT_PUBLISHER = PublisherEventCallbacks(use_default_callbacks=False)


def image_profile(reliability: str, depth: int) -> QoSProfile:
    """Return the profile of the image subscription."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])


def telling_incompatible(tell: Callable[[Any], object]) -> SubscriptionEventCallbacks:
    """Return event callbacks that call `tell` when a publisher is seen that can't be heard."""
    return SubscriptionEventCallbacks(incompatible_qos=tell, use_default_callbacks=False)


def incompatible_endpoints(node: Node) -> Iterator[str]:
    """Give a sentence for every other node that none of this node's ends of a topic agrees with."""
    this = node.get_fully_qualified_name()
    for topic in sorted({e.topic_name for e in (*node.publishers, *node.subscriptions)}):
        writers = node.get_publishers_info_by_topic(topic)
        readers = node.get_subscriptions_info_by_topic(topic)
        mine = [end for end in readers if endpoint_name(end) == this]
        for other in writers:
            reasons = [disagreement(other, end) for end in mine]
            if reasons and all(reasons):
                yield f'{topic}: {endpoint_name(other)} is not heard: {reasons[-1]}'
        mine = [end for end in writers if endpoint_name(end) == this]
        for other in readers:
            reasons = [disagreement(end, other) for end in mine]
            if reasons and all(reasons):
                yield f'{topic}: {endpoint_name(other)} hears nothing: {reasons[-1]}'


def disagreement(writer: TopicEndpointInfo, reader: TopicEndpointInfo) -> str:
    """Return why a reader can't hear a writer; empty where it can."""
    compatibility, reason = qos_check_compatible(writer.qos_profile, reader.qos_profile)
    return reason.strip(' ;') if compatibility == QoSCompatibility.ERROR else ''


def endpoint_name(endpoint: TopicEndpointInfo) -> str:
    """Return the full name of the node an endpoint belongs to."""
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
