"""Class lists for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

# What Hydra reads: declare_config of LabelSpaceConfig (src/common/label_space_config.cpp) and
# label_names of PipelineConfig (src/common/global_info.cpp, entries with label and name).
HYDRA_READS = {
    'total_semantic_labels': int,
    'dynamic_labels': list,
    'invalid_labels': list,
    'object_labels': list,
    'surface_places_labels': list,
    'label_names': list,
}


def test_a_label_space_for_hydra(llmseg: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / 'space.yaml'
    outcome = llmseg(
        *('classes', 'export', 'floor, chair, Potted plant, person', '--hydra', '--out', out),
        *('--surfaces', 'Floor', '--dynamic', 'person'),
    )
    assert outcome.code == 0, outcome.err
    assert '4 classes and background' in outcome.out
    space = yaml.safe_load(out.read_text())
    assert {name: type(value) for name, value in space.items()} == HYDRA_READS
    assert space['total_semantic_labels'] == 5
    assert (space['surface_places_labels'], space['dynamic_labels']) == ([1], [4])
    assert (space['object_labels'], space['invalid_labels']) == ([2, 3], [])
    names = {entry['label']: entry['name'] for entry in space['label_names']}
    assert names == {0: 'background', 1: 'floor', 2: 'chair', 3: 'Potted plant', 4: 'person'}
    assert all(entry.keys() == {'label', 'name'} for entry in space['label_names'])


def test_the_ids_are_those_of_the_node(llmseg: Callable[..., Any], tmp_path: Path) -> None:
    from llmseg_ros.classes import ClassRegistry

    names = ['sofa', 'lamp', 'Sofa', 'background', 'tv']
    update = ClassRegistry().update(names)
    out = tmp_path / 'space.yaml'
    outcome = llmseg('classes', 'export', ','.join(names), '--hydra', '--out', out)
    assert outcome.code == 0, outcome.err
    entries = yaml.safe_load(out.read_text())['label_names'][1:]
    assert [(e['label'], e['name']) for e in entries] == [(c.id, c.name) for c in update.classes]


@pytest.mark.parametrize(
    ('options', 'code', 'reason'),
    [
        (('--hydra', '--dynamic', 'dog'), 1, 'dog is not among the classes cat, cup'),
        ((), 2, 'say for whom: --hydra'),
    ],
    ids=['not listed', 'for nobody'],
)
def test_what_cannot_be_exported(
    llmseg: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], code: int, reason: str
) -> None:
    out = tmp_path / 'space.yaml'
    outcome = llmseg('classes', 'export', 'cat, cup', '--out', out, *options)
    assert outcome.code == code
    assert reason in outcome.err
    assert not out.exists()
