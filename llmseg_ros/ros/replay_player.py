"""Plays a bag's camera frames into the node over DDS and records what it answers."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Connection as Written
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.bags.frames import stamp_at_begin
from llmseg_ros.bags.reading import (
    COMPRESSED_TYPE,
    find_image_connections,
    known_types,
    opened_bag,
)
from llmseg_ros.bags.storage import BagError
from llmseg_ros.bags.topics import (
    DIAGNOSTICS_TOPIC,
    LABEL_MAP_TOPIC,
    LABELS_TOPIC,
    MASKS_TOPIC,
    NANOSECONDS,
    RECEIVED_TYPES,
)
from llmseg_ros.class_rules import Given, clean_rules
from llmseg_ros.files import replacing
from llmseg_ros.msg import ClassMaskArray, LabelMap
from llmseg_ros.ros import qos
from llmseg_ros.ros.compat import publisher_count
from llmseg_ros.ros.conversions import rules_to_messages
from llmseg_ros.ros.frames_to_send import camera_frames, first_good_frame, with_stamp
from llmseg_ros.ros.live_replay import CLASS_LIST, REFUSED
from llmseg_ros.ros.played import ANSWERS, PLAYED, NodeCounts, Played, SentFrame
from llmseg_ros.srv import SetClasses

SET_CLASSES = '/seg/set_classes'
READY_S = 240.0  # to load a model on a machine busy with other things
ANSWER_S = 120.0  # for one frame, while the node lives and reports neither error nor refusal
DIAGNOSED_S = 10.0  # the node reports once a second
DRAIN_S = 60.0  # for what is still in work when the last frame has gone out
TICK_S = 0.01  # between two times on /clock
ON_THE_WAY_S = 0.3  # for a message to arrive
TELL_S = 0.2  # between two lines of how far it is
WARM_UP_AHEAD_NS = 3600 * NANOSECONDS
LAST_STAMP_NS = ((1 << 31) - 1) * NANOSECONDS
FRAMES = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)  # any subscriber may have it
ANSWER_QUEUE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
CLASSES = {LABELS_TOPIC: Image, MASKS_TOPIC: ClassMaskArray, LABEL_MAP_TOPIC: LabelMap}


class PlayError(RuntimeError):
    """The bag can't be played; the message is one sentence that says why."""


class Ended(Exception):
    """The player was asked to end."""


def main() -> None:
    """Play the bag named on the command line until it is through, or SIGTERM comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bag', type=Path)
    parser.add_argument('--topic', required=True, help='of the camera')
    parser.add_argument('--out', type=Path, required=True, help='folder for the answers')
    parser.add_argument('--masks', action='store_true', help='record the masks too')
    parser.add_argument('--distinct', action='store_true', help='leave out repeated stamps')
    parser.add_argument('--rate', type=float, help='of the bag; else each frame waits its turn')
    arguments = parser.parse_args()
    try:
        play_bag(**vars(arguments))
    except (PlayError, BagError) as error:
        print(' '.join(str(error).split()), file=sys.stderr)
        sys.exit(REFUSED)
    except OSError as error:
        print(
            f'the answers can not be kept in {arguments.out}: {error.strerror or error}',
            file=sys.stderr,
        )
        sys.exit(REFUSED)


def play_bag(
    bag: Path, topic: str, out: Path, masks: bool, distinct: bool, rate: float | None
) -> None:
    """Play a bag; leave ANSWERS and PLAYED in the folder, also where it has to end early.

    Raises:
        PlayError: the node has ended its work, or does not answer.
        BagError: no frame of the bag can be used.
        OSError: the folder can't be written.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with opened_bag(bag) as reader, answers_bag(out / ANSWERS) as writer:
        connections = find_image_connections(reader, topic)
        if len({connection.msgtype for connection in connections}) > 1:
            raise BagError(f'{topic} has raw and compressed images: replay it with --mode offline')
        compressed = connections[0].msgtype == COMPRESSED_TYPE
        player = Player(writer, compressed, masks, sim_time=rate is not None)
        signal.signal(signal.SIGTERM, player.end)
        # At the pace of the bag there is no time to look into frames: the node does.
        refused = player.played.refused
        frames = camera_frames(reader, connections, refused, distinct, check=rate is None)
        with contextlib.suppress(Ended):
            player.wait_until_heard()
            if (class_list := out / CLASS_LIST).exists():
                player.set_classes(*json.loads(class_list.read_text(encoding='utf-8')))
            player.play(first_good_frame(reader, connections), frames, rate)
    with replacing(out / PLAYED) as partial:
        partial.write_text(json.dumps(player.played.as_json()), encoding='utf-8')
    rclpy.try_shutdown()


@contextlib.contextmanager
def answers_bag(path: Path) -> Iterator[Writer]:
    """Open a new bag for answers; label images shrink a lot."""
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        yield writer


class Player(Node):  # type: ignore[misc]
    """A camera that plays a bag, and listens to what the node answers.

    Attributes:
        played: what has been sent, and how the node fared.
    """

    def __init__(self, writer: Writer, compressed: bool, masks: bool, sim_time: bool) -> None:
        super().__init__('replay_player')
        self.played = Played()
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)
        topic, kind = ('/image/compressed', CompressedImage) if compressed else ('/image', Image)
        self._images = self.create_publisher(kind, topic, FRAMES)
        self._time = self.create_publisher(Clock, '/clock', 10) if sim_time else None
        self._ticked = self._told = 0.0
        self._bag_now: Callable[[], int] = lambda: 0
        self._asked_to_end = False
        self._values: dict[str, str] = {}
        self._diagnosed = 0.0
        self._complaint = ''
        self._waited_for: dict[int, set[str]] = {}  # stamp: topics
        self._answers = (LABELS_TOPIC, MASKS_TOPIC) if masks else (LABELS_TOPIC,)
        types = known_types()
        self._listening = []
        for name in (*self._answers, LABEL_MAP_TOPIC):
            connection = writer.add_connection(name, RECEIVED_TYPES[name], typestore=types)
            profile = qos.LATCHED if name == LABEL_MAP_TOPIC else ANSWER_QUEUE
            callback = functools.partial(self._on_message, writer, connection)
            subscription = self.create_subscription(
                CLASSES[name], name, callback, profile, raw=True
            )
            self._listening.append(subscription)
        self.create_subscription(DiagnosticArray, DIAGNOSTICS_TOPIC, self._on_diagnostics, 10)
        self.create_subscription(Log, '/rosout', self._on_log, 100)

    def end(self, *_: object) -> None:
        """Let whatever is waited for end by `Ended`."""
        self._asked_to_end = True

    def play(
        self,
        good: tuple[SentFrame, bytes],
        frames: Iterator[tuple[SentFrame, bytes]],
        rate: float | None,
    ) -> None:
        """Send the frames: at the bag's pace times a rate, without one each after the answer.

        Args:
            good: a frame to warm up the model with.
            frames: in the order they go.
            rate: of the bag.

        Raises:
            PlayError: the node has ended its work, or does not answer.
            BagError: the bag is damaged, so that it does not go on.
            Ended: the player was asked to end.
        """
        self._bag_now = lambda: good[0].time
        self._warm_up(*good)
        before = self._counts()
        try:
            for frame, raw in frames:
                self._send(frame, raw, rate)
            self._drain(before)
        finally:
            self.played.node = self._counts() - before
            self.played.describe(self._values)

    def wait_until_heard(self) -> None:
        """Wait until the node is there.

        Raises:
            PlayError: it is not, or can't be configured.
            Ended: the player was asked to end.
        """

        def ready() -> bool:
            error = self._values.get('last error', '')
            if error and self._values['state'] == 'unconfigured':
                raise PlayError(f'the node can not be configured: {error}')
            return self._images.get_subscription_count() > 0 and all(
                publisher_count(self, subscription) for subscription in self._listening
            )

        if not self._spin_until(ready, READY_S):
            raise PlayError(f'the node did not listen within {READY_S:.0f} s')

    def set_classes(self, names: list[str], rules: Given) -> None:
        """Set the node's class list, with rules.

        Raises:
            PlayError: the node refuses it, or does not answer.
            Ended: the player was asked to end.
        """
        client = self.create_client(SetClasses, SET_CLASSES)
        messages = rules_to_messages(clean_rules(rules, names).rules)
        if not self._spin_until(client.service_is_ready, READY_S):
            raise PlayError(f'the node has no service {SET_CLASSES}')
        answer = client.call_async(SetClasses.Request(names=names, rules=messages))
        if not self._spin_until(answer.done, ANSWER_S):
            raise PlayError(f'the node did not take the class list within {ANSWER_S:.0f} s')
        if not answer.result().success:
            raise PlayError(f'the node refused the class list: {answer.result().message}')

    def _warm_up(self, frame: SentFrame, raw: bytes) -> None:
        """Have the first frame answered once uncounted: a model's first run is slow.

        Its stamp is far ahead. Where the bag begins the node takes that for a jump of the clock,
        and forgets this frame and its times.
        """
        stamp = min(frame.stamp + WARM_UP_AHEAD_NS, LAST_STAMP_NS)
        self._ask(stamp, with_stamp(raw, stamp))
        self._wait_for_diagnostics()

    def _send(self, frame: SentFrame, raw: bytes, rate: float | None) -> None:
        """Send a frame when its time has come."""
        played = self.played
        if rate is None:
            frame.sent = time.monotonic_ns()
            played.frames.append(frame)
            self._ask(frame.stamp, raw)
        else:
            if not played.frames:
                begin, start = time.monotonic_ns(), frame.time
                played.begin, played.start, played.rate = begin, start, rate
                self._bag_now = lambda: start + round((time.monotonic_ns() - begin) * rate)
            due_ns = played.begin + (frame.time - played.start) / rate
            self._spin_until(lambda: False, due_ns / NANOSECONDS - time.monotonic())
            self._tick()
            self._waited_for[frame.stamp] = set(self._answers)
            frame.sent = time.monotonic_ns()
            played.frames.append(frame)
            self._images.publish(raw)
        if time.monotonic() - self._told > TELL_S:
            print(len(played.frames), flush=True)
            self._told = time.monotonic()

    def _ask(self, stamp: int, raw: bytes) -> None:
        """Send a frame and wait for its answer; again where the node had not heard of us yet.

        Raises:
            PlayError: there is none.
        """
        self._waited_for[stamp] = set(self._answers)

        def settled() -> bool:
            counts = self._counts()
            gone = counts.rejected or counts.failed or counts.unwanted > unheard
            return stamp not in self._waited_for or bool(gone)

        while stamp in self._waited_for:
            unheard = self._counts().unwanted
            self._images.publish(raw)
            if not self._spin_until(settled, ANSWER_S):
                raise PlayError(f'no answer to the frame with stamp {stamp} in {ANSWER_S:.0f} s')
            if self._counts().rejected or self._counts().failed:
                self._spin_until(lambda: bool(self._complaint), 1.0)
                raise PlayError(f'the node does not answer a frame: {self._complaint}')

    def _drain(self, before: NodeCounts) -> None:
        """Wait until the node has nothing in work, and has said so."""
        sent = time.monotonic()

        def done() -> bool:
            counts = self._counts() - before
            heard = len(self.played.frames) - len(self._waited_for)
            return (
                self._diagnosed > sent + ON_THE_WAY_S
                and counts.received == counts.settled
                and counts.published <= heard
            )

        self._spin_until(done, DRAIN_S)

    def _wait_for_diagnostics(self) -> None:
        now = time.monotonic()
        if not self._spin_until(lambda: self._diagnosed > now, DIAGNOSED_S):
            raise PlayError(f'the node has given no sign of life within {DIAGNOSED_S:.0f} s')

    def _spin_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Handle messages until the condition holds or the time is over; tell which it was."""
        end = time.monotonic() + seconds
        while not condition():
            if self._asked_to_end:
                raise Ended
            if time.monotonic() - self._ticked >= TICK_S:
                self._tick()
            # Once at least: a player that is always late must hear the answers too.
            left = max(0.0, end - time.monotonic())
            self._spinner.spin_once(timeout_sec=min(left, TICK_S))
            if time.monotonic() >= end:
                return condition()
        return True

    def _tick(self) -> None:
        """Publish the bag's time."""
        if self._time is not None:
            seconds, nanoseconds = divmod(self._bag_now(), NANOSECONDS)
            self._time.publish(Clock(clock=Time(sec=seconds, nanosec=nanoseconds)))
            self._ticked = time.monotonic()

    def _counts(self) -> NodeCounts:
        return NodeCounts.from_diagnostics(self._values)

    def _on_message(self, writer: Writer, connection: Written, raw: bytes) -> None:
        now = time.monotonic_ns()
        if connection.topic == LABEL_MAP_TOPIC:
            writer.write(connection, now, raw)
            return
        stamp = stamp_at_begin(raw, in_cdr=True)
        missing = self._waited_for.get(stamp, set())
        if connection.topic not in missing:
            return
        missing.remove(connection.topic)
        if not missing:
            del self._waited_for[stamp]
        if self.played.frames:  # else this is the warm-up
            writer.write(connection, now, raw)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == '/seg':
                self._values = {pair.key: pair.value for pair in status.values}
                self._diagnosed = time.monotonic()

    def _on_log(self, message: Any) -> None:
        if message.name == 'seg' and message.level >= LoggingSeverity.WARN:
            self._complaint = message.msg


if __name__ == '__main__':
    main()
