"""The constants of the presets as the papers' configurations have them, and their class names."""

from __future__ import annotations

import pytest

from llmseg_ros.classes import clean_names
from llmseg_ros.config_files import load_config, load_sections
from llmseg_ros.encoders.templates import load_templates
from llmseg_ros.evaluation.datasets import DatasetError, folder_dataset, read_lines
from llmseg_ros.evaluation.layouts import LAYOUTS, with_published_names
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.files import shipped_path

FOLDER = shipped_path('config/published')
# short side, window, stride, logit scale, threshold, least area, refiner
NONE = 0.0
CONSTANTS = {
    'naclip_voc21': (336, 0, 0, 40, 0.1, NONE, 'pamr'),
    'naclip_voc20': (336, 0, 0, 40, NONE, NONE, 'pamr'),
    'naclip_context60': (336, 224, 112, 40, 0.1, NONE, 'pamr'),
    'naclip_coco_object': (336, 224, 112, 40, 0.1, NONE, 'pamr'),
    'naclip_no_background': (336, 224, 112, 40, NONE, NONE, 'pamr'),
    'naclip_cityscapes': (560, 224, 112, 40, NONE, NONE, 'pamr'),
    'sclip_voc21': (336, 224, 112, 65, 0.1, 0.1, 'none'),
    'sclip_context60': (336, 224, 112, 50, 0.1, NONE, 'none'),
    'sclip_coco_object': (336, 224, 112, 50, 0.1, NONE, 'none'),
    'sclip_no_background': (336, 224, 112, 40, NONE, NONE, 'none'),
    'sclip_coco_stuff': (448, 224, 112, 40, NONE, NONE, 'none'),
    'sclip_cityscapes': (560, 224, 112, 40, NONE, NONE, 'none'),
    'clearclip_voc21': (448, 448, 224, 50, 0.5, NONE, 'none'),
    'clearclip_context60': (448, 448, 224, 50, 0.15, NONE, 'none'),
    'clearclip_coco_object': (448, 448, 224, 50, 0.4, NONE, 'none'),
    'clearclip_no_background': (448, 448, 224, 50, NONE, NONE, 'none'),
    'clearclip_cityscapes': (448, 224, 224, 50, NONE, NONE, 'none'),
    'maskclip_voc20': (512, 0, 0, 100, NONE, NONE, 'none'),
    'maskclip_context59': (520, 0, 0, 100, NONE, NONE, 'none'),
    'maskclip_cityscapes': (512, 0, 0, 100, NONE, NONE, 'none'),
    'chils_no_background': (336, 224, 112, 100, NONE, NONE, 'none'),
}
LOOPS = {
    'simseg_voc21': (10, 80, True),
    'simseg_context60': (30, 80, True),
    'llm_supervision_voc21': (10, 13, False),
    'llm_supervision_context60': (60, 13, False),
}


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.glob('*.yaml')} == {*CONSTANTS, *LOOPS}


@pytest.mark.parametrize('preset', CONSTANTS)
def test_constants_of_dense_clip(preset):
    config = load_config(FOLDER / f'{preset}.yaml')
    clip, background = config.open_clip, config.background
    by_probability = background.name == 'probability'
    found = (
        clip.short_side,
        *((clip.window, clip.stride) if clip.windows else (0, 0)),
        config.fusion.logit_scale,
        background.probability if by_probability else NONE,
        background.area_threshold,
        config.refine.name,
    )
    assert found == CONSTANTS[preset]
    assert by_probability or background.name == 'none'
    assert config.gate.name == 'none'
    assert clip.resize == 'opencv'
    assert (config.refine.pamr_on == 'similarities') == (config.refine.name == 'pamr')
    assert preset.startswith(('chils', clip.attention))
    assert not config.subclasses.packs
    if by_probability:
        words = 1 if 'context' in preset or 'clearclip' in preset else 26
        assert len(background.words) == words


@pytest.mark.parametrize('preset', LOOPS)
def test_constants_of_the_loops(preset):
    config = load_config(FOLDER / f'{preset}.yaml')
    templates = len(load_templates(config.simseg.templates))
    assert (config.gate.top_k, templates, config.fusion.superclass) == LOOPS[preset]
    assert config.gate.background
    assert config.gate.max_candidates == 5
    assert (config.refine.name, config.background.name) == ('crf_binary', 'minmax')


def test_templates_of_maskclip_are_85():
    assert len(load_templates('maskclip')) == 85


@pytest.mark.parametrize('path', sorted(shipped_path('config/classes/published').rglob('*.txt')))
def test_names_are_as_many_as_the_classes(path):
    """First names are classes, so they are clean and differ."""
    lines = read_lines(path, 'names')
    assert len(lines) == len(read_lines(shipped_path(f'config/classes/{path.name}'), 'names'))
    firsts = [line.split(',')[0] for line in lines]
    assert clean_names(firsts) == (firsts, [])


def small_dataset(root):
    for folder in ('images', 'labels'):
        (root / folder).mkdir()
    (root / 'classes.txt').write_text('cat\n')
    for file in ('images/a.png', 'labels/a.png'):
        (root / file).touch()
    return folder_dataset(root)


def test_the_first_paper_with_the_dataset_counts(tmp_path):
    data = small_dataset(tmp_path)
    sclip = with_published_names(data, 'voc20', ['sclip'])
    assert sclip.classes[14] == 'person'
    assert sclip.synonyms['person'][0] == 'person in shirt'
    clearclip = with_published_names(data, 'voc20', ['clearclip', 'sclip'])
    assert 'person' not in clearclip.synonyms
    assert with_published_names(data, 'ade20k', ['clearclip', 'sclip']).classes[0] == 'wall'
    with pytest.raises(DatasetError, match=r'leave out --names published'):
        with_published_names(data, 'ade20k', ['simseg'])
    with pytest.raises(DatasetError, match='folder'):
        with_published_names(data, 'folder', ['sclip'])


def test_what_has_no_label_in_coco_object_is_background(tmp_path):
    data = small_dataset(tmp_path)
    assert data.id_of_value[255] == IGNORED
    assert with_published_names(data, 'coco-object', ['sclip']).id_of_value[255] == 0
    assert with_published_names(data, 'voc', ['sclip']).id_of_value[255] == IGNORED


def test_every_preset_names_papers_that_are_here():
    papers = {path.name for path in shipped_path('config/classes/published').iterdir()}
    for preset in FOLDER.glob('*.yaml'):
        assert set(load_sections(preset)['evaluation']['names']) <= papers
    assert {'voc20', 'voc'} <= set(LAYOUTS)
