"""Running `llmseg` inside the test process, where its output is looked at apart."""

from __future__ import annotations

from functools import partial

import pytest

from llmseg_ros.cli.main import main


def llmseg(*arguments: object) -> int:
    """Run `llmseg` with arguments; return its exit code."""
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


evaluate = partial(llmseg, 'evaluate')
replay = partial(llmseg, 'replay')
