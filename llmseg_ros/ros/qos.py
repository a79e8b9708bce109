"""Quality of service of every topic, and who does not agree with it."""

from __future__ import annotations

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

RESULTS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# A subscription that asks for latched messages does not hear volatile publishers at all, one
# that doesn't never gets what was published before it came: the class list takes both.
UNLATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE
)
PICTURES = QoSProfile(
    depth=5, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST
)


def image_profile(reliability: str, depth: int) -> QoSProfile:
    """Return the profile of the image subscription."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])


def incompatible_publishers(
    publishers: list[TopicEndpointInfo], wanted: QoSProfile
) -> list[tuple[str, str]]:
    """Return name and reason of every publisher that a subscription can't hear."""
    checked = (
        (publisher, *qos_check_compatible(publisher.qos_profile, wanted))
        for publisher in publishers
    )
    return [(endpoint_name(p), why) for p, ok, why in checked if ok == QoSCompatibility.ERROR]


def incompatible_subscribers(
    subscribers: list[TopicEndpointInfo], offered: QoSProfile
) -> list[tuple[str, str]]:
    """Return name and reason of every subscriber that can't hear a publisher."""
    checked = (
        (subscriber, *qos_check_compatible(offered, subscriber.qos_profile))
        for subscriber in subscribers
    )
    return [(endpoint_name(s), why) for s, ok, why in checked if ok == QoSCompatibility.ERROR]


def endpoint_name(endpoint: TopicEndpointInfo) -> str:
    """Return the full name of the node an endpoint belongs to."""
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
