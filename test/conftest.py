"""What all tests share: the installed package, and a user who has no keys and no data."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

# As find_device does, but before any test imports torch.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the source tree first, which lacks the generated messages.
_installed = [entry for entry in sys.path if Path(entry or '.').resolve() != ROOT]
if PathFinder.find_spec('llmseg_ros', _installed):
    sys.path[:] = _installed

# A job in the background of a shell ignores Ctrl-C, and so would every process the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session', autouse=True)
def fresh_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the processes they start, off this user's keys, data and network."""
    home = tmp_path_factory.mktemp('user')
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('OPENAI_API_KEY', raising=False)
        patch.setenv('HF_HUB_OFFLINE', '1')
        for variable in ('ROS_HOME', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME', 'XDG_DATA_HOME'):
            patch.setenv(variable, str(home / variable.lower()))
        yield
