"""What several verbs share: class lists, configurations, progress, tables, JSON."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from llmseg_ros.files import shipped_path

if TYPE_CHECKING:
    from llmseg_ros.class_rules import Given

T = TypeVar('T')

INTERRUPTED = 130  # exit code after Ctrl-C
DEFAULT_CONFIG = 'config/offline.yaml'
ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar='FILE', help=f'Configuration.  [default: {DEFAULT_CONFIG}]'),
]
NumbersOption = Annotated[
    Path | None, typer.Option(metavar='FILE', help='Also write the numbers here.')
]
SubclassesOption = Annotated[
    Literal['configured', 'none', 'packs', 'store', 'llm'],
    typer.Option(
        help='Where subclasses come from: nowhere, the curated packs, these and earlier '
        'answers, or the language model for what is missing, asked before the first image.'
    ),
]
RayWorkersOption = Annotated[
    int | None, typer.Option(min=1, help='Of --ray: at most so many processes.')
]
TEXT_SUFFIXES = (
    *('.cfg', '.conf', '.csv', '.data', '.html', '.ini', '.json', '.jsonl', '.label', '.labels'),
    *('.list', '.log', '.lst', '.md', '.names', '.pbtxt', '.py', '.toml', '.tsv', '.txt', '.xml'),
    *('.yaml', '.yml'),
)
DepthOption = Annotated[
    str,
    typer.Option(
        metavar='TOPIC',
        help='Depth registered to the image, raw or compressedDepth; needed where there are '
        'several.',
    ),
]
OdometryOption = Annotated[
    str,
    typer.Option(metavar='TOPIC', help='nav_msgs/Odometry with the poses, where /tf lacks them.'),
]
WIDEST_LINE = 10_000  # of a table that isn't shown on a terminal: nothing is wrapped there


class CommandError(Exception):
    """A verb can't do what it was asked; the message is one sentence that says what to do."""


def parse_classes(value: str) -> list[str]:
    """Return class names as `parse_classes_and_rules`; a note says so where there are rules.

    Raises:
        CommandError: the file does not exist, can't be read, or is no class file.
    """
    names, rules = parse_classes_and_rules(value)
    if rules:
        note(f'class file {value}: the rules of its classes are not used here')
    return names


def parse_classes_and_rules(value: str) -> tuple[list[str], Given]:
    """Return class names as given, separated by commas or in a class file, and a file's rules.

    A file's `background` is left out: it is what none of the classes is.

    Raises:
        CommandError: the file does not exist, can't be read, or is no class file.
    """
    from llmseg_ros.classes import name_key
    from llmseg_ros.formats.class_files import ClassFileError, read_classes_and_rules

    path = os.path.expanduser(value)
    if not is_readable(path):  # unlike Path.is_file, False for any text
        if not is_like_a_path(value):
            return (value.split(',') if value.strip() else []), ()
        if os.path.isdir(path):
            raise CommandError(f'class file {printable(value)} is a folder')
        try:
            path = str(shipped_path(value))
        except FileNotFoundError:
            raise CommandError(f'class file {printable(value)} does not exist') from None
    try:
        (names, _), rules = read_classes_and_rules(Path(path))
        return [name for name in names if name_key(name) != 'background'], rules
    except OSError as error:
        raise CommandError(f'class file {printable(value)}: {error.strerror}') from error
    except ClassFileError as error:
        raise CommandError(f'class file {printable(value)} {error}') from error


def check_rules(rules: Given, classes: Sequence[str]) -> None:
    """Refuse rules that can't be used with a class list.

    Raises:
        CommandError: there are such.
    """
    from llmseg_ros.class_rules import clean_rules

    if refused := clean_rules(rules, classes).messages:
        raise CommandError('; '.join(refused))


def is_readable(path: str) -> bool:
    """Tell whether a text is the path of a file, or of a pipe of the shell's."""
    return os.path.isfile(path) or (path.startswith('/dev/') and os.path.exists(path))


def is_like_a_path(value: str) -> bool:
    """Tell whether a text that is no file was meant as one, rather than as class names."""
    return value.startswith(('/', './', '../', '~/')) or value.lower().endswith(TEXT_SUFFIXES)


def resolve_config(config: Path | None) -> Path:
    """Return the configuration's path: as given, else as shipped, else the default."""
    if config is not None and config.exists():
        return config
    name = DEFAULT_CONFIG if config is None else str(config)
    try:
        return shipped_path(name)
    except FileNotFoundError as error:
        raise CommandError(f'configuration {printable(name)} does not exist') from error


def has_ros() -> bool:
    """Tell whether ROS 2 and our interfaces are there."""
    from importlib.util import find_spec

    return bool(find_spec('rclpy') and find_spec('llmseg_ros.msg'))


def require_ros(what: str) -> None:
    """Raise CommandError where ROS 2 or our interfaces are missing for what is asked."""
    if not has_ros():
        raise CommandError(
            f'{what} needs ROS 2 and the built messages: run `make setup`, '
            'or build with colcon and source install/setup.sh'
        )


def printable(text: object) -> str:
    """Return a text for one line of a terminal: what could steer the terminal is escaped."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def note(message: str) -> None:
    """Write a line to stderr."""
    print(f'llmseg: {printable(message)}', file=sys.stderr, flush=True)


def track(items: Sequence[T], doing: str) -> Iterator[T]:
    """Yield the items with a progress bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, doing, console=Console(stderr=True))


@contextmanager
def ended_by_interrupt() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets; another one interrupts as usual."""
    ended = threading.Event()

    def end(number: int, frame: object) -> None:
        ended.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C do nothing while files are written that belong together."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress(total: int | None, what: str) -> Iterator[Callable[..., None]]:
    """Give a function to call after each of `total` images or frames, or with a number of them.

    Rate and time left show on stderr where that is a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda count=1: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = [BarColumn(), MofNCompleteColumn()]
    rate = TextColumn('{task.fields[rate]}')
    with Progress(*columns, rate, TimeLeft(), console=Console(stderr=True)) as bar:
        task = bar.add_task('', total=total, rate='')

        def advance(count: int = 1) -> None:
            bar.advance(task, count)
            speed = bar.tasks[task].speed
            if speed:
                bar.update(task, rate=f'{speed:.1f} {what}/s')

        yield advance


@contextmanager
def waiting(doing: str) -> Iterator[None]:
    """Show on stderr that something takes a while, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(doing):
        yield


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], whole: bool = False
) -> None:
    """Print a table to stdout, without colours and frames where that is no terminal.

    Args:
        columns: their heads.
        rows: as many cells each.
        whole: cells are not cut where the terminal is narrower, which then breaks lines itself.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(width=WIDEST_LINE) if whole or not terminal else Console()
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def percent(share: float | None) -> str:
    """Return a share in percent, and a dash where it is undefined."""
    return '-' if share is None else f'{100 * share:.2f}'
