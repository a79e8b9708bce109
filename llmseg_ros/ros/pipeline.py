"""The way of a frame: message, newest-frame slot, two worker threads, results."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.candidates import Found
from llmseg_ros.formats.image_messages import BadImage, compressed_to_rgb, image_to_rgb
from llmseg_ros.ros.depth_results import DepthResults
from llmseg_ros.ros.depth_subscription import HeldDepth
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.ros.results import ResultPublishers
from llmseg_ros.segmentation import frame_before
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.frame_statistics import FrameStatistics
from llmseg_ros.system.memory import free_memory
from llmseg_ros.system.worker import Worker

Item = TypeVar('Item')
Result = TypeVar('Result')

LOG_EVERY_S = 10.0  # of each kind
CLOCK_JUMP_S = 1.0  # backwards, by which a stamp is no late frame but another run of a bag


class TakenFrame(NamedTuple):
    """A frame, and the depth kept for it where somebody wants points."""

    message: Image | CompressedImage
    depth: HeldDepth | None


class FrameInWork(NamedTuple):
    """A frame between the two threads.

    Attributes:
        header: of its message.
        depth: kept for it where somebody wants points.
        stamp: in nanoseconds.
        found: what was found in it.
        started: when work on it began, by time.perf_counter.
        convert_ms: that its conversion took.
        handed_on: when the first thread was done with it.
    """

    header: Header
    depth: HeldDepth | None
    stamp: int
    found: Found
    started: float
    convert_ms: float
    handed_on: float


class FramePipeline:
    """Segment the newest frame in threads of its own; what goes wrong costs that frame alone.

    The first thread takes the newest frame and finds its candidates, the second refines labels and
    publishes them; where that gains nothing, the first does everything.

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
        self._finder: Worker[TakenFrame] = Worker(
            partial(self._at_its_own_cost, self._find), 'find'
        )
        self._finisher: Worker[FrameInWork] = Worker(
            partial(self._at_its_own_cost, self._finish), 'finish'
        )
        self._node = node
        self._segmenter = segmenter
        self._results = ResultPublishers(node)
        self.depth = DepthResults(node, config, frame_statistics)
        self._statistics = frame_statistics
        self._logged: dict[str, float] = {}
        self._newest_stamp = 0.0
        self._previous: tuple[int, Found] | None = None
        self._finish_s = 0.0  # that the second thread took for the last frame

    @property
    def wanted(self) -> bool:
        """Whether frames are to be worked on."""
        return not self.config.lazy or self._results.wanted() or self.depth.wanted()

    @property
    def _overlaps(self) -> bool:
        import torch

        if self.config.overlap != 'auto':
            return self.config.overlap == 'on'
        # on two, which the camera wants too, fewer results came, and each was older
        return self._segmenter.overlaps and torch.get_num_threads() > 2

    @property
    def alive(self) -> bool:
        """Whether both threads run."""
        return self._finder.alive and self._finisher.alive

    @property
    def dropped(self) -> int:
        """Frames that gave way to a newer one, or were waiting when the work stopped."""
        return self._finder.dropped + self._finisher.dropped

    def start(self) -> None:
        """Start the threads; where one has died, start another."""
        self._finisher.start()
        self._finder.start()

    def stop(self, timeout_s: float) -> bool:
        """Drop the frame that waits, let those in work end; False where one takes longer."""
        end = time.monotonic() + timeout_s
        in_time = self._finder.stop(timeout_s)
        self._finisher.wait_idle(max(0.0, end - time.monotonic()))
        return self._finisher.stop(max(0.0, end - time.monotonic())) and in_time

    def take(self, message: Image | CompressedImage) -> None:
        """Take in a frame without waiting for anything."""
        self._statistics.count('received')
        self._notice_clock_jump(message)
        if self.wanted:
            held = self.depth.hold(message.header, self.config.depth_slop)
            self._finder.put(TakenFrame(message, held))
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

    def _at_its_own_cost(self, work: Callable[[Item], None], item: Item) -> None:
        """Do one part of the work on a frame; count and log what goes wrong."""
        try:
            work(item)
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

    def _find(self, taken: TakenFrame) -> None:
        message = taken.message
        started = time.perf_counter()
        to_rgb = compressed_to_rgb if isinstance(message, CompressedImage) else image_to_rgb
        rgb = to_rgb(message, self._segmenter.config.images.sixteen_bit)
        convert_ms = 1000 * (time.perf_counter() - started)
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        previous = frame_before(self._previous, stamp)
        found = self._in_memory(lambda: self._segmenter.find(rgb, previous))
        self._previous = stamp, found
        ended = time.perf_counter()
        frame = FrameInWork(message.header, taken.depth, stamp, found, started, convert_ms, ended)
        self._finisher.wait_idle()  # results in order, and one frame at most between the threads
        if not self._overlaps:
            self._finish(frame)
            return
        self._finisher.put(frame)
        # A frame taken before the second thread is nearly ready for it would grow old waiting.
        self._finisher.wait_idle(max(0.0, self._finish_s - (ended - started)))

    def _finish(self, frame: FrameInWork) -> None:
        resumed = time.perf_counter()
        segmentation = self._in_memory(lambda: self._segmenter.finish(frame.found))
        segmented = time.perf_counter()
        self._results.publish(frame.found.rgb, segmentation, frame.header, self.config)
        published = time.perf_counter()
        timings_ms = {
            'convert': frame.convert_ms,
            **segmentation.timings_ms,
            'wait': 1000 * (resumed - frame.handed_on),
            'publish': 1000 * (published - segmented),
            'total': 1000 * (published - frame.started),
        }
        age_ms = (self._node.get_clock().now().nanoseconds - frame.stamp) / 1e6
        if frame.stamp and age_ms >= 0:  # without /clock the simulated time stays 0
            timings_ms['age'] = age_ms
        self.depth.publish(frame.found.rgb, segmentation, frame.header, frame.depth, self.config)
        if frame.depth is not None:
            timings_ms['points'] = 1000 * (time.perf_counter() - published)
        self._statistics.add_result(timings_ms)
        self._finish_s = time.perf_counter() - resumed

    def _in_memory(self, work: Callable[[], Result]) -> Result:
        """Work; where the GPU's memory is short, once more with half as many windows at once."""
        try:
            return work()
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
        return work()

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
