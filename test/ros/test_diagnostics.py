"""What the node tells about itself."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray

from llmseg_ros.ros.diagnostics import (
    ERROR,
    OK,
    STALE,
    WARN,
    Health,
    format_value,
    judge,
)

FINE = Health('active', active_s=60)
QUIET = Health('active', active_s=60, silent_s=5)


@pytest.mark.parametrize(
    ('health', 'level', 'message'),
    [
        (Health('active'), OK, 'segmenting'),
        (Health('inactive'), OK, 'inactive'),
        (Health('unconfigured'), OK, 'unconfigured'),
        (Health('unconfigured', last_error='no weights'), ERROR, 'not configured: no weights'),
        (Health('active', wanted=False), OK, 'idle: nobody subscribes'),
        (Health('active', classes=0), OK, 'no classes: everything is background'),
        (Health('active', active_s=60, silent_s=5), STALE, 'no frame for 5 s'),
        (Health('active', active_s=4, silent_s=float('inf')), STALE, 'no frame for 4 s'),
        (Health('active', active_s=1, silent_s=float('inf')), OK, 'segmenting'),
        (Health('active', rejected_s=2), WARN, 'frames are rejected, the log says why'),
        (Health('active', rejected_s=60), OK, 'segmenting'),
        (
            Health('active', last_error='E: e', failed_s=1, resultless_s=9),
            ERROR,
            'frames are lost: E: e',
        ),
        (
            Health('active', last_error='E: e', failed_s=9, resultless_s=1),
            WARN,
            'a frame was lost: E: e',
        ),
        (Health('active', restarted_s=1), ERROR, 'the worker thread had died and was started anew'),
        (
            Health('active', asking_error='timeout'),
            WARN,
            'no subclasses from the language model: timeout',
        ),
        (
            Health('active', active_s=60, silent_s=5, rejected_s=6, asking_error='timeout'),
            STALE,
            'no frame for 5 s; frames are rejected, the log says why; '
            'no subclasses from the language model: timeout',
        ),
        (Health('inactive', failed_s=1, silent_s=99), OK, 'inactive'),
        (Health('active', cameras={'a': FINE, 'b': FINE}), OK, 'segmenting'),
        (Health('active', cameras={'a': FINE, 'b': QUIET}), WARN, 'b: no frame for 5 s'),
        (
            Health('active', cameras={'a': QUIET, 'b': QUIET}),
            STALE,
            'a: no frame for 5 s; b: no frame for 5 s',
        ),
    ],
)
def test_judge(health: Health, level: bytes, message: str) -> None:
    assert judge(health) == (level, message)


@pytest.mark.parametrize(
    ('value', 'text'), [(0.0, '0'), (12.3456, '12.346'), (7, '7'), ('cpu', 'cpu'), (100.0, '100')]
)
def test_format_value(value: object, text: str) -> None:
    assert format_value(value) == text


def test_the_node_tells_once_a_second(seg: Any, peer: Any) -> None:
    arrays = peer.collect(DiagnosticArray, '/diagnostics')
    peer.spin_until(lambda: arrays)
    begin, before = time.monotonic(), len(arrays)
    peer.spin_until(lambda: len(arrays) == before + 3)
    assert 2 < time.monotonic() - begin < 6
    status = arrays[-1].status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert status.name == '/seg'
    assert status.level in (OK, STALE, WARN)
    assert values['state'] == 'active'
    assert values['encoder'].startswith('imagenet')
    assert re.fullmatch(r'torch|onnxruntime [\d.]+, \w+', values['runtime'])
    assert float(values['memory MiB']) > 100
    assert {'frames in', 'frames dropped', 'frames rejected', 'class version'} <= set(values)
