"""Running `llmseg` inside the test process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from llmseg_ros.cli.main import main


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Llmseg = Callable[..., Outcome]


@pytest.fixture
def llmseg(capsys: pytest.CaptureFixture[str]) -> Llmseg:
    """Run `llmseg` with arguments; return exit code, stdout and stderr."""

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        code = leaving.value.code
        printed = capsys.readouterr()
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run
