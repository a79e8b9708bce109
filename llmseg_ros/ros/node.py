"""The lifecycle node `seg`: camera frames and class names in, label images and masks out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from llmseg_ros.config import ConfigError
from llmseg_ros.ros import qos, silence
from llmseg_ros.ros.arguments import initialize
from llmseg_ros.ros.camera import CameraStream
from llmseg_ros.ros.class_list import ClassListInterface
from llmseg_ros.ros.compat import call_after_set_parameters
from llmseg_ros.ros.describe_service import DescribeService
from llmseg_ros.ros.diagnostics import Health, frame_values, make_status
from llmseg_ros.ros.ending import end_by, launcher_gone
from llmseg_ros.ros.parameters import CLASSES, check_classes, declare_parameters, read_configs
from llmseg_ros.ros.pipeline import FramePipeline
from llmseg_ros.ros.segment_service import SegmentService
from llmseg_ros.ros.transport import choose_settings
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.frame_statistics import FrameStatistics
from llmseg_ros.system.memory import device_memory_mib, free_memory, process_memory_mib
from llmseg_ros.system.priority import lower_priority

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
FRAME_WAIT_S = 10.0  # for the frame in work when the node is deactivated
EXIT_WAIT_S = 0.5  # for the same when the process is to end
DIAGNOSTICS_PERIOD_S = 1.0
PATIENCE = 5  # niceness of the thread that describes classes


class SegNode(LifecycleNode):  # type: ignore[misc]
    """Segment what comes in on `image` into the classes named on `~/classes`.

    Callbacks only hand over: a frame to the pipeline's thread, a class list to another. The model
    is loaded while configuring, the one time the executor is held up.
    """

    def __init__(self, **options: Any) -> None:
        """Declare parameters and services; nothing is loaded before configure.

        Raises:
            ConfigError: a parameter given is of the wrong type or out of range.
        """
        super().__init__('seg', **options)
        for name in declare_parameters(self):
            self.get_logger().warning(f'there is no parameter {name!r}: what is given is not used')
        self._config, self._segmenter_config = read_configs(self)
        self._segmenter: Segmenter | None = None
        self._pipeline: FramePipeline | None = None
        self._statistics = FrameStatistics()  # of all cameras together; counts outlast cleanup
        self._of_camera = {
            name: FrameStatistics(self._statistics) for name in self._config.cameras or ('',)
        }
        self._cameras: list[CameraStream] = []
        self._state = 'unconfigured'
        self._last_error = ''
        self._restarted = float('-inf')
        self._told: set[str] = set()  # that the log has; the rest is told again when it recurs
        self._troubles: set[str] = set()
        self._following = False
        # What changes the segmenter, in order. Frames go first, or a long class list would hold
        # them up; the threads that ask a language model are this one's, and as patient.
        self._updates = ThreadPoolExecutor(1, 'updates', lower_priority, (PATIENCE,))
        self._class_list = ClassListInterface(
            self, self.get_parameter(CLASSES).value, self._updates, self._follow_classes
        )
        self._calls = (
            SegmentService(self, self._updates, self._class_list, lambda: self._pipeline),
            DescribeService(self, self._updates, lambda: self._pipeline),
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock, so that a paused or looped bag doesn't hold up the diagnostics.
        self.create_timer(
            DIAGNOSTICS_PERIOD_S, self._look_after, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.add_on_set_parameters_callback(self._check_parameters)
        call_after_set_parameters(self, self._apply_parameters)

    def start(self) -> None:
        """Configure and activate, where the parameter `node.autostart` says so."""
        if not self._config.autostart:
            self._log_waiting()
        elif self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def stop(self) -> None:
        """End all work for the process to end."""
        self._updates.shutdown(wait=False, cancel_futures=True)
        for calls in self._calls:
            calls.stop()
        if self._segmenter is not None:
            self._segmenter.close()
        self._stop_frames(EXIT_WAIT_S)

    def destroy_node(self) -> None:
        """Leave the graph, and give back the shared memory of this process.

        rclpy forgets the state machine, which keeps hold of the node: Fast DDS would leave 35 MB
        in /dev/shm, where they stay until the next start of the machine.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, describe the classes, advertise the results."""
        self._config, self._segmenter_config = read_configs(self)
        self.get_logger().info(f'loading the encoder {self._segmenter_config.encoder.name}')
        try:
            self._segmenter = Segmenter(
                self._segmenter_config,
                self._class_list.names,
                self._class_list.registry,
                rules=self._class_list.rules,
            )
            for name, statistics in self._of_camera.items():
                self._cameras.append(CameraStream(self, self._config, statistics, name))
            self._pipeline = FramePipeline(self, self._segmenter, self._config, self._cameras)
            self._class_list.attach(self._segmenter)
        except Exception as error:  # weights, files, memory: each says in a sentence what to do
            self._last_error = str(error)
            self.get_logger().error(f'cannot configure: {type(error).__name__}: {error}')
            self.get_logger().debug(traceback.format_exc())
            self._release()
            return FAILURE
        self._state, self._last_error = 'inactive', ''
        self.get_logger().info('configured: frames are heard once it is activated')
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe to the cameras."""
        assert self._pipeline is not None
        self._pipeline.start()
        for camera in self._cameras:
            camera.start(self._pipeline.take)
        self._state = 'active'
        heard = '; '.join(camera.heard for camera in self._cameras)
        self.get_logger().info(f'listening to {heard}')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe from the cameras, drop what waits, let the frame in work end."""
        self._stop_frames(FRAME_WAIT_S)
        self._state = 'inactive'
        self.get_logger().info('deactivated: frames are not heard until it is activated')
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self._release()
        self.get_logger().info("cleaned up: the model's memory is given back")
        self._log_waiting()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, and give everything back."""
        self._stop_frames(FRAME_WAIT_S)
        self._release()
        self._state = 'finalized'
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after an exception in a transition, to be tried again."""
        self._stop_frames(FRAME_WAIT_S)
        self._release()
        return SUCCESS

    def _stop_frames(self, timeout_s: float) -> None:
        for camera in self._cameras:
            camera.stop()
        if self._pipeline is not None and not self._pipeline.stop(timeout_s):
            self.get_logger().warning('the frame in work is not waited for any longer')

    def _release(self) -> None:
        self._class_list.detach()
        for camera in self._cameras:
            camera.destroy()
        self._cameras.clear()
        if self._segmenter is not None:
            self._segmenter.close()
        self._pipeline = self._segmenter = None
        self._state = 'unconfigured'
        free_memory()

    def _log_waiting(self) -> None:
        name = self.get_fully_qualified_name()
        self.get_logger().info(f'waiting to be configured: ros2 lifecycle set {name} configure')

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        try:
            read_configs(self, changed)
            for parameter in changed:
                if parameter.name == CLASSES:
                    check_classes(parameter.value)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        self._config, self._segmenter_config = read_configs(self)
        if self._pipeline is not None:
            self._pipeline.config = self._config
            self._updates.submit(self._reconfigure)
        for parameter in changed:
            if parameter.name == CLASSES and not self._following:
                self._class_list.request(check_classes(parameter.value))

    def _follow_classes(self) -> None:
        """Give the parameter the class list in force, wherever that came from."""
        self._following = True
        names = Parameter(CLASSES, Parameter.Type.STRING_ARRAY, self._class_list.names)
        self.set_parameters([names])
        self._following = False

    def _reconfigure(self) -> None:
        segmenter, config = self._segmenter, self._segmenter_config
        if segmenter is None or segmenter.config == config:
            return
        try:
            segmenter.reconfigure(config)
        except Exception as error:
            self._last_error = str(error)
            self.get_logger().error(f'the parameters were not taken: {error}')

    def _look_after(self) -> None:
        """Once a second: start a dead worker anew, name who can't be heard, tell how it goes."""
        if launcher_gone():
            self.get_logger().error('the launch that started this node is gone, so it ends')
            self.context.try_shutdown()
            return
        pipeline = self._pipeline
        if self._state == 'active' and pipeline is not None and not pipeline.alive:
            self.get_logger().error('the worker thread had died and is started anew')
            self._restarted = time.monotonic()
            pipeline.start()
        for camera in self._cameras:
            camera.agree()
        self._log_troubles()
        device = str(self._segmenter.encoder.device) if self._segmenter else ''
        healths = self._healths_of_cameras()
        status = make_status(
            self.get_fully_qualified_name(), device, self._health(healths), self._values()
        )
        message = DiagnosticArray(status=[status, *self._statuses_of_cameras(healths, device)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _log_troubles(self) -> None:
        """Warn of who can't be heard, once each, and of what else is amiss, each time anew."""
        silent = {camera.why_silent() for camera in self._cameras} - {''}
        troubles = silent | set(silence.misfits(self))
        disagreements = set(qos.incompatible_endpoints(self))
        for sentence in sorted((troubles - self._troubles) | (disagreements - self._told)):
            self.get_logger().warning(sentence)
        self._troubles = troubles
        self._told |= disagreements

    def _health(self, healths: Mapping[str, Health]) -> Health:
        pipeline = self._pipeline
        # That of the only camera is the node's own; of several each has a status of its own.
        camera = healths.get('', Health(self._state))
        named = {name: health for name, health in healths.items() if name}
        return dataclasses.replace(
            camera,
            last_error=self._last_error or (pipeline.last_error if pipeline else ''),
            wanted=camera.wanted if not named else any(h.wanted for h in named.values()),
            restarted_s=time.monotonic() - self._restarted,
            classes=len(self._class_list.label_map.classes),
            asking_error=self._segmenter.asking.problem if self._segmenter else '',
            cameras=named,
        )

    def _healths_of_cameras(self) -> dict[str, Health]:
        if self._pipeline is None:
            return {}
        return {
            camera.name: camera.health(self._state, self._pipeline.wanted(camera))
            for camera in self._cameras
        }

    def _statuses_of_cameras(
        self, healths: Mapping[str, Health], device: str
    ) -> list[DiagnosticStatus]:
        """Return a status for each camera that has a name."""
        name = self.get_fully_qualified_name()
        return [
            make_status(f'{name}/{camera.name}', device, healths[camera.name], camera.values())
            for camera in self._cameras
            if camera.name in healths and camera.name
        ]

    def _values(self) -> dict[str, object]:
        """Return what diagnostics show beside the health."""
        pipeline = self._pipeline
        values = {'state': self._state, **frame_values(self._statistics)}
        values['memory MiB'] = process_memory_mib()
        values['device memory MiB'] = device_memory_mib()
        if self._segmenter is not None:
            values['encoder'] = self._segmenter.encoder.name
            values['device'] = self._segmenter.encoder.device
            values['runtime'] = self._segmenter.encoder.runtime
            values['classes waiting for subclasses'] = self._segmenter.asking.pending
            values['language model'] = self._segmenter.asking.problem or 'no problem'
        values['classes'] = len(self._class_list.label_map.classes)
        values['class version'] = self._class_list.label_map.version
        values['last error'] = self._last_error or (pipeline.last_error if pipeline else '')
        return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; 1 where its parameters can't be used."""
    # rclpy wakes its executor at a signal; Python's own handler then ends it by an exception. Not
    # while the model is loaded: one that passes through torch's C++ aborts the process.
    end_by(signal.default_int_handler)
    try:
        choose_settings()
        initialize(arguments)
        node = SegNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
            end_by(lambda *_: leave(node))
            node.start()
            end_by(signal.default_int_handler)
            executor.spin()
    except (ConfigError, InvalidParameterTypeException) as error:
        print(f'seg_node: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    end_by(signal.SIG_IGN)
    node.stop()
    leave(node)


def leave(node: SegNode) -> NoReturn:
    """Leave the graph and end the process, whatever its threads are doing.

    Python's own end would wait for threads in the middle of a computation, and take seconds to
    take torch apart.
    """
    end_by(signal.SIG_IGN)
    node.destroy_node()
    rclpy.try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == '__main__':
    sys.exit(main())
