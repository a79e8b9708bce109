"""Configuration files: good ones read, bad ones refused with the setting's name."""

import dataclasses

import pytest

from llmseg_ros.config import ConfigError, SegmenterConfig, build_config
from llmseg_ros.config_files import load_config
from llmseg_ros.files import shipped_path


def test_words_that_yaml_takes_for_others(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('subclasses: {llm: off}')
    assert load_config(path).subclasses.llm == 'off'
    path.write_text('subclasses: {store: off}')
    with pytest.raises(ConfigError, match=r"store is False, expected str; .* write 'off'"):
        load_config(path)


@pytest.mark.parametrize(
    'text',
    [
        'fusion: {name: mean}\nimagenet: {short_sides: [320, 480]}',
        '/**:\n  ros__parameters:\n    fusion: {name: mean}\n'
        '    imagenet: {short_sides: [320, 480]}\n    node: {lazy: true}\n    classes: [cat]',
    ],
    ids=['plain', 'as ROS parameters'],
)
def test_settings_are_read(tmp_path, text):
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    config = load_config(path)
    assert config.fusion.name == 'mean'
    assert config.imagenet.short_sides == (320, 480)
    assert config.gate == SegmenterConfig().gate


@pytest.mark.parametrize(
    'text',
    [
        'seg:\n  ros__parameters:\n    fusion: {name: mean}\n',
        '/seg:\n  ros__parameters:\n    fusion: {name: mean}\n',
        '/left/seg:\n  ros__parameters:\n    fusion.name: mean\n',
        'left:\n  seg:\n    ros__parameters:\n      fusion: {name: mean}\n',
        '/*:\n  ros__parameters:\n    fusion: {name: mean}\n',
        '/eyes:\n  ros__parameters:\n    fusion: {name: mean}\n',
        'ros__parameters:\n  fusion: {name: mean}\n',
        '/camera:\n  ros__parameters: {rate: 3}\n'
        '/seg:\n  ros__parameters: {fusion: {name: mean}}\n',
        '/**:\n  ros__parameters: {fusion: {name: max}, use_sim_time: true}\n'
        '/seg:\n  ros__parameters: {fusion.name: mean, start_type_description_service: true}\n',
    ],
)
def test_a_parameter_file_may_name_the_node(tmp_path, text):
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    assert load_config(path) == build_config({'fusion': {'name': 'mean'}})


def test_a_parameter_file_of_other_nodes_is_refused(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('/a:\n  ros__parameters: {}\n/b/c:\n  ros__parameters: {}\n')
    with pytest.raises(ConfigError, match=r'config\.yaml: it is for /a, /b/c: name one of them'):
        load_config(path)


def test_an_empty_file_is_the_default(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('')
    assert load_config(path) == SegmenterConfig()


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        ({'fusio': {}}, "no section 'fusio'"),
        ({'fusion': {'nam': 'max'}}, 'no setting fusion.nam'),
        ({'fusion': {'name': 'best'}}, "fusion.name is 'best', expected one of paper"),
        ({'fusion': {'temperature': 'hot'}}, 'fusion.temperature .* expected float'),
        ({'fusion': {'temperature': float('nan')}}, 'fusion.temperature is nan'),
        ({'imagenet': {'short_sides': [320, 4]}}, 'imagenet.short_sides .* expected 32 to 2048'),
        ({'imagenet': {'short_sides': ['320']}}, 'imagenet.short_sides'),
        ({'imagenet': {'short_sides': []}}, 'imagenet.short_sides'),
        ({'gate': {'top_k': True}}, 'gate.top_k is True, expected int'),
        ({'gate': 3}, 'gate: expected settings by name'),
    ],
)
def test_bad_settings_are_refused(data, reason):
    with pytest.raises(ConfigError, match=reason):
        build_config(data)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [(b'a: [', 'not YAML'), (b'- a', 'settings by name'), (b'\xff\xfe\x00', 'config.yaml')],
)
def test_bad_files_are_refused(tmp_path, content, reason):
    path = tmp_path / 'config.yaml'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'absent\.yaml'):
        load_config(tmp_path / 'absent.yaml')


OF_ANOTHER_NODE = {'semantic_map.yaml'}


@pytest.mark.parametrize(
    'path',
    [p for p in sorted(shipped_path('config').glob('*.yaml')) if p.name not in OF_ANOTHER_NODE],
    ids=lambda p: p.name,
)
def test_shipped_configurations_are_good(path):
    assert isinstance(load_config(path), SegmenterConfig)


@pytest.mark.parametrize(
    'field',
    [
        pytest.param(field, id=f'{section.name}.{field.name}')
        for section in dataclasses.fields(SegmenterConfig)
        for field in dataclasses.fields(section.default)
    ],
)
def test_every_default_is_allowed_and_described(field):
    from llmseg_ros.settings import check_setting

    assert field.metadata['help']
    assert check_setting(field, field.default, field.name) == field.default


@pytest.mark.parametrize(
    ('name', 'stages'),
    [
        ('desktop', ('open_clip', 'max', 'none', 'probability', 'crf')),
        ('jetson', ('open_clip', 'max', 'none', 'probability', 'crf')),
        ('offline', ('imagenet', 'max', 'share', 'threshold', 'crf')),
        ('open_clip', ('open_clip', 'max', 'none', 'probability', 'crf')),
        ('paper', ('simseg', 'reference', 'simseg', 'minmax', 'crf_binary')),
        ('seg', ('imagenet', 'max', 'share', 'threshold', 'crf')),
        ('street', ('open_clip', 'max', 'none', 'none', 'crf')),
    ],
)
def test_presets(name, stages):
    config = load_config(shipped_path(f'config/{name}.yaml'))
    sections = (config.encoder, config.fusion, config.gate, config.background, config.refine)
    assert tuple(section.name for section in sections) == stages


@pytest.mark.parametrize('name', ['desktop', 'jetson', 'open_clip', 'street'])
def test_models_of_presets_are_usable_and_on_the_hub(name):
    from llmseg_ros.encoders.open_clip_models import check_model, pretrained_config

    clip = load_config(shipped_path(f'config/{name}.yaml')).open_clip
    assert check_model(clip.model, clip.pretrained)
    assert pretrained_config(clip.model, clip.pretrained)['hf_hub']


@pytest.mark.parametrize(
    ('name', 'command'),
    [
        ('open_clip', '`llmseg download --encoder open_clip`'),
        ('jetson', '`llmseg download --config'),
    ],
)
def test_without_weights_a_preset_says_what_downloads_them(name, command, tmp_path, monkeypatch):
    from llmseg_ros.encoders import EncoderUnavailable
    from llmseg_ros.encoders.open_clip_models import find_checkpoint

    monkeypatch.setenv('LLMSEG_CACHE', str(tmp_path))
    clip = load_config(shipped_path(f'config/{name}.yaml')).open_clip
    with pytest.raises(EncoderUnavailable) as refused:
        find_checkpoint(clip.model, clip.pretrained)
    assert command in str(refused.value)
