"""The way of a frame: message, newest-frame slot, worker thread, segmentation, results."""

from __future__ import annotations

import dataclasses
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from llmseg_ros.images import BadImage, compressed_to_rgb, image_to_rgb
from llmseg_ros.ros.depth_results import DepthResults
from llmseg_ros.ros.depth_subscription import HeldDepth
from llmseg_ros.ros.diagnostics import FrameStatistics
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.results import ResultPublishers
from llmseg_ros.ros.worker import Worker
from llmseg_ros.segmentation import Segmentation, frame_before
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.memory import free_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOG_EVERY_S = 10.0  # of each kind
CLOCK_JUMP_S = 1.0  # backwards, by which a stamp is no late frame but another run of a bag


class TakenFrame(NamedTuple):
    """A frame, and the depth kept for it where somebody wants points."""

    message: Image | CompressedImage
    depth: HeldDepth | None


class FramePipeline:
    """Segment the newest frame in a thread of its own; what goes wrong costs that frame alone.

    Attributes:
        config: of the node; may be replaced between two frames.
        last_error: of the last frame lost, one sentence.
        depth: points, masks and depth of the frames.
    """

    def __init__(
        self,
        node: LifecycleNode,
        segmenter: Segmenter,
        config: NodeConfig,
        frame_statistics: FrameStatistics,
    ) -> None:
        self.config = config
        self.last_error = ''
        self.worker: Worker[TakenFrame] = Worker(self._work_on, 'segment')
        self._node = node
        self._segmenter = segmenter
        self._results = ResultPublishers(node)
        self.depth = DepthResults(node, config, frame_statistics)
        self._statistics = frame_statistics
        self._logged: dict[str, float] = {}
        self._newest_stamp = 0.0
        self._previous: tuple[int, Segmentation] | None = None

    @property
    def wanted(self) -> bool:
        """Whether frames are to be worked on."""
        return not self.config.lazy or self._results.wanted() or self.depth.wanted()

    def take(self, message: Image | CompressedImage) -> None:
        """Take in a frame without waiting for anything."""
        self._statistics.count('received')
        self._notice_clock_jump(message)
        if self.wanted:
            held = self.depth.hold(message.header, self.config.depth_slop)
            self.worker.put(TakenFrame(message, held))
        else:
            self._statistics.count('unwanted')

    def destroy(self) -> None:
        """Withdraw the results' topics."""
        self._results.destroy()
        self.depth.destroy()

    def _notice_clock_jump(self, message: Image | CompressedImage) -> None:
        stamp = seconds(message)
        if stamp < self._newest_stamp - CLOCK_JUMP_S:
            self._log('info', 'jump', f'time went back by {self._newest_stamp - stamp:.1f} s')
            self._statistics.forget_times()
        self._newest_stamp = stamp

    def _work_on(self, frame: TakenFrame) -> None:
        try:
            self._segment(*frame)
        except BadImage as error:
            self._statistics.count('rejected')
            topic = self._node.resolve_topic_name('image')
            self._log('warning', 'rejected', f'{topic}: frame rejected: {error}')
        except Exception as error:
            if not self._node.context.ok():  # the process is ending, its publishers are gone
                return
            self.last_error = f'{type(error).__name__}: {error}'.splitlines()[0]
            self._statistics.count('failed')
            self._log('error', type(error).__name__, f'frame lost: {self.last_error}')
            self._node.get_logger().debug(traceback.format_exc())

    def _segment(self, message: Image | CompressedImage, depth: HeldDepth | None) -> None:
        started = time.perf_counter()
        to_rgb = compressed_to_rgb if isinstance(message, CompressedImage) else image_to_rgb
        rgb = to_rgb(message, self._segmenter.config.images.sixteen_bit)
        converted = time.perf_counter()
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        segmentation = self._segment_in_memory(rgb, frame_before(self._previous, stamp))
        self._previous = stamp, segmentation
        segmented = time.perf_counter()
        self._results.publish(rgb, segmentation, message.header, self.config.label_encoding)
        published = time.perf_counter()
        self.depth.publish(rgb, segmentation, message.header, depth, self.config)
        timings_ms = {
            'convert': 1000 * (converted - started),
            **segmentation.timings_ms,
            'publish': 1000 * (published - segmented),
            'total': 1000 * (published - started),
        }
        if depth is not None:
            timings_ms['points'] = 1000 * (time.perf_counter() - published)
        age_ms = (self._node.get_clock().now().nanoseconds - stamp) / 1e6
        if stamp and age_ms >= 0:  # without /clock the simulated time stays 0
            timings_ms['age'] = age_ms
        self._statistics.add_result(timings_ms)

    def _segment_in_memory(
        self, rgb: NDArray[np.uint8], previous: Segmentation | None
    ) -> Segmentation:
        """Segment; where the GPU's memory is short, once more with half as many windows at once."""
        try:
            return self._segmenter.segment(rgb, previous)
        except RuntimeError as error:
            import torch

            if not isinstance(error, torch.cuda.OutOfMemoryError):
                raise
        config = self._segmenter.config
        batch = max(1, config.open_clip.batch // 2)
        free_memory()
        self._segmenter.reconfigure(
            dataclasses.replace(
                config, open_clip=dataclasses.replace(config.open_clip, batch=batch)
            )
        )
        self._log('warning', 'memory', f'out of GPU memory, going on with open_clip.batch {batch}')
        return self._segmenter.segment(rgb, previous)

    def _log(self, severity: str, kind: str, message: str) -> None:
        """Log unless the same kind was logged within the last seconds."""
        now = time.monotonic()
        if now - self._logged.get(kind, float('-inf')) >= LOG_EVERY_S:
            self._logged[kind] = now
            logger = self._node.get_logger()
            if severity == 'error':  # rclpy refuses one line of code that logs at two severities
                logger.error(message)
            elif severity == 'warning':
                logger.warning(message)
            else:
                logger.info(message)


def seconds(message: Image | CompressedImage) -> float:
    """Return a message's stamp in seconds."""
    stamp = message.header.stamp
    return float(stamp.sec + stamp.nanosec / 1e9)
