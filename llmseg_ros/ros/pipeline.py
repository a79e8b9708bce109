"""The way of a frame: message, newest-frame slot of its camera, two worker threads, results."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.candidates import Found
from llmseg_ros.formats.image_messages import BadImage, compressed_to_rgb, image_to_rgb
from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.depth_subscription import HeldDepth
from llmseg_ros.ros.parameters import NodeConfig
from llmseg_ros.segmentation import frame_before
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.memory import free_memory
from llmseg_ros.system.turns import Turns
from llmseg_ros.system.worker import Worker

Result = TypeVar('Result')

LOG_EVERY_S = 10.0  # of each kind


class TakenFrame(NamedTuple):
    """A frame, its camera, and the depth kept for it where somebody wants points."""

    camera: CameraStream
    message: Image | CompressedImage
    depth: HeldDepth | None


class FrameInWork(NamedTuple):
    """A frame between the two threads.

    Attributes:
        camera: it is of.
        header: of its message.
        depth: kept for it where somebody wants points.
        stamp: in nanoseconds.
        found: what was found in it.
        started: when work on it began, by time.perf_counter.
        convert_ms: that its conversion took.
        handed_on: when the first thread was done with it.
    """

    camera: CameraStream
    header: Header
    depth: HeldDepth | None
    stamp: int
    found: Found
    started: float
    convert_ms: float
    handed_on: float


AnyFrame = TypeVar('AnyFrame', TakenFrame, FrameInWork)


class FramePipeline:
    """Segment the newest frame of each camera in turn, in threads of its own.

    What goes wrong costs that frame alone. The first thread takes a frame and finds its candidates,
    the second refines labels and publishes them; where that gains nothing, the first does
    everything.

    Attributes:
        config: of the node; may be replaced between two frames.
        cameras: that the frames are of.
    """

    def __init__(
        self,
        node: LifecycleNode,
        segmenter: Segmenter,
        config: NodeConfig,
        cameras: Sequence[CameraStream],
    ) -> None:
        self.config = config
        self.cameras = tuple(cameras)
        self._finder: Worker[TakenFrame] = Worker(
            partial(self._at_its_own_cost, self._find_in_turn), 'find', count_dropped
        )
        self._finisher: Worker[FrameInWork] = Worker(
            partial(self._at_its_own_cost, self._finish), 'finish', count_dropped
        )
        self._node = node
        self._segmenter = segmenter
        self._turns = Turns()
        self._logged: dict[str, float] = {}
        self._finish_s = 0.0  # that the second thread took for the last frame

    @property
    def segmenter(self) -> Segmenter:
        """What the frames are segmented by."""
        return self._segmenter

    @property
    def last_error(self) -> str:
        """That the last frame lost was lost to, one sentence; empty where none was."""
        return min(self.cameras, key=lambda c: c.statistics.since('failed')).last_error

    def wanted(self, camera: CameraStream) -> bool:
        """Return whether frames of a camera are to be worked on."""
        return not self.config.lazy or camera.wanted()

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

    def take(self, camera: CameraStream, message: Image | CompressedImage) -> None:
        """Take in a frame without waiting for anything."""
        if jump := camera.notice(message):
            self._log('info', camera, 'jump', f'time went back by {jump:.1f} s')
        if self.wanted(camera):
            held = camera.depth.hold(message.header, self.config.depth_slop)
            due = camera.due(self.config.max_rate, time.monotonic())
            # One that is not due still takes the place of an older one that waits.
            if not self._finder.put(TakenFrame(camera, message, held), camera, anew=due):
                camera.statistics.count('above_rate')
        else:
            camera.statistics.count('unwanted')

    def _at_its_own_cost(self, work: Callable[[AnyFrame], None], frame: AnyFrame) -> None:
        """Do one part of the work on a frame; count and log what goes wrong."""
        camera = frame.camera
        try:
            work(frame)
        except BadImage as error:
            camera.statistics.count('rejected')
            self._log('warning', camera, 'rejected', f'{camera.topic}: frame rejected: {error}')
        except Exception as error:
            if not self._node.context.ok():  # the process is ending, its publishers are gone
                return
            camera.last_error = f'{type(error).__name__}: {error}'.splitlines()[0]
            camera.statistics.count('failed')
            self._log('error', camera, type(error).__name__, f'frame lost: {camera.last_error}')
            self._node.get_logger().debug(traceback.format_exc())

    def between_frames(self, work: Callable[[], Result], timeout_s: float) -> Result:
        """Work between two frames, whether any come or not.

        Raises:
            TimeoutError: its turn did not come within the time.
        """
        with self._turns.turn(timeout_s):
            return self._in_memory(self.cameras[0], work)

    def _find_in_turn(self, taken: TakenFrame) -> None:
        with self._turns.turn():
            self._find(taken)

    def _find(self, taken: TakenFrame) -> None:
        camera, message = taken.camera, taken.message
        started = time.perf_counter()
        to_rgb = compressed_to_rgb if isinstance(message, CompressedImage) else image_to_rgb
        rgb = to_rgb(message, self._segmenter.config.images.sixteen_bit)
        convert_ms = 1000 * (time.perf_counter() - started)
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        previous = frame_before(camera.previous, stamp)
        found = self._in_memory(camera, lambda: self._segmenter.find(rgb, previous))
        camera.previous = stamp, found
        camera.results.publish_features(found, message.header)
        ended = time.perf_counter()
        if self.config.lazy and not camera.labels_wanted():
            total_ms = 1000 * (ended - started)
            camera.statistics.add_result({'convert': convert_ms, 'total': total_ms})
            return
        frame = FrameInWork(
            camera, message.header, taken.depth, stamp, found, started, convert_ms, ended
        )
        self._finisher.wait_idle()  # results in order, and one frame at most between the threads
        if not self._overlaps:
            self._finish(frame)
            return
        self._finisher.put(frame)
        # A frame taken before the second thread is nearly ready for it would grow old waiting.
        self._finisher.wait_idle(max(0.0, self._finish_s - (ended - started)))

    def _finish(self, frame: FrameInWork) -> None:
        resumed = time.perf_counter()
        camera, header, rgb = frame.camera, frame.header, frame.found.rgb
        segmentation = self._in_memory(camera, lambda: self._segmenter.finish(frame.found))
        segmented = time.perf_counter()
        camera.results.publish(rgb, segmentation, header, self.config)
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
        camera.depth.publish(rgb, segmentation, header, frame.depth, self.config)
        if frame.depth is not None:
            timings_ms['points'] = 1000 * (time.perf_counter() - published)
        camera.statistics.add_result(timings_ms)
        self._finish_s = time.perf_counter() - resumed

    def _in_memory(self, camera: CameraStream, work: Callable[[], Result]) -> Result:
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
        told = f'out of GPU memory, going on with open_clip.batch {batch}'
        self._log('warning', camera, 'memory', told)
        return work()

    def _log(self, severity: str, camera: CameraStream, kind: str, message: str) -> None:
        """Log unless the same kind was logged of the camera within the last seconds."""
        now = time.monotonic()
        key = f'{camera.name}/{kind}'
        if now - self._logged.get(key, float('-inf')) < LOG_EVERY_S:
            return
        self._logged[key] = now
        if camera.name and not message.startswith(camera.topic):
            message = f'{camera.name}: {message}'
        logger = self._node.get_logger()
        if severity == 'error':  # rclpy refuses one line of code that logs at two severities
            logger.error(message)
        elif severity == 'warning':
            logger.warning(message)
        else:
            logger.info(message)


def count_dropped(frame: TakenFrame | FrameInWork) -> None:
    """Count a frame that gave way to a newer one, or was waiting when the work stopped."""
    frame.camera.statistics.count('dropped')
