"""`bench/preset_cost.py`: what it counts, and that the presets and the documents say so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest

from llmseg_ros.files import shipped_path

ROOT = Path(__file__).parents[1]
SIZE = (480, 640)


@pytest.fixture(scope='module')
def preset_cost() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'bench'))
        import preset_cost

        yield preset_cost


def test_operations_are_those_counted_by_hand(preset_cost: Any, tmp_path: Path) -> None:
    from random_weights import SMALL_CLIP

    model = tmp_path / 'counted.json'
    model.write_text(json.dumps(SMALL_CLIP))
    open_clip.add_model_config(model)
    preset = tmp_path / 'preset.yaml'
    preset.write_text(
        'encoder: {name: open_clip}\n'
        'open_clip: {model: counted, pretrained: ./x.pt, short_side: 48, window: 32, stride: 16}\n'
    )
    cost = preset_cost.cost_of(preset, SIZE)
    # 3 x 4 patches of 16 pixels in windows of 2 x 2, every 1: 2 rows and 3 columns of them
    assert (cost.windows, cost.grid) == (6, (2, 2))
    n, d, joint, pixels = 5, 64, 32, 3 * 16 * 16
    attention, network = 2 * n * n * d * 2, 2 * n * d * 4 * d * 2
    first = 2 * n * d * 3 * d + attention + 2 * n * d * d + network
    # the last for patches as for others, without its network, and once more for CLS alone
    of_cls = 2 * n * d * 2 + 2 * d * d + 2 * d * 4 * d * 2
    last = 2 * n * d * 3 * d + attention + 2 * n * d * d + of_cls
    window = 2 * 4 * pixels * d + first + last + 2 * n * d * joint
    assert cost.gflop == pytest.approx(6 * window / 1e9)
    random = open_clip.CLIP(**SMALL_CLIP)
    image = sum(parameter.numel() for parameter in random.visual.parameters())
    everything = sum(parameter.numel() for parameter in random.parameters())
    assert (cost.image_parameters, cost.text_parameters) == (image, everything - image)


@pytest.mark.parametrize('name', ['jetson', 'desktop', 'open_clip'])
def test_presets_and_documents_say_what_is_counted(preset_cost: Any, name: str) -> None:
    path = shipped_path(f'config/{name}.yaml')
    cost = preset_cost.cost_of(path, SIZE)
    gflop = f'{cost.gflop:.0f}'
    gigabytes = f'{(cost.image_parameters + cost.text_parameters) * 4 / 1e9:.2f} GB'
    method = (ROOT / 'docs/method.md').read_text(encoding='utf-8')
    row = re.search(rf'^\| `config/{name}\.yaml` \| .* \| {gflop} \| .*$', method, re.MULTILINE)
    assert row
    assert gigabytes in row[0]
    if name != 'open_clip':
        comment = path.read_text(encoding='utf-8').split('/**:')[0]
        assert f'{gflop} GFLOP a frame, {gigabytes} of weights' in comment
