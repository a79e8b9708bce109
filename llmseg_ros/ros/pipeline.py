"""The way of a frame: message, newest-frame slot of its camera, two worker threads, results."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from llmseg_ros.candidates import Found
from llmseg_ros.encoders.batches import IMAGES_AT_ONCE
from llmseg_ros.formats.image_messages import BadImage, picture_to_rgb
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


class RgbFrame(NamedTuple):
    """A frame that is converted.

    Attributes:
        camera: it is of.
        header: of its message.
        depth: kept for it where somebody wants points.
        stamp: in nanoseconds.
        rgb: (H, W, 3) uint8.
        started: when work on it began, by time.perf_counter.
        convert_ms: that its conversion took.
    """

    camera: CameraStream
    header: Header
    depth: HeldDepth | None
    stamp: int
    rgb: NDArray[np.uint8]
    started: float
    convert_ms: float

    @property
    def previous(self) -> Found | None:
        """What was found in the frame before it."""
        return frame_before(self.camera.previous, self.stamp)


class FrameInWork(NamedTuple):
    """A frame in which something was found, and when that was, by time.perf_counter."""

    camera: CameraStream
    frame: RgbFrame
    found: Found
    found_at: float


AnyFrame = TypeVar('AnyFrame', TakenFrame, RgbFrame, FrameInWork)


class FramePipeline:
    """Segment the newest frame of each camera in turn, in threads of its own.

    What goes wrong costs that frame alone. The first thread takes a frame and finds its candidates,
    the second refines labels and publishes them; where that gains nothing, the first does
    everything. Where the segmenter gains by several images at once, the frames of other cameras
    that wait are taken with it.

    Attributes:
        config: of the node; may be replaced between two frames.
        cameras: that the frames are of.
        segmenter: of the frames.
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
        self._finder: Worker[TakenFrame] = Worker(self._find_in_turn, 'find', count_dropped)
        self._finisher: Worker[FrameInWork] = Worker(
            partial(self._at_its_own_cost, self._finish), 'finish', count_dropped
        )
        self._node = node
        self.segmenter = segmenter
        self._turns = Turns()
        self._logged: dict[str, float] = {}
        self._finish_s = 0.0  # that the second thread took for the last frame
        self._most_at_once = IMAGES_AT_ONCE  # that the GPU's memory was not too short for

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
        return self.segmenter.overlaps and torch.get_num_threads() > 2

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
        """Work on a frame, and on those of other cameras that are to be encoded with it."""
        with self._turns.turn():
            at_once = min(self.segmenter.images_at_once, self._most_at_once)
            frames: list[RgbFrame] = []
            for one in (taken, *self._finder.take_beside(taken.camera, at_once - 1)):
                self._at_its_own_cost(lambda one: frames.append(self._convert(one)), one)
            together = self._find_together(frames) if len(frames) > 1 else []
            for in_work in together:
                self._at_its_own_cost(self._hand_on, in_work)
            if not together:
                for frame in frames:
                    self._at_its_own_cost(self._find, frame)

    def _convert(self, taken: TakenFrame) -> RgbFrame:
        camera, message, depth = taken
        started = time.perf_counter()
        rgb = picture_to_rgb(message, self.segmenter.config.images.sixteen_bit)
        convert_ms = 1000 * (time.perf_counter() - started)
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        return RgbFrame(camera, message.header, depth, stamp, rgb, started, convert_ms)

    def _find(self, frame: RgbFrame) -> None:
        found = self._in_memory(
            frame.camera, lambda: self.segmenter.find(frame.rgb, frame.previous)
        )
        self._hand_on(FrameInWork(frame.camera, frame, found, time.perf_counter()))

    def _find_together(self, frames: Sequence[RgbFrame]) -> list[FrameInWork]:
        """Find in frames of several cameras; in none where it fails, one by one tells why."""
        import torch

        try:
            found = self.segmenter.find_all(
                [frame.rgb for frame in frames], [frame.previous for frame in frames]
            )
        except torch.cuda.OutOfMemoryError:
            self._most_at_once = len(frames) // 2
        except Exception:
            self._node.get_logger().debug(traceback.format_exc())
            return []
        else:
            found_at = time.perf_counter()
            return [
                FrameInWork(frame.camera, frame, one, found_at)
                for frame, one in zip(frames, found, strict=True)
            ]
        free_memory()
        told = f'out of GPU memory for {len(frames)} frames, going on with {self._most_at_once}'
        self._log('warning', frames[0].camera, 'at once', f'{told} at once')
        return []

    def _hand_on(self, in_work: FrameInWork) -> None:
        """Publish what needs no labels, and let them be made."""
        camera, frame, found, found_at = in_work
        camera.previous = frame.stamp, found
        camera.results.publish_features(found, frame.header)
        if self.config.lazy and not camera.labels_wanted():
            total_ms = 1000 * (time.perf_counter() - frame.started)
            camera.statistics.add_result({'convert': frame.convert_ms, 'total': total_ms})
            return
        self._finisher.wait_idle()  # results in order, and one frame at most between the threads
        if not self._overlaps:
            self._finish(in_work)
            return
        self._finisher.put(in_work)
        # A frame taken before the second thread is nearly ready for it would grow old waiting.
        self._finisher.wait_idle(max(0.0, self._finish_s - (found_at - frame.started)))

    def _finish(self, in_work: FrameInWork) -> None:
        resumed = time.perf_counter()
        camera, frame, found, found_at = in_work
        header, rgb = frame.header, frame.rgb
        segmentation = self._in_memory(camera, lambda: self.segmenter.finish(found))
        segmented = time.perf_counter()
        camera.results.publish(rgb, segmentation, header, self.config)
        published = time.perf_counter()
        timings_ms = {
            'convert': frame.convert_ms,
            **segmentation.timings_ms,
            'wait': 1000 * (resumed - found_at),
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
        config = self.segmenter.config
        batch = max(1, config.open_clip.batch // 2)
        free_memory()
        self.segmenter.reconfigure(
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
