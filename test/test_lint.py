"""The source is clean under ruff, mypy and the import contract, set up in pyproject.toml."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


LINT_IMPORTS = 'from importlinter.cli import lint_imports_command; lint_imports_command()'


@pytest.mark.parametrize(
    'command',
    [('ruff', 'check', '.'), ('ruff', 'format', '--check', '.'), ('mypy',)],
    ids=' '.join,
)
def test_clean(command: tuple[str, ...]) -> None:
    if not importlib.util.find_spec(command[0]):
        pytest.skip(f'{command[0]} is not installed')
    result = subprocess.run(
        [sys.executable, '-m', *command], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ('importer', 'imported', 'broken'),
    [
        ('', '', 0),
        ('evaluation/metrics.py', 'llmseg_ros.ros.qos', 1),
        ('bags/topics.py', 'rclpy', 1),
        ('method/fusion.py', 'llmseg_ros.encoders', 1),
        ('class_rules.py', 'llmseg_ros.config', 1),
    ],
)
def test_import_contract(tmp_path: Path, importer: str, imported: str, broken: int) -> None:
    """It holds, and an import that runs upwards breaks it."""
    pytest.importorskip('importlinter')
    shutil.copytree(ROOT / 'llmseg_ros', tmp_path / 'llmseg_ros')
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    if importer:
        with (tmp_path / 'llmseg_ros' / importer).open('a') as file:
            file.write(f'\nimport {imported}\n')
    command = [sys.executable, '-c', LINT_IMPORTS, '--no-cache']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == broken, result.stdout + result.stderr
    assert ('BROKEN' in result.stdout) is bool(broken)


def test_no_file_is_long() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in (ROOT / 'llmseg_ros').rglob('*.py')
        if (lines := len(path.read_text(encoding='utf-8').splitlines())) > 400
    }
    assert not long
