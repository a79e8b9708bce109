"""Set up an environment for the make targets: ROS 2 wheels, pinned requirements, built interfaces.

Runs on the standard library alone. What is done already is not done again: each step leaves the
hash of what it was made from in the environment's state file.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
DISTROS = ('jazzy', 'kilted')
PYTHON_RANGE = ((3, 10), (3, 14))
DISK_GB = 8
HEARTBEAT_S = 20  # between signs of life where the output is no terminal

# Of a sourced ROS 2 or another environment; mixed with the wheels they break both.
FOREIGN_VARIABLES = (
    'AMENT_PREFIX_PATH',
    'CMAKE_PREFIX_PATH',
    'COLCON_PREFIX_PATH',
    'LD_LIBRARY_PATH',
    'PYTHONHOME',
    'PYTHONPATH',
    '_ROS_WHEELS_BOOTSTRAP_COMPLETE',
)

ASIDE = re.compile('WARNING|Attempting uninstall|Found existing|Uninstalling|Successfully uninst')

FAILURES = (
    ('No space left on device', 'the disk is full'),
    (
        'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError',
        'the package index can not be reached',
    ),
    ('Python.h: No such file', "Python's headers are missing: install python3-dev"),
)


class SetupError(Exception):
    """The set-up can't go on; the message is one sentence that says what to do."""


def python_version() -> str:
    """Return this Python's version as far as it matters, such as 3.12."""
    return f'{sys.version_info[0]}.{sys.version_info[1]}'


def check_machine() -> None:
    """Look for everything that pip can't bring.

    Raises:
        SetupError: something is missing.
    """
    version = python_version()
    low, high = ('.'.join(map(str, bound)) for bound in PYTHON_RANGE)
    if not PYTHON_RANGE[0] <= sys.version_info[:2] <= PYTHON_RANGE[1]:
        raise SetupError(
            f'{sys.executable} is Python {version}, but {low} to {high} is needed: '
            'name one, as in PYTHON=python3.12 make test'
        )
    if sys.platform != 'linux' or platform.machine() != 'x86_64':
        raise SetupError(
            f'the ROS 2 wheels exist for x86-64 Linux, not for {sys.platform} on '
            f'{platform.machine()}: build in a native ROS 2 installation instead, see README.md'
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f'Python {version} lacks its venv module: install it (apt install python{version}-venv)'
        ) from None
    for compiler in ('gcc', 'g++', 'make'):
        if not shutil.which(compiler):
            raise SetupError(f'{compiler} is not found: install it (apt install build-essential)')
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        raise SetupError(
            f'Python {version} lacks its headers: install them (apt install python{version}-dev)'
        )


def check_disk(environment: Path) -> None:
    """Look for room for the whole environment.

    Raises:
        SetupError: there is less than DISK_GB.
    """
    free_gb = shutil.disk_usage(environment.parent).free / 1e9
    if free_gb < DISK_GB:
        raise SetupError(
            f'{free_gb:.1f} GB are free under {environment.parent}, the environment needs about '
            f'{DISK_GB}: make room, or work on another disk'
        )


def clean_environ() -> dict[str, str]:
    """Return this process's variables without those that would mix in another environment."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def last_line(log: Path) -> str:
    """Return the last line of a growing log that says what is being done."""
    with log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - 16384))
        lines = [line.strip() for line in file.read().decode(errors='replace').splitlines()]
    return next((line for line in reversed(lines) if line and not ASIDE.match(line)), '')


def run(command: list[str], log: Path, environ: dict[str, str]) -> None:
    """Run a command, its output in the log, and show how far it is.

    Raises:
        SetupError: it failed; the reason where the log gives a known one, and the log's place.
    """
    started = shown = time.monotonic()
    with log.open('wb') as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=log.parent,  # some leave files where they run
        )
    try:
        while process.poll() is None:
            time.sleep(0.2)
            now = time.monotonic()
            if sys.stdout.isatty():
                line = f'      {clock(now - started)} {last_line(log)}'
                print('\r\033[K' + line[: shutil.get_terminal_size().columns - 1], end='')
            elif now - shown > HEARTBEAT_S:
                shown = now
                print(f'      {clock(now - started)} {last_line(log)[:80]}', flush=True)
    finally:
        process.terminate()
        process.wait()
        if sys.stdout.isatty():
            print('\r\033[K', end='', flush=True)
    if process.returncode:
        text = log.read_text(errors='replace')
        reason = next((cause for sign, cause in FAILURES if re.search(sign, text)), None)
        errors = re.findall(r'(?im)^.*\berror\b.*$', text) or [last_line(log)]
        reason = reason or errors[-1].strip()[:200] or f'it ended with {process.returncode}'
        raise SetupError(f'{reason} (the log is {log})')


class Step(NamedTuple):
    """One step of the set-up; done once the state file has its key under its name."""

    name: str
    what: str
    key: str
    action: Callable[[], None]


class Environment:
    """The virtual environment of one ROS distribution, and the steps that make it."""

    def __init__(self, distro: str) -> None:
        self.distro = distro
        self.path = ROOT / ('.venv' if distro == DISTROS[0] else f'.venv-{distro}')
        self.state_file = self.path / 'llmseg_setup.json'
        self.build = self.path / 'build' / 'llmseg_ros'
        self.log = self.path / 'llmseg_setup.log'
        self.python = self.path / 'bin' / 'python'
        self.site_packages = self.path / 'lib' / f'python{python_version()}' / 'site-packages'

    def steps(self) -> list[Step]:
        """Return the steps in their order."""
        about = {
            'build': 'what compiles',
            f'ros-{self.distro}': f'ROS 2 {self.distro}',
            'core': 'the library, 6 GB',
            'crf': 'compiled, a minute',
            'onnx': 'faster encoders, 37 MB',
            'ray': 'clusters, 240 MB',
            'test': 'test tools',
        }
        interfaces = hash_of(
            *sorted([*ROOT.glob('msg/*.msg'), *ROOT.glob('srv/*.srv')]),
            ROOT / 'package.xml',
            ROOT / 'CMakeLists.txt',
            ROOT / 'scripts' / 'executable.py.in',
        )
        sources = [
            str(path.relative_to(ROOT))
            for folder in ('llmseg_ros', 'config', 'launch')
            for path in sorted((ROOT / folder).rglob('*'))
            if '__pycache__' not in path.parts
        ]
        interpreter = hash_of(python_version(), sys.base_prefix, str(self.path))
        return [
            Step('environment', self.path.name, interpreter, self.create),
            *(
                Step(
                    name,
                    f'requirements/{name}.txt ({what})',
                    hash_of(REQUIREMENTS / f'{name}.txt'),
                    functools.partial(self.install, name, list(about)),
                )
                for name, what in about.items()
            ),
            Step('interfaces', 'msg/ and srv/', interfaces, self.build_interfaces),
            Step('links', 'links to the source', hash_of(interfaces, *sources), self.link),
        ]

    def state(self) -> dict[str, str]:
        """Return the hash each finished step left; none where pip was cut off half-way."""
        try:
            state = json.loads(self.state_file.read_text())
            cut_off = state.pop('installing', None)
            if cut_off and 'Installing collected packages' in self.log.read_text(errors='replace'):
                return {}
        except (OSError, ValueError):
            return {}
        return state

    def set_up(self) -> None:
        """Do the steps that are not done.

        Raises:
            SetupError: one can't be done.
        """
        started = time.monotonic()
        state = self.state()
        steps = self.steps()
        if state.get('environment') != steps[0].key:
            state = {}  # no environment, a broken one, or one of another Python: make it anew
        todo = [step for step in steps if state.get(step.name) != step.key]
        if not todo:
            return
        print(f'setting up {self.path.name} with Python {python_version()}', flush=True)
        check_machine()
        if not state:
            check_disk(self.path)
        for number, step in enumerate(todo, start=1):
            print(f'[{number}/{len(todo)}] {step.what}', flush=True)
            step_started = time.monotonic()
            state.pop(step.name, None)
            if step.what.startswith('requirements/'):
                self.state_file.write_text(json.dumps({**state, 'installing': step.name}))
            step.action()
            state[step.name] = step.key
            self.state_file.write_text(json.dumps(state))
            print(f'      done in {clock(time.monotonic() - step_started)}', flush=True)
        print(f'{self.path.name} is ready, {clock(time.monotonic() - started)}', flush=True)

    def create(self) -> None:
        """Make an empty environment, in place of one that may be there."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()
        base = getattr(sys, '_base_executable', sys.executable)
        run([base, '-m', 'venv', str(self.path)], self.log, clean_environ())

    def install(self, name: str, requirements: list[str]) -> None:
        """Install a requirements file, with the pins of all of them in force."""
        pip = [str(self.python), '-m', 'pip', 'install']
        options = ['--disable-pip-version-check', '--no-input', '--progress-bar', 'off']
        if name == 'crf':
            options.append('--no-build-isolation')  # with build.txt's Cython, not its own
        files = ['-r', f'{REQUIREMENTS / name}.txt']
        for other in requirements:
            files += ['-c', f'{REQUIREMENTS / other}.txt']
        run([*pip, *options, *files], self.log, clean_environ())
        if name.startswith('ros-'):
            self.relocate()

    def relocate(self) -> None:
        """Let the wheels' CMake files name this Python, not the one they were built with."""
        library = self.site_packages.as_posix()
        include = sysconfig.get_path('include')
        for file in (self.path / 'share').rglob('*.cmake'):
            text = file.read_text()
            here = re.sub(r'/opt/python/[^/;"]+/lib/python[\d.]+/site-packages', library, text)
            here = re.sub(r'/opt/python/[^/;"]+/include/python[\d.]+', include, here)
            if here != text:
                file.write_text(here)

    def build_interfaces(self) -> None:
        """Generate and compile the messages and services, from nothing."""
        shutil.rmtree(self.build, ignore_errors=True)
        cmake = str(self.path / 'bin' / 'cmake')
        settings = {
            'AMENT_CMAKE_SYMLINK_INSTALL': 'ON',
            'BUILD_TESTING': 'OFF',
            'CMAKE_INSTALL_PREFIX': self.path,
            'Python3_EXECUTABLE': self.python,
        }
        defines = [f'-D{name}={value}' for name, value in settings.items()]
        build = ['--build', str(self.build), '--parallel', str(os.cpu_count() or 1)]
        environ = self.build_environ()
        run([cmake, '-S', str(ROOT), '-B', str(self.build), *defines], self.log, environ)
        run([cmake, *build], self.log, environ)

    def link(self) -> None:
        """Install the interfaces and, as links, the Python source, launch files and configuration.

        Links show an edit at once. A link whose file is gone is removed.
        """
        install = [str(self.path / 'bin' / 'cmake'), '--install', str(self.build)]
        run(install, self.log, self.build_environ())
        folders = ('share/llmseg_ros', 'lib/llmseg_ros', 'include/llmseg_ros')
        for folder in (self.site_packages / 'llmseg_ros', *(self.path / f for f in folders)):
            for path in folder.rglob('*'):
                if path.is_symlink() and not path.exists():
                    path.unlink()

    def build_environ(self) -> dict[str, str]:
        """Return the variables under which CMake finds the wheels."""
        environ = clean_environ()
        environ['AMENT_PREFIX_PATH'] = environ['CMAKE_PREFIX_PATH'] = str(self.path)
        environ['PATH'] = f'{self.path / "bin"}{os.pathsep}{environ.get("PATH", os.defpath)}'
        return environ


def hash_of(*parts: str | Path) -> str:
    """Return a hash of texts and of the names and contents of files."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            digest.update(part.name.encode() + b'\0' + part.read_bytes())
        else:
            digest.update(part.encode())
        digest.update(b'\0')
    return digest.hexdigest()


def main() -> None:
    """Set up the environment of the distribution named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('distro', help=' or '.join(DISTROS))
    distro = parser.parse_args().distro
    if distro not in DISTROS:
        sys.exit(
            f'set-up: there are wheels of ROS 2 {" and ".join(DISTROS)}, not of {distro}: '
            f'name one, as in ROS_DISTRO={DISTROS[0]} make test'
        )
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('waiting for another set-up of this folder', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        Environment(distro).set_up()
    except SetupError as error:
        sys.exit(f'set-up: {error}')
    except OSError as error:
        sys.exit(f'set-up: {error}: give this folder room and write permission')
    except KeyboardInterrupt:
        sys.exit('set-up: interrupted; run it again to go on')


if __name__ == '__main__':
    main()
