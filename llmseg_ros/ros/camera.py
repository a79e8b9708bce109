"""One camera of the node: what it is heard by, where its results go, and how it has done."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.candidates import Found
from llmseg_ros.ros import silence
from llmseg_ros.ros.depth_results import DepthResults
from llmseg_ros.ros.diagnostics import Health, frame_values
from llmseg_ros.ros.image_subscription import ImageSubscription, image_name, subscribe_to_camera
from llmseg_ros.ros.parameters import NodeConfig, of_camera
from llmseg_ros.ros.results import ResultPublishers
from llmseg_ros.system.frame_statistics import FrameStatistics

CLOCK_JUMP_S = 1.0  # backwards, by which a stamp is no late frame but another run of a bag


class CameraStream:
    """Hear a camera, and publish what its frames lead to.

    Attributes:
        name: among the node's cameras; empty where the node has one, without a name.
        topic: full name of its images, without /compressed.
        statistics: of its frames; they outlast the stream.
        results: publishers of labels and what else needs no depth.
        depth: points, masks and depth of its frames.
        newest: frame that came in; None before the first, and while it is not heard.
        previous: stamp in nanoseconds of the frame found in last, and what was, for hysteresis.
        last_error: that a frame was lost to, one sentence.
    """

    def __init__(
        self, node: LifecycleNode, config: NodeConfig, statistics: FrameStatistics, name: str = ''
    ) -> None:
        """Advertise the results; nothing is heard before `start`."""
        self.name = name
        self.topic: str = node.resolve_topic_name(image_name(name))
        self.statistics = statistics
        below = f'~/{name}/' if name else '~/'
        self.results = ResultPublishers(node, below)
        self._config = of_camera(config, name)
        self.depth = DepthResults(node, self._config, statistics, below)
        self.newest: Image | CompressedImage | None = None
        self.previous: tuple[int, Found] | None = None
        self.last_error = ''
        self._node = node
        self._images: ImageSubscription | None = None
        self._newest_stamp = 0.0
        self._started = self._due = float('-inf')
        self._seen: float | None = None  # since when somebody publishes frames

    def start(self, take: Callable[[CameraStream, Image | CompressedImage], None]) -> None:
        """Subscribe to frames, which `take` gets, and depth."""
        self._started = time.monotonic()
        self._due = float('-inf')  # with a low rate the first frame is not put off by an old one
        self.depth.start()
        self._images = subscribe_to_camera(self._node, self._config, partial(take, self), self.name)

    def stop(self) -> None:
        """Unsubscribe."""
        self.depth.stop()
        if self._images is not None:
            self._images.destroy()
        self._images = self.newest = None

    def destroy(self) -> None:
        """Withdraw the topics."""
        self.stop()
        self.results.destroy()
        self.depth.destroy()

    @property
    def heard(self) -> str:
        """What is subscribed to, for the log."""
        depth = f', depth from {self._config.depth}' if self._config.depth else ''
        return f'{self._images.topic}{depth}' if self._images is not None else 'nothing'

    def wanted(self) -> bool:
        """Return whether anyone subscribes to any result."""
        return self.results.wanted() or self.depth.wanted()

    def labels_wanted(self) -> bool:
        """Return whether anyone subscribes to what is made of labels."""
        return self.results.labels_wanted() or self.depth.wanted()

    def agree(self) -> None:
        """Be as reliable as the publishers are."""
        if self._images is not None:
            self._images.agree()
        self.depth.agree()

    def notice(self, message: Image | CompressedImage) -> float:
        """Note a frame that came in; return the seconds time went back by, 0 where it did not."""
        self.statistics.count('received')
        self.newest = message
        stamp = seconds(message)
        jump, self._newest_stamp = self._newest_stamp - stamp, stamp
        if jump <= CLOCK_JUMP_S:
            return 0.0
        self.statistics.forget_times()
        return jump

    def due(self, rate_hz: float, now: float) -> bool:
        """Return whether a frame is to be worked on at a time in seconds; with a rate of 0 each is.

        A frame a period too late does not put off those after it, so that a camera that is not
        much faster than the rate has nearly all of its frames worked on.
        """
        if not rate_hz:
            return True
        period = 1 / rate_hz
        self._due = min(self._due, now + period)  # the rate may have been lower
        if now < self._due:
            return False
        self._due += period
        if self._due <= now:
            self._due = now + period
        return True

    def health(self, state: str, wanted: bool) -> Health:
        """Return how the camera does in a state of the node."""
        since = self.statistics.since
        return Health(
            state=state,
            last_error=self.last_error,
            wanted=wanted,
            active_s=time.monotonic() - self._started,
            silent_s=since('received'),
            resultless_s=since('published'),
            rejected_s=since('rejected'),
            failed_s=since('failed'),
            depth_error=self.depth.problem,
        )

    def values(self) -> dict[str, object]:
        """Return what diagnostics show of the camera beside its health."""
        return {
            'topic': self.topic,
            **frame_values(self.statistics),
            'last error': self.last_error,
        }

    def why_silent(self) -> str:
        """Say why no frame has come for a while; empty where there was one, or nothing is heard."""
        if self._images is None or self._silent_s(self._images) <= silence.PATIENCE_S:
            return ''
        return silence.silent_images(self._node, self._images, self.name)

    def _silent_s(self, images: ImageSubscription) -> float:
        """Return the seconds without a frame since the node, and any camera, was there to send."""
        now = time.monotonic()
        if not self._node.count_publishers(images.topic):
            self._seen = None
        elif self._seen is None:
            self._seen = now
        return min(self.statistics.since('received'), now - max(self._started, self._seen or 0.0))


def seconds(message: Image | CompressedImage) -> float:
    """Return a message's stamp in seconds."""
    stamp = message.header.stamp
    return float(stamp.sec + stamp.nanosec / 1e9)
