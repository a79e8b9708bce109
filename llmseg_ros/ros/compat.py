"""What differs between the rclpy of Humble and those after it; docs/deployment.md has the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = [
    'PublisherEventCallbacks',
    'SubscriptionEventCallbacks',
    'call_after_set_parameters',
    'publisher_count',
    'with_message_info',
]


def call_after_set_parameters(node: Node, callback: Callable[[list[Parameter]], None]) -> None:
    """Have `callback` called with the parameters set, each time they have come into force."""
    if hasattr(node, 'add_post_set_parameters_callback'):
        node.add_post_set_parameters_callback(callback)
        return
    # Humble's declarations, set_parameters and parameter services all go through this method.
    set_atomically = node._set_parameters_atomically

    def set_and_tell(parameters: list[Parameter], *others: Any, **options: Any) -> Any:
        result = set_atomically(parameters, *others, **options)
        if result.successful:
            callback(parameters)
        return result

    node._set_parameters_atomically = set_and_tell


def with_message_info(callback: Callable[[Any, dict[str, Any]], None]) -> Callable[..., None]:
    """Return a subscription's callback that takes a message and, except on Humble, its info.

    On Humble, which hands over messages alone, the info is empty.
    """
    if hasattr(Subscription, 'CallbackType'):
        return callback
    return lambda message: callback(message, {})


def publisher_count(node: Node, subscription: Subscription) -> int:
    """Return how many publishers a subscription hears; on Humble, how many its topic has."""
    if hasattr(subscription, 'get_publisher_count'):
        return int(subscription.get_publisher_count())
    return int(node.count_publishers(subscription.topic_name))
