"""`bench/quality.sh`: what is there is measured, once; what is not is named."""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from llmseg_ros.config_files import load_sections
from llmseg_ros.evaluation.layouts import LAYOUTS
from llmseg_ros.files import shipped_path

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / 'bench'))
    import quality

    return quality


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two photographs in the layout of PASCAL VOC, a cat in the middle of one."""
    root = tmp_path / 'VOC2012'
    for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    for name in ('chelsea', 'coffee'):
        rgb = getattr(data, name)()
        Image.fromarray(rgb).save(root / f'JPEGImages/{name}.jpg')
        labels = np.zeros(rgb.shape[:2], np.uint8)
        labels[50:250, 100:350] = 8 * (name == 'chelsea')
        Image.fromarray(labels).save(root / f'SegmentationClass/{name}.png')
    (root / 'ImageSets/Segmentation/val.txt').write_text('chelsea\ncoffee\n')
    return root


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / 'quality.csv').open(encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_what_is_there_is_measured_and_the_rest_is_named(
    quality: Any, voc: Path, fast_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    given = ['--voc', str(voc), '--context', str(voc), '--out', str(out)]
    presets = ['--presets', 'published/naclip_voc21', 'published/llm_supervision_voc21']
    own = [*given, '--presets', '--config', str(fast_config)]
    assert quality.main([*own, *presets, '--limit', '1']) == 0
    rows = {(row['config'], row['dataset']): row for row in read_table(out)}
    measured = rows[fast_config.stem, 'voc']
    assert (measured['images'], measured['state']) == ('1', 'measured')
    assert 0 < float(measured['miou']) < 100
    states = {cell: row['state'] for cell, row in rows.items()}
    assert 'SegmentationContext/val.txt' in states[fast_config.stem, 'context60']
    assert states[fast_config.stem, 'ade20k'] == 'no data: give --ade DIR'
    naclip = rows['published/naclip_voc21', 'voc']
    assert naclip['published'] == '64.07'
    assert naclip['source'] == 'README of sinahmr/NACLIP'
    assert 'llmseg download --config config/published/naclip_voc21.yaml' in naclip['state']
    assert (
        'no data: give --coco DIR; no ' in states['published/llm_supervision_voc21', 'coco-object']
    )
    table = (out / 'quality.md').read_text(encoding='utf-8').splitlines()
    assert len(table) == 2 + len(rows)
    assert {line.count('|') for line in table} == {8}

    # the image that is done is not scored again, the other one is
    assert quality.main(own) == 0
    folder = out / f'{fast_config.stem}--voc'
    first, *scores = (folder / 'images.jsonl').read_text().splitlines()
    assert [re.search('"id": "(.*?)"', line)[1] for line in scores] == ['chelsea', 'coffee']
    before = (folder / 'report.json').stat().st_mtime_ns
    assert quality.main(own) == 0
    assert (folder / 'report.json').stat().st_mtime_ns == before
    assert read_table(out)[0]['images'] == '2'

    # scores of other settings are not added to these
    (folder / 'images.jsonl').write_text(first.replace('max', 'mean') + '\n')
    (folder / 'done.json').unlink()
    capsys.readouterr()
    assert quality.main(own) == 1
    state = read_table(out)[0]['state']
    assert re.fullmatch('failed: .* made with other settings, classes or data; remove .*', state)
    assert str(folder) in state
    assert state in capsys.readouterr().out


def test_the_command_says_what_is_missing_and_how_it_is_used(
    quality: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(ROOT / 'bench/quality.sh'), '--dry-run']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[1:]
    for layout, option in (('voc', 'voc'), ('context60', 'context'), ('ade20k', 'ade')):
        assert any(re.match(rf'offline +{layout} .*no data: give --{option} DIR', r) for r in rows)
    assert not any(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=r'^0$'):
        quality.main(['--help'])
    help_text = capsys.readouterr().out
    assert '--coco DIR' in help_text
    assert 'llmseg download' in help_text
    assert quality.main(['--presets', 'nothing']) == 2
    assert capsys.readouterr().err.startswith('no preset nothing, there are offline, ')


def test_what_can_not_be_used_is_a_sentence_before_anything_is_measured(
    quality: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same, bad, blocked = tmp_path / 'offline.yaml', tmp_path / 'bad.yaml', tmp_path / 'file'
    same.write_text('fusion: {name: mean}\n')
    bad.write_text('nonsense: {name: mean}\n')
    blocked.touch()
    for arguments, sentence in (
        (['--config', str(tmp_path / 'none.yaml')], 'none.yaml: '),
        (['--config', str(bad)], "no section 'nonsense'"),
        (['--config', str(same)], 'offline.yaml have one name: give a copy of another name'),
        (['--out', str(blocked)], 'file can not be written: '),
    ):
        assert quality.main(['--presets', 'offline', *arguments]) == 2
        assert sentence in capsys.readouterr().err
    for number in ('0', '-1', 'x'):
        with pytest.raises(SystemExit):
            quality.main(['--limit', number, '--dry-run'])
        assert f"invalid count value: '{number}'" in capsys.readouterr().err
    assert quality.main(['--presets', 'offline', 'offline', '--dry-run']) == 0
    assert capsys.readouterr().out.count('ade20k') == 1


def published_rows() -> list[tuple[str, str, str]]:
    """Return preset, dataset and mIoU of the table of docs/evaluation.md."""
    text = (ROOT / 'docs/evaluation.md').read_text(encoding='utf-8')
    found = re.findall(r'^\|[^|]*\| `(\w+)` \| `([\w-]+)` \| ([\d.]+) \|', text, re.MULTILINE)
    assert found
    return found


def test_numbers_of_the_presets_are_those_of_the_documentation() -> None:
    numbers = []
    for path in shipped_path('config/published').glob('*.yaml'):
        section = load_sections(path)['evaluation']
        layouts, published = section.get('datasets', []), section.get('published', [])
        assert set(layouts) <= set(LAYOUTS)
        assert len(published) in (0, len(layouts))
        assert bool(section.get('source')) == bool(published)
        numbers += [(path.stem, *pair) for pair in zip(layouts, published, strict=False)]
    assert sorted(numbers) == sorted((p, d, float(number)) for p, d, number in published_rows())
