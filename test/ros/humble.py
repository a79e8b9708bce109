"""Take from rclpy what Humble's lacks, and run a module on what is left.

Run as `python humble.py MODULE ARGUMENTS`: with the names of Iron and later gone, the node has
only ros/compat.py to stand on.
"""

from __future__ import annotations

import runpy
import sys
from types import ModuleType
from typing import Any


def take_away() -> None:
    """Make this process's rclpy as Humble's: what the package imports later finds no more."""
    from rclpy.node import Node
    from rclpy.subscription import Subscription

    sys.modules['rclpy.qos_event'] = sys.modules['rclpy.event_handler']  # its name up to Humble
    sys.modules['rclpy.event_handler'] = None  # type: ignore[assignment]  # not found from now on
    del Subscription.get_publisher_count
    # rclpy's own modules have the class already; who imports it from now on gets one as Humble's.
    module: Any = ModuleType('rclpy.subscription')
    module.Subscription = type('Subscription', (), {})
    sys.modules['rclpy.subscription'] = module

    # Up to Humble every way of setting parameters led through this one method.
    common = Node._set_parameters_atomically_common

    def set_atomically(node: Node, parameters: list[Any], *others: Any, **options: Any) -> Any:
        return common(node, parameters, *others, **options)

    def through_it(node: Node, parameters: list[Any], *others: Any, **options: Any) -> Any:
        return node._set_parameters_atomically(parameters, *others, **options)

    Node._set_parameters_atomically = set_atomically
    Node._set_parameters_atomically_common = through_it
    for name in ('add_pre_set_parameters_callback', 'add_post_set_parameters_callback'):
        delattr(Node, name)


if __name__ == '__main__':
    take_away()
    sys.path.pop(0)
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
