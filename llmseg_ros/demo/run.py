"""The demo: a bag of camera frames through the real node over DDS, every part a process."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from llmseg_ros.bags.topics import IMAGE_TOPIC
from llmseg_ros.bags.writing import write_camera_bag
from llmseg_ros.demo.scenes import camera_frames
from llmseg_ros.ros.isolation import isolated_graph
from llmseg_ros.ros.processes import check, interruptible, process, wait_for

FIRST_CLASSES = ('cat', 'cup', 'person', 'rocket', 'dog', 'chair')
LATER_CLASSES = ('rocket', 'person', 'cup', 'cat', 'table', 'dog')
OWN_FILES = (
    'frames',
    'received',
    'logs',
    'contact_sheet.png',
    'strip.jpg',
    'summary.json',
    'sent.json',
)
DRAIN_SECONDS = 30.0  # for the recorder to hear what is still under way


class DemoError(RuntimeError):
    """The demo failed; the message is one sentence that says where to look."""


@dataclass(frozen=True)
class Recording:
    """What a run of the demo leaves for its report.

    Attributes:
        frames: bag of the camera frames.
        received: bag of what the third process received.
        sent: JSON file, when each frame went out.
        peak_memory_mb: of the largest of the processes.
    """

    frames: Path
    received: Path
    sent: Path
    peak_memory_mb: float


def prepare_folder(folder: Path) -> None:
    """Make the output folder; what an earlier demo left in it goes, all else stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*(folder / name for name in OWN_FILES), *folder.glob('overlay_*.png')):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / 'logs').mkdir()


def record_demo(folder: Path, config: Path, per_scene: int, rate: float) -> Recording:
    """Play the frames into the node and record what it answers, into `folder`.

    Ctrl-C, SIGTERM and SIGHUP end every process that was started.

    Raises:
        ProcessError: one of the processes failed.
    """
    folder = folder.resolve()
    frames, received, sent = folder / 'frames', folder / 'received', folder / 'sent.json'
    print(f'writing {frames}', flush=True)
    write_camera_bag(frames, (frame for _, frame in camera_frames(per_scene)), rate)
    with ExitStack() as started, interruptible(), isolated_graph() as graph:
        environment = {**os.environ, **graph}
        print('starting the node, the recorder and the camera', flush=True)
        node = started.enter_context(process('node', node_arguments(config), folder, environment))
        recorder = started.enter_context(
            process('demo_recorder', [str(received)], folder, environment)
        )
        arguments = [str(frames), '--log', str(sent)]
        arguments += ['--classes', *FIRST_CLASSES, '--then', *LATER_CLASSES]
        camera = started.enter_context(process('demo_camera', arguments, folder, environment))
        running = {'node': node, 'demo_recorder': recorder, 'demo_camera': camera}
        wait_for('demo_camera', running, folder, say)
        recorder.terminate()
        check(recorder.wait(DRAIN_SECONDS), 'demo_recorder', folder)
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Recording(frames, received, sent, kilobytes / 1024)


def node_arguments(config: Path) -> list[str]:
    """Return the command line of the node: its parameters and where the images come from."""
    return ['--ros-args', '--params-file', str(config.resolve()), '-r', f'image:={IMAGE_TOPIC}']


def say(line: str) -> None:
    """Print how far the camera is, where that is looked at."""
    if sys.stdout.isatty():
        print(line, flush=True)
