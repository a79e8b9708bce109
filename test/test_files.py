"""Files that appear only when they are complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmseg_ros.files import write_json


def test_json_is_written_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'result.json'
    write_json(path, {'name': '猫\udcff'})
    assert path.read_text(encoding='utf-8') == '{\n  "name": "猫\\udcff"\n}\n'
    with pytest.raises(ValueError, match='nan'):
        write_json(path, {'value': float('nan')})
    assert path.read_text(encoding='utf-8').startswith('{\n  "name"')
    assert list(path.parent.iterdir()) == [path]
