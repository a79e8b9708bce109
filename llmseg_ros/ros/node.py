"""The lifecycle node `seg`: camera frames and class names in, label images and masks out."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.config import ConfigError
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.ros import qos
from llmseg_ros.ros.class_list import ClassListInterface
from llmseg_ros.ros.conversions import BadImage, compressed_to_rgb, image_to_rgb
from llmseg_ros.ros.diagnostics import FrameStatistics
from llmseg_ros.ros.parameters import declare_parameters, read_configs
from llmseg_ros.ros.results import ResultPublishers
from llmseg_ros.ros.worker import Worker
from llmseg_ros.segmenter import Segmenter

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
LOG_EVERY_S = 10.0
FRAME_WAIT_S = 10.0  # for the frame in work when the node is deactivated
EXIT_WAIT_S = 1.0  # for the same when the process is to end


class SegNode(LifecycleNode):  # type: ignore[misc]
    """Segment what comes in on `image` into the classes named on `~/classes`.

    Callbacks only hand over: a frame to the worker thread, a class list to a thread of its own.
    """

    def __init__(self, **options: Any) -> None:
        """Declare parameters and services; nothing is loaded before configure.

        Raises:
            ConfigError: a parameter given is of the wrong type or out of range.
        """
        super().__init__('seg', automatically_declare_parameters_from_overrides=True, **options)
        for name in declare_parameters(self):
            self.get_logger().warning(f'there is no parameter {name!r}: what is given is not used')
        self._config, self._segmenter_config = read_configs(self)
        self._statistics = FrameStatistics()
        self._class_list = ClassListInterface(self, self.get_parameter('classes').value)
        self._worker: Worker[Image | CompressedImage] = Worker(self._process, 'segment')
        self._segmenter: Segmenter | None = None
        self._results: ResultPublishers | None = None
        self._images: Any = None

    def start(self) -> None:
        """Configure and activate, where the parameter `node.autostart` says so."""
        if self._config.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def stop(self) -> bool:
        """End all work for the process to end; False where a frame is still in work."""
        self._class_list.stop()
        return self._stop_frames(EXIT_WAIT_S)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, describe the classes, advertise the results."""
        self._config, self._segmenter_config = read_configs(self)
        self.get_logger().info(f'loading the encoder {self._segmenter_config.encoder.name}')
        try:
            self._segmenter = Segmenter(
                self._segmenter_config, self._class_list.names, self._class_list.registry
            )
        except (ConfigError, EncoderUnavailable) as error:
            self.get_logger().error(f'cannot configure: {error}')
            return FAILURE
        self._results = ResultPublishers(self)
        self._class_list.attach(self._segmenter)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe to the camera."""
        self._worker.start()
        profile = qos.image_profile(self._config.image_reliability, self._config.image_depth)
        kind, topic = Image, self.resolve_topic_name('image')
        if self._config.image_transport == 'compressed':
            kind, topic = CompressedImage, f'{topic}/compressed'
        self._images = self.create_subscription(kind, topic, self._on_image, profile)
        self.get_logger().info(f'listening to {topic}')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe from the camera, drop what waits, let the frame in work end."""
        self._stop_frames(FRAME_WAIT_S)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, and give everything back."""
        self._stop_frames(FRAME_WAIT_S)
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after an exception in a transition, to be tried again."""
        self._stop_frames(FRAME_WAIT_S)
        self._release()
        return SUCCESS

    def _stop_frames(self, timeout_s: float) -> bool:
        if self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
        return self._worker.stop(timeout_s)

    def _release(self) -> None:
        self._class_list.detach()
        if self._results is not None:
            self._results.destroy()
        self._results = None
        self._segmenter = None
        free_memory()

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.received += 1
        if self._config.lazy and not (self._results and self._results.wanted()):
            self._statistics.unwanted += 1
        else:
            self._worker.put(message)

    def _process(self, message: Image | CompressedImage) -> None:
        """Work on one frame, in the worker thread; what goes wrong costs this frame alone."""
        try:
            self._segment(message)
        except BadImage as error:
            self._statistics.rejected += 1
            self.get_logger().warning(
                f'{self.resolve_topic_name("image")}: frame rejected: {error}',
                throttle_duration_sec=LOG_EVERY_S,
            )
        except Exception as error:
            if not self.context.ok():  # the process is ending, and the publishers are gone
                return
            self._statistics.failed += 1
            self.get_logger().error(
                f'frame lost: {type(error).__name__}: {error}', throttle_duration_sec=LOG_EVERY_S
            )

    def _segment(self, message: Image | CompressedImage) -> None:
        segmenter, results = self._segmenter, self._results
        if segmenter is None or results is None:
            return
        started = time.perf_counter()
        convert = compressed_to_rgb if isinstance(message, CompressedImage) else image_to_rgb
        rgb = convert(message)
        converted = time.perf_counter()
        segmentation = segmenter.segment(rgb)
        segmented = time.perf_counter()
        results.publish(rgb, segmentation, message.header, self._config.label_encoding)
        published = time.perf_counter()
        self._statistics.add_result(
            {
                'convert': 1000 * (converted - started),
                **segmentation.timings_ms,
                'publish': 1000 * (published - segmented),
                'total': 1000 * (published - started),
            }
        )


def free_memory() -> None:
    """Give freed memory back to the device and to the operating system."""
    gc.collect()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL('libc.so.6').malloc_trim(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; 1 where its parameters can't be used."""
    # rclpy wakes its executor at a signal; Python's own handler then ends it by an exception,
    # also where it is in the middle of loading a model.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rclpy.init(args=arguments)
        node = SegNode()
    except ConfigError as error:
        print(f'seg_node: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        node.start()
        executor.spin()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not node.stop():
        # A computation that can't be interrupted would be cut off in the middle of the
        # interpreter's own end, and take it down with a crash.
        sys.stderr.flush()
        os._exit(0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
