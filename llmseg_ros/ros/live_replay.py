"""A bag's camera frames through the real node over DDS, node and player each a process."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml

from llmseg_ros.class_rules import Given
from llmseg_ros.config import ConfigError, SegmenterConfig
from llmseg_ros.config_files import load_sections
from llmseg_ros.files import writing
from llmseg_ros.ros.isolation import isolated_graph
from llmseg_ros.ros.processes import ProcessError, interruptible, process, wait_for

PARAMETERS = 'parameters.yaml'
CLASS_LIST = 'class_list.json'  # names and rules, where there are rules: no parameter has those
REFUSED = 3  # exit code of a player whose last words are for the user
NODE, PLAYER = 'node', 'replay_player'


class LiveReplayError(RuntimeError):
    """A bag can't be played into the node; the message is one sentence that says why."""


def write_parameters(
    path: Path, config: Path, settings: SegmenterConfig, names: Sequence[str], live: bool
) -> None:
    """Write the node's parameter file.

    Args:
        path: of the new file.
        config: file whose settings of the node itself are kept.
        settings: of the segmenter.
        names: class list.
        live: frames come as they come, by the bag's clock; else none may be lost.

    Raises:
        ConfigError: the node's settings in `config` are no settings.
        WriteError: the file can't be written.
    """
    given = load_sections(config).get('node', {})
    if not isinstance(given, Mapping):
        raise ConfigError(f'configuration {config}: node: expected settings by name')
    reliable = {} if live else {'image_reliability': 'reliable'}
    node = {**given, 'autostart': True, 'lazy': True, **reliable}
    sections = json.loads(json.dumps(dataclasses.asdict(settings)))  # tuples as lists
    parameters = {'classes': list(names), 'use_sim_time': live, 'node': node, **sections}
    text = yaml.safe_dump({'/**': {'ros__parameters': parameters}}, allow_unicode=True)
    with writing(path):
        path.write_text(text, encoding='utf-8')


def write_class_list(folder: Path, names: Sequence[str], rules: Given) -> None:
    """Write a class list with rules for the player, who sets it before the first frame.

    Raises:
        WriteError: the file can't be written.
    """
    path = folder / CLASS_LIST
    with writing(path):
        path.write_text(json.dumps([list(names), list(rules)]), encoding='utf-8')


def play(
    bag: Path,
    topic: str,
    folder: Path,
    say: Callable[[str], None],
    compressed: bool,
    masks: bool,
    distinct: bool,
    rate: float | None,
) -> bool:
    """Play a bag's camera into the node; leave ANSWERS and PLAYED in the folder.

    Ctrl-C, SIGTERM and SIGHUP end the play early. No process is left behind.

    Args:
        bag: to play.
        topic: of the camera.
        folder: with the node's PARAMETERS, and CLASS_LIST where there are rules.
        say: called with the number of frames sent.
        compressed: the camera's images are.
        masks: wanted as well as labels.
        distinct: leave out a frame with the stamp of one before.
        rate: of the bag's clock; None to let each frame wait for the answer before.

    Returns:
        Whether the bag was played to its end.

    Raises:
        LiveReplayError: the node or the player failed.
    """
    (folder / 'logs').mkdir()
    transport = 'compressed' if compressed else 'raw'
    node_arguments = ['--ros-args', '--params-file', str(folder / PARAMETERS)]
    node_arguments += ['-p', f'node.image_transport:={transport}']
    arguments = [str(bag), '--topic', topic, '--out', str(folder)]
    arguments += ['--masks'] * masks + ['--distinct'] * distinct
    arguments += [] if rate is None else ['--rate', str(rate)]
    with ExitStack() as started, interruptible(), isolated_graph() as graph:
        environment = {**os.environ, **graph}
        running = {
            module: started.enter_context(process(module, given, folder, environment))
            for module, given in ((NODE, node_arguments), (PLAYER, arguments))
        }
        try:
            wait_for(PLAYER, running, folder, say)
        except ProcessError as error:
            said_why = (error.module, error.code) == (PLAYER, REFUSED)
            words = f'{error.module} ended with code {error.code}: {error.last_words}'
            raise LiveReplayError(error.last_words if said_why else words) from error
        except KeyboardInterrupt:
            return False
    return True
