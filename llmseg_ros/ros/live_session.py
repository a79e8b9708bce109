"""A running node as what pages of `llmseg live` look at."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.signals import SignalHandlerOptions

from llmseg_ros.class_rules import Given, clean_rules, with_kept
from llmseg_ros.config import SegmenterConfig, build_config
from llmseg_ros.formats.parameter_layout import PARAMETERS, node_parameters
from llmseg_ros.live.frames import LiveFrame
from llmseg_ros.live.session import LiveError, describe_class
from llmseg_ros.live.thresholds import describe_thresholds
from llmseg_ros.msg import LabelMap
from llmseg_ros.ros import qos
from llmseg_ros.ros.camera import seconds
from llmseg_ros.ros.conversions import given_rules, rules_to_messages
from llmseg_ros.ros.live_parts import TOPICS, PartCollector, Parts, to_live_frame
from llmseg_ros.ros.transport import choose_settings
from llmseg_ros.srv import SetClasses
from llmseg_ros.system.worker import Worker

ANSWER_S = 20.0  # for a service to be found, and for a class list to be described
SOON_S = 1.0  # for parameters to be read
LOOK_S = 0.1
SILENT_S = 3.5  # without diagnostics, which come once a second
LONGEST_AGE_MS = 3.6e6  # beyond, the stamps are of another clock
CAMERAS = 'node.cameras'
SERVICE = 'llmseg_ros/srv/SetClasses'
SECTIONS = tuple(SegmenterConfig.__dataclass_fields__)


class Graph:
    """A node of our own in a context of its own, spun on a thread."""

    def __init__(self) -> None:
        choose_settings()
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('llmseg_live', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name='live ros', daemon=True)
        self._thread.start()

    def do(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the executor's thread, soon."""
        self._executor.create_task(function, *arguments)

    def wait_for(self, future: Any, timeout_s: float) -> Any:
        """Return what a request led to.

        Raises:
            LiveError: it was not answered.
        """
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout_s):
            raise LiveError('the node does not answer')
        return future.result()

    def close(self) -> None:
        """End the thread and leave the graph."""
        self._executor.shutdown(2.0)
        self._thread.join(2.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


def running_nodes(graph: Graph, patience_s: float) -> list[str]:
    """Return the full names of the nodes that take class lists, waiting for the first."""
    end = time.monotonic() + patience_s
    while True:
        services = graph.node.get_service_names_and_types()
        found = sorted(name.rpartition('/')[0] for name, kinds in services if SERVICE in kinds)
        if found or time.monotonic() > end:
            return found
        time.sleep(LOOK_S)


class NodeSession:
    """Show what a running node publishes, and pass on what is asked of it.

    Results are subscribed to only while someone looks, so that the node can be lazy.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        self.newest: LiveFrame | None = None
        self._graph, self._name = graph, name
        self._camera = ''
        self._worker: Worker[Parts] = Worker(self._work_on, 'live node')
        self._collector = PartCollector()
        self._subscriptions: list[Any] = []
        self._label_map = LabelMap()
        self._status: DiagnosticStatus | None = None
        self._heard = time.monotonic()  # it has just been found
        self._config = SegmenterConfig()
        self._paused = False
        self._steps = 0
        self._trouble = ''
        node = graph.node
        self._classes = node.create_client(SetClasses, f'{name}/set_classes')
        self._parameters = AsyncParameterClient(node, name)

    def look_at(self, camera: str = '') -> None:
        """Choose the camera that is shown; without a name the first of the node's.

        Raises:
            LiveError: the node has no such camera, or does not answer.
        """
        if not self._parameters.wait_for_services(ANSWER_S):
            raise LiveError(f'the node {self._name} is gone')
        names = self._parameter_values([CAMERAS])[CAMERAS] or ['']
        if camera and camera not in names:
            there = f'its cameras are {", ".join(names)}' if names[0] else 'it has one without name'
            raise LiveError(f'the node {self._name} has no camera {camera!a}: {there}')
        self._camera = camera or names[0]

    def start(self, on_frame: Callable[[LiveFrame], None]) -> None:
        """Begin to listen; `on_frame` is called on a thread of the session's own."""
        self._on_frame = on_frame
        self._worker.start()
        self._graph.do(self._listen)

    def close(self) -> None:
        """Leave the graph."""
        self._worker.stop(1.0)
        self._graph.close()

    def watch(self, watched: bool) -> None:
        """Subscribe to the results, or no more."""
        self._graph.do(self._subscribe if watched else self._unsubscribe)

    def describe(self) -> dict[str, Any]:
        """Return the state as plain values."""
        values = {pair.key: pair.value for pair in self._status.values} if self._status else {}
        self._ask_for_thresholds()
        return {
            'source': f'node {self._results}',
            'kind': 'node',
            'paused': self._paused,
            'resting': self._paused,
            'classes': [
                describe_class(c.id, c.name, [s for s in c.subclasses if s != c.name], c.source, '')
                for c in self._label_map.classes
            ],
            'thresholds': describe_thresholds(self._config),
            'encoder': values.get('encoder', ''),
            'device': values.get('device', ''),
            'rate_hz': float(values.get('results per second', 0)),
            'dropped': int(values.get('frames dropped', 0)) + self._worker.dropped,
            'timings_ms': stage_times(values),
            'notes': [],
            'asking': int(values.get('classes waiting for subclasses', 0)),
            'trouble': self._problem(),
        }

    def settings(self) -> dict[str, Any]:
        """Return the node's parameters and class list in the layout of a configuration file."""
        self._require_parameters()
        listed = self._wait(self._parameters.list_parameters([], 0)).result.names
        wanted = [name for name in listed if name.partition('.')[0] in SECTIONS]
        classes = [item.name for item in self._label_map.classes]
        found = self._parameter_values(wanted)
        sections = node_parameters({'seg': {PARAMETERS: found}}, 'seg')
        return {**({'classes': classes} if classes else {}), **sections}

    def set_classes(self, names: Sequence[str], rules: Given = ()) -> Sequence[str]:
        """Replace the class list by the node's service, as `Session.set_classes` says."""
        if self._is_silent() or not self._classes.wait_for_service(ANSWER_S):
            raise LiveError(f'the node {self._name} is gone')
        kept = with_kept(rules, given_rules(self._label_map.rules), names)
        cleaned = clean_rules(kept, names)
        messages = rules_to_messages(cleaned.rules)
        request = SetClasses.Request(names=list(names), rules=messages)
        answer = self._wait(self._classes.call_async(request))
        self._label_map = answer.label_map
        return [*cleaned.messages, *([answer.message] if answer.message else [])]

    def set_subclasses(self, name: str, names: Sequence[str]) -> Sequence[str]:
        """Refuse: the node has no service for it.

        Raises:
            LiveError: always.
        """
        raise LiveError('a running node takes subclasses from its files: see subclasses.file')

    def set_threshold(self, name: str, value: float) -> None:
        """Set the node's parameter, which it checks itself.

        Raises:
            LiveError: the node refuses it.
        """
        if name not in {threshold['name'] for threshold in describe_thresholds(self._config)}:
            raise LiveError(f'no threshold {name!a} to set')
        self._require_parameters()
        parameter = Parameter(name, Parameter.Type.DOUBLE, float(value))
        result = self._wait(self._parameters.set_parameters([parameter])).results[0]
        self._read_thresholds()
        if not result.successful:
            raise LiveError(result.reason)

    def pause(self, paused: bool) -> None:
        """Hold what is shown; the node goes on."""
        self._paused, self._steps = paused, 0

    def step(self) -> None:
        """While paused, show the next frame that comes."""
        self._steps = 1

    def _listen(self) -> None:
        node = self._graph.node
        node.create_subscription(
            LabelMap, f'{self._name}/label_map', self._on_label_map, qos.LATCHED
        )
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    @property
    def _results(self) -> str:
        return f'{self._name}/{self._camera}' if self._camera else self._name

    def _subscribe(self) -> None:
        for topic, kind in TOPICS.items():
            profile = qos.RESULTS if topic in ('labels', 'masks') else qos.PICTURES
            self._subscriptions.append(
                self._graph.node.create_subscription(
                    kind,
                    f'{self._results}/{topic}',
                    lambda m, t=topic: self._on_part(t, m),
                    profile,
                )
            )

    def _unsubscribe(self) -> None:
        while self._subscriptions:
            self._graph.node.destroy_subscription(self._subscriptions.pop())

    def _on_label_map(self, message: LabelMap) -> None:
        self._label_map = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._name:
                self._status, self._heard = status, time.monotonic()

    def _on_part(self, topic: str, message: Any) -> None:
        parts = self._collector.add(topic, message)
        if parts is None or (self._paused and not self._steps):
            return
        self._steps = 0
        self._worker.put(parts)

    def _work_on(self, parts: Parts) -> None:
        number = 1 if self.newest is None else self.newest.number + 1
        ids = [item.id for item in self._label_map.classes]
        now_ms = self._graph.node.get_clock().now().nanoseconds / 1e6
        age_ms = now_ms - 1000 * seconds(parts['labels'])
        try:
            frame = to_live_frame(
                number, parts, ids, age_ms if 0 <= age_ms < LONGEST_AGE_MS else None
            )
        except Exception as error:  # of whatever the node sends; it costs this frame alone
            self._trouble = f'a frame can not be shown: {error}'
            return
        self._trouble = ''
        self.newest = frame
        self._on_frame(frame)

    def _problem(self) -> str:
        if self._is_silent():
            return f'the node {self._name} is silent: it has ended, or the network is gone'
        if self._status is not None and self._status.level != DiagnosticStatus.OK:
            return str(self._status.message)
        return self._trouble

    def _is_silent(self) -> bool:
        return time.monotonic() - self._heard > SILENT_S

    def _wait(self, future: Any, timeout_s: float = ANSWER_S) -> Any:
        return self._graph.wait_for(future, timeout_s)

    def _require_parameters(self) -> None:
        if self._is_silent() or not self._parameters.services_are_ready():
            raise LiveError(f'the node {self._name} is gone')

    def _parameter_values(
        self, names: Sequence[str], timeout_s: float = ANSWER_S
    ) -> dict[str, Any]:
        answer = self._wait(self._parameters.get_parameters(list(names)), timeout_s)
        return {
            name: plain(rclpy.parameter.parameter_value_to_python(value))
            for name, value in zip(names, answer.values, strict=True)
        }

    def _ask_for_thresholds(self) -> None:
        """Read the thresholds where the node is there to tell."""
        if not self._is_silent() and self._parameters.services_are_ready():
            with contextlib.suppress(LiveError):  # it is busy: what is known is shown
                self._read_thresholds(SOON_S)

    def _read_thresholds(self, timeout_s: float = ANSWER_S) -> None:
        names = [
            f'{section}.{field}'
            for section in ('gate', 'background')
            for field in type(getattr(self._config, section)).__dataclass_fields__
        ]
        found = self._parameter_values(names, timeout_s)
        self._config = build_config(node_parameters({'seg': {PARAMETERS: found}}, 'seg'))


def plain(value: Any) -> Any:
    """Return a parameter's value as YAML has it: arrays as lists."""
    return list(value) if hasattr(value, '__iter__') and not isinstance(value, str) else value


def stage_times(values: dict[str, str]) -> dict[str, list[float]]:
    """Return median and 95th percentile by stage, as diagnostics tell them."""
    stages = [key.removesuffix(' p50 ms') for key in values if key.endswith(' p50 ms')]
    return {s: [float(values[f'{s} p50 ms']), float(values[f'{s} p95 ms'])] for s in stages}
