"""`llmseg live`: a page on which classes are typed while frames come."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmseg_ros.cli.common import (
    CommandError,
    ConfigOption,
    check_rules,
    has_ros,
    note,
    parse_classes_and_rules,
    printable,
    require_ros,
    resolve_config,
    waiting,
)

if TYPE_CHECKING:
    from llmseg_ros.live.reader import LiveSource
    from llmseg_ros.live.session import Session
    from llmseg_ros.ros.live_session import NodeSession

ASKED_S, LOOKED_S = 5.0, 1.5  # for a running node, where it is asked for and where it may be
DEMO_CLASSES = ('cat', 'cup', 'rocket', 'person')
DEMO_RATE = 4.0  # frames a second
DEMO_FRAMES = 24  # of each scene


def live(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar='[SOURCE]',
            help='`ros` (the running node), a camera number such as 0, a video file, a bag, a '
            'folder of pictures or a picture.  [default: the running node, else the photographs '
            'of the demo]',
        ),
    ] = None,
    classes: Annotated[
        str, typer.Option(help='Class names to begin with, separated by commas, or a class file.')
    ] = '',
    config: ConfigOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help='Of the page.')] = 8080,
    host: Annotated[
        str,
        typer.Option(
            help='Address to listen on; one that others reach needs the token that is printed.'
        ),
    ] = '127.0.0.1',
    node: Annotated[
        str, typer.Option(metavar='NAME', help='Of `ros`: the node, where several run.')
    ] = '',
    camera: Annotated[
        str,
        typer.Option(metavar='NAME', help='Of `ros`: the camera, where the node has several.'),
    ] = '',
    image: Annotated[
        str,
        typer.Option(metavar='TOPIC', help='Of a bag: the camera, needed where there are several.'),
    ] = '',
) -> None:
    """Show frames with their labels on a page, and take class names there.

    The page is at http://localhost:8080 until Ctrl-C. Work is done only while it is looked at.

    \b
    Examples:
      llmseg live
      llmseg live 0 --classes "cup, laptop"
      llmseg live clip.mp4 --port 8090
      llmseg live ros
    """
    from llmseg_ros.live.server import bound_socket, new_token, serve

    with bound_socket(host, port) as bound:
        session = open_session(source, classes, config, (node, camera), image)
        token = new_token(host)

        def announce() -> None:
            say_where(host, port, token)

        serve(session, bound, token, announce)
    note('ended')


def open_session(
    source: str | None, classes: str, config: Path | None, node: tuple[str, str], topic: str
) -> Session:
    """Return the running node as a session, or a segmenter of ours on a source.

    Raises:
        CommandError: the node is asked for and not there.
    """
    if topic and source in (None, 'ros'):
        raise typer.BadParameter('--image is for a bag')
    if any(node) and source not in (None, 'ros'):
        raise typer.BadParameter(f'{"--node" if node[0] else "--camera"} is for `ros`')
    if source == 'ros':
        require_ros('`llmseg live ros`')
        if config is not None:
            raise CommandError('a running node has its own configuration: leave out --config')
        session = running_node(*node, classes, ASKED_S)
        if session is None:
            raise CommandError(
                'no running node is found: start one with `ros2 launch llmseg_ros seg.launch.py`, '
                'in the same ROS_DOMAIN_ID'
            )
        return session
    if source is None and config is None and has_ros():
        with waiting('looking for a running node'):
            session = running_node(*node, classes, LOOKED_S)
        if session is not None:
            return session
    if any(node):
        name = printable('/'.join(filter(None, node)))
        raise CommandError(f'{name}: no running node is found')
    frames = demo_photographs() if source is None else named_source(source, config, topic)
    return local_session(frames, classes, config, is_demo=source is None)


def running_node(name: str, camera: str, classes: str, patience_s: float) -> NodeSession | None:
    """Return the node that runs, given these classes; None where there is none.

    Raises:
        CommandError: several run and none is named, or another is named.
        LiveError: it has no such camera, or does not answer.
    """
    from llmseg_ros.ros.live_session import Graph, NodeSession, running_nodes

    with contextlib.ExitStack() as unused:
        graph = Graph()
        unused.callback(graph.close)  # left to the end of the process its thread aborts that
        found = running_nodes(graph, patience_s)
        wanted = f'/{name.strip("/")}' if name else ''
        if len(found) == 1 and not wanted:
            wanted = found[0]
        if wanted in found:
            session = NodeSession(graph, wanted)
            session.look_at(camera)
            give_classes(session, classes)
            unused.pop_all()
            return session
    if found:
        raise CommandError(f'these nodes run: {", ".join(found)}; name one of them with --node')
    return None


def give_classes(session: NodeSession, classes: str) -> None:
    """Give a running node the classes of the command line."""
    if classes:
        names, rules = parse_classes_and_rules(classes)
        check_rules(rules, names)
        for message in session.set_classes(names, rules):
            note(message)


def named_source(source: str, config: Path | None, topic: str) -> LiveSource:
    """Return a source that opens.

    Raises:
        SourceError: it does not.
    """
    from functools import partial

    from llmseg_ros.config_files import load_config
    from llmseg_ros.frame_sources import open_source
    from llmseg_ros.live.reader import LiveSource

    sixteen_bit = load_config(resolve_config(config)).images.sixteen_bit
    opened = partial(open_source, source, topic, sixteen_bit)
    with opened() as first:
        if topic and first.kind != 'bag':
            raise typer.BadParameter('--image is for a bag')
    return LiveSource(printable(source), opened)


def demo_photographs() -> LiveSource:
    """Return the demo's photographs, panned over."""
    from llmseg_ros.demo.scenes import camera_frames
    from llmseg_ros.frame_sources import FrameSource, TimedFrame
    from llmseg_ros.live.reader import LiveSource

    def opened() -> FrameSource:
        frames = (
            TimedFrame(rgb, number / DEMO_RATE, scene.name, number)
            for number, (scene, rgb) in enumerate(camera_frames(DEMO_FRAMES))
        )
        return FrameSource('video', 'photographs', frames, lambda: None, rate=DEMO_RATE)

    return LiveSource('photographs of the demo', opened)


def local_session(source: LiveSource, classes: str, config: Path | None, is_demo: bool) -> Session:
    """Load the model for a source."""
    from llmseg_ros.config_files import load_config, load_sections
    from llmseg_ros.live.local import LocalSession
    from llmseg_ros.segmenter import Segmenter

    path = resolve_config(config)
    names, rules = parse_classes_and_rules(classes)
    check_rules(rules, names)
    names = names or saved_classes(load_sections(path).get('classes'))
    if not names and is_demo:
        names = list(DEMO_CLASSES)
    settings = load_config(path)
    with waiting('loading the model'):
        segmenter = Segmenter(settings)
        for message in segmenter.set_classes(names, rules).messages:
            note(message)
    return LocalSession(segmenter, source)


def saved_classes(names: object) -> list[str]:
    """Return the class list of a configuration file, as the page saves it."""
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CommandError('classes of the configuration: expected a list of names')
    return names


def say_where(host: str, port: int, token: str) -> None:
    """Print the page's address."""
    shown = 'localhost' if host == '127.0.0.1' else f'[{host}]' if ':' in host else host
    if token:
        import socket

        if host in ('0.0.0.0', '::'):
            shown = socket.gethostname()
        note('everyone who has this address can see the frames and change the classes')
    query = f'/?token={token}' if token else ''
    print(f'http://{shown}:{port}{query}', flush=True)
    if sys.stderr.isatty():
        note('Ctrl-C ends it')
