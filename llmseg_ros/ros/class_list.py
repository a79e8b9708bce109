"""The class list: heard on a topic, changed and asked for by services, announced latched."""

from __future__ import annotations

import importlib.util
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from llmseg_ros.class_rules import Given, clean_rules
from llmseg_ros.classes import ClassRegistry, ClassUpdate, all_taken, clean_names
from llmseg_ros.msg import ClassList, LabelMap
from llmseg_ros.ros import qos
from llmseg_ros.ros.calls import MAX_MESSAGE, awaitable, create_waiting_service
from llmseg_ros.ros.compat import with_message_info
from llmseg_ros.ros.conversions import (
    given_rules,
    label_map_to_label_info,
    vocabulary_to_label_map,
)
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.srv import GetClasses, SetClasses
from llmseg_ros.vocabulary import Vocabulary

MAX_WAITING = 100  # service requests
LOG_EVERY_S = 1.0
MAX_DESCRIBED = 50  # classes, in the log

SOURCES = {  # of subclasses, as the log has them
    'llm': 'from the language model',
    'store': 'from the store',
    'pack': 'from files',
    'name': 'none',
}


class NotConfigured(RuntimeError):
    """There is no segmenter yet whose classes could be set."""


class ClassListInterface:
    """Take class lists to the segmenter, off the executor since describing them is slow.

    Args:
        node: whose topics and services these are.
        names: class list to begin with.
        updates: the one thread that changes the segmenter.
        on_change: called on the executor when `names` has changed.

    Attributes:
        registry: ids and versions; outlives the segmenters, so that no id changes its name.
        names: in force; before a segmenter is there, those to begin with.
        rules: of classes, as they came with the names.
        label_map: in force.
    """

    def __init__(
        self,
        node: Node,
        names: Sequence[str],
        updates: ThreadPoolExecutor,
        on_change: Callable[[], None],
    ) -> None:
        self.registry = ClassRegistry()
        self.names = list(names)
        self.rules: Given = ()
        self.label_map = LabelMap()
        self._node = node
        self._segmenter: Segmenter | None = None
        self._updates = updates
        self._announcing = threading.Lock()
        self._newest: object = None
        self._waiting = 0  # service requests not yet answered
        self._seen: deque[int] = deque(maxlen=32)
        self._on_change = on_change
        self._publishers: dict[str, Any] = {}
        create_waiting_service(node, SetClasses, '~/set_classes', self._on_set_classes)
        node.create_service(GetClasses, '~/get_classes', self._on_get_classes)
        for profile in (qos.LATCHED, qos.UNLATCHED):
            node.create_subscription(
                ClassList,
                '~/classes',
                with_message_info(self._on_list),
                profile,
                event_callbacks=qos.SILENT,
            )

    def attach(self, segmenter: Segmenter) -> None:
        """Announce a segmenter's classes, and take others to it."""
        self._segmenter = segmenter
        self.label_map = LabelMap()
        create = partial(self._node.create_publisher, event_callbacks=qos.SILENT_PUBLISHER)
        self._publishers['label_map'] = create(LabelMap, '~/label_map', qos.LATCHED)
        if importlib.util.find_spec('vision_msgs') is not None:
            from vision_msgs.msg import LabelInfo

            self._publishers['label_info'] = create(LabelInfo, '~/label_info', qos.LATCHED)
        segmenter.on_new_subclasses = partial(self._announce, segmenter)
        self._announce(segmenter)

    def detach(self) -> None:
        """Let go of the segmenter; lists heard from now on are kept for the next."""
        with self._announcing:
            self._segmenter = None
            for publisher in self._publishers.values():
                self._node.destroy_publisher(publisher)
            self._publishers = {}

    def request(self, names: Sequence[str], rules: Given = ()) -> None:
        """Put a class list in force soon, with its rules, unless a newer one comes before its turn.

        Without a segmenter it is the list that the next one begins with.
        """
        if self._segmenter is None:
            self.names, messages = clean_names(names)
            self.rules = rules
            self._warn([*messages, *clean_rules(rules, self.names).messages])
            self._node.get_logger().info(
                f'class list kept for configuring: {", ".join(self.names[:MAX_DESCRIBED])}'
            )
            self._on_change()
            return
        self._newest = token = object()
        self._updates.submit(self._apply_newest, list(names), rules, token)

    def _on_list(self, message: ClassList, info: dict[str, Any]) -> None:
        # A latched publisher's message comes through both subscriptions. Without any stamp, which
        # can be on Humble alone, the list is put in force twice, which changes nothing.
        stamp = info.get('source_timestamp') or Time.from_msg(message.header.stamp).nanoseconds
        if stamp in self._seen:
            return
        if stamp:
            self._seen.append(stamp)
        self.request(message.names, given_rules(message.rules))

    async def _on_set_classes(
        self, request: SetClasses.Request, response: SetClasses.Response
    ) -> SetClasses.Response:
        """Answer once the list is in force; meanwhile the executor goes on with other things."""
        if self._waiting >= MAX_WAITING:
            response.message = f'{MAX_WAITING} class lists are waiting already, try again later'
            response.label_map = self.label_map
            return response
        self._newest = None
        self._waiting += 1
        try:
            rules = given_rules(request.rules)
            update = await awaitable(
                self._node, self._updates.submit(self._apply, request.names, rules)
            )
        except Exception as error:  # whatever the encoder raises is told to whoever asked
            response.message = str(error)[:MAX_MESSAGE]
        else:
            response.success = all_taken(request.names, update) and not update.rules_refused
            response.message = '; '.join(update.messages)[:MAX_MESSAGE]
        finally:
            self._waiting -= 1
        response.label_map = self.label_map
        return response

    def _on_get_classes(
        self, request: GetClasses.Request, response: GetClasses.Response
    ) -> GetClasses.Response:
        response.label_map = self.label_map
        return response

    def _apply_newest(self, names: list[str], rules: Given, token: object) -> None:
        if token is not self._newest:
            return
        try:
            update = self._apply(names, rules)
        except Exception as error:
            self._node.get_logger().error(f'the class list was not taken: {error}')
            return
        self._warn(update.messages)

    def _warn(self, messages: Sequence[str]) -> None:
        if messages:
            sentences = '; '.join(messages)[:MAX_MESSAGE]
            self._node.get_logger().warning(sentences, throttle_duration_sec=LOG_EVERY_S)

    def _apply(self, names: Sequence[str], rules: Given) -> ClassUpdate:
        segmenter = self._segmenter
        if segmenter is None:
            raise NotConfigured('the node is not configured, so its classes cannot be set')
        update = segmenter.set_classes(names, rules)
        if self._segmenter is not segmenter:
            raise NotConfigured('the node was cleaned up meanwhile, so its classes are as before')
        self.rules = rules
        self._announce(segmenter)
        return update

    def _announce(self, segmenter: Segmenter) -> None:
        """Publish and log the class list in force, where it is not the one published last."""
        with self._announcing:
            vocabulary = segmenter.vocabulary
            if self._segmenter is not segmenter or vocabulary.version == self.label_map.version:
                return
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self.label_map = vocabulary_to_label_map(vocabulary, header)
            self._publishers['label_map'].publish(self.label_map)
            if 'label_info' in self._publishers:
                label_info = label_map_to_label_info(self.label_map)
                self._publishers['label_info'].publish(label_info)
            self.names = [item.name for item in vocabulary.classes]
            if self.names:
                version, described = vocabulary.version, describe(vocabulary)
                self._node.get_logger().info(f'class list {version}: {described}')
            else:
                self._node.get_logger().warning(
                    'no classes, everything is background: name some on '
                    f'{self._node.resolve_topic_name("~/classes")} or by the parameter classes'
                )
            # Parameters are the executor's: no other thread may set them.
            self._node.executor.create_task(self._on_change)


def describe(vocabulary: Vocabulary) -> str:
    """Name classes with the number of their subclasses and where those came from."""
    described = [
        f'{item.name} ({len(item.subclasses)} subclasses, {SOURCES[item.source]})'
        if item.subclasses
        else f'{item.name} (no subclasses)'
        for item in vocabulary.classes[:MAX_DESCRIBED]
    ]
    more = len(vocabulary.classes) - len(described)
    return ', '.join(described) + (f' and {more} more' if more else '')
