"""The `llmseg` command.

A verb is a function in a file of its own, registered by one line below: its docstring is the
help text and has an example. At its top such a file imports only the standard library, typer
and light modules of ours; numpy, torch, OpenCV and the like are imported inside the function,
so that `llmseg --help` answers at once.

A verb reports failure by raising an exception whose message is one sentence that says what to
do: CommandError, or any exception class defined in llmseg_ros. Wrong usage is
typer.BadParameter. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

import typer

from llmseg_ros.cli.bag import bag
from llmseg_ros.cli.bench import bench
from llmseg_ros.cli.classes import classes
from llmseg_ros.cli.demo import demo
from llmseg_ros.cli.doctor import doctor
from llmseg_ros.cli.download import download
from llmseg_ros.cli.evaluate import evaluate
from llmseg_ros.cli.live import live
from llmseg_ros.cli.map import build_map
from llmseg_ros.cli.replay import replay
from llmseg_ros.cli.segment import segment
from llmseg_ros.cli.subclasses import subclasses

app = typer.Typer(
    help='Training-free segmentation of images and robot cameras by class names.',
    epilog='Set LLMSEG_TRACEBACK=1 to see where an error comes from.',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={'help_option_names': ['-h', '--help']},
)
app.command()(demo)
app.command()(live)
app.command()(segment)
app.command('map')(build_map)
app.command()(subclasses)
app.command()(evaluate)
app.command()(replay)
app.add_typer(bag, name='bag')
app.add_typer(classes, name='classes')
app.command()(bench)
app.command()(download)
app.command()(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `llmseg` and leave by SystemExit: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        write_anything(stream)
    try:
        app(arguments, prog_name='llmseg')
    except Exception as error:
        if os.environ.get('LLMSEG_TRACEBACK'):
            traceback.print_exc()
        print(f'llmseg: {one_sentence(error)}', file=sys.stderr)
        sys.exit(1)


def write_anything(stream: TextIO) -> None:
    """Let a stream escape what its encoding lacks instead of raising."""
    if hasattr(stream, 'reconfigure'):
        stream.reconfigure(errors='backslashreplace')


def one_sentence(error: Exception) -> str:
    """Say what went wrong on one line."""
    message = ' '.join(str(error).split())
    if type(error).__module__.startswith('llmseg_ros.'):
        return message
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    if isinstance(error, ModuleNotFoundError):
        return f'the Python module {error.name} is missing, `llmseg doctor` says how to get it'
    if isinstance(error, MemoryError):
        return f'out of memory: {message}' if message else 'out of memory'
    return f'internal error, please report it: {type(error).__name__}: {message}'


if __name__ == '__main__':
    main()
