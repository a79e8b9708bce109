"""Models as people have them: folders and repositories of the hub, half precision, tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm_tiny
import torch
from safetensors.torch import save_file

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.model_folders import model_folder, read_description
from llmseg_ros.encoders.open_clip import OpenClipEncoder
from llmseg_ros.encoders.weights import given_weights, read_state_dict, weights_folder

tokenizers = pytest.importorskip('tokenizers')

CPU = torch.device('cpu')
REPOSITORY = 'someone/tiny-siglip'
WORDS = ['<pad>', '</s>', '<unk>', 'a', 'photo', 'of', 'cat', 'dog']


@pytest.fixture(scope='module')
def snapshot(tmp_path_factory):
    """Write a SigLIP with random weights as a repository of the hub has it."""
    folder = tmp_path_factory.mktemp('snapshot')
    name = timm_tiny.register('siglip')
    config = timm_tiny.tiny_config('siglip')
    config['text_cfg'] = {
        **config['text_cfg'],
        'context_length': 8,
        'vocab_size': len(WORDS),
        'hf_tokenizer_name': REPOSITORY,
        'tokenizer_kwargs': {'clean': 'canonicalize'},
        'pool_type': 'last',
        'no_causal_mask': True,
        'proj_bias': True,
    }
    preprocess = {'mean': [0.5] * 3, 'std': [0.5] * 3, 'interpolation': 'bilinear'}
    described = {'model_cfg': config, 'preprocess_cfg': preprocess}
    (folder / 'open_clip_config.json').write_text(json.dumps(described))
    timm_tiny.factory._MODEL_CONFIGS[f'{name}-text'] = {
        **config,
        'text_cfg': {
            k: v for k, v in config['text_cfg'].items() if not k.startswith(('hf', 'tok'))
        },
    }
    state = timm_tiny.random_model(f'{name}-text').state_dict()
    save_file(state, folder / 'open_clip_model.safetensors')
    (folder / 'model.safetensors').write_bytes(b'weights of another library')
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    words = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='<unk>'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / 'tokenizer.json'))
    names = {'pad_token': '<pad>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    names['tokenizer_class'] = 'PreTrainedTokenizerFast'
    (folder / 'tokenizer_config.json').write_text(json.dumps(names))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client, whose address is read on import."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    return tmp_path / 'hub'


def put_in_cache(hub_cache: Path, snapshot: Path, revision='abc1', main='abc1') -> Path:
    """Lay a repository out as the hub's client does: blobs, and snapshots of links to them."""
    repository = hub_cache / 'models--someone--tiny-siglip'
    there = repository / 'snapshots' / revision
    for folder in (repository / 'blobs', repository / 'refs', there):
        folder.mkdir(parents=True, exist_ok=True)
    for file in snapshot.iterdir():
        blob = repository / 'blobs' / f'{revision}-{file.name}'.replace('.', '')
        shutil.copy(file, blob)
        (there / file.name).symlink_to(blob)
    (repository / 'refs' / 'main').write_text(main)
    return repository


def make_encoder(model, pretrained='openai', **settings):
    tiling = {'short_side': 24, 'window': 16, 'stride': 8, 'templates': 'photo'}
    return OpenClipEncoder(
        OpenClipConfig(model=model, pretrained=pretrained, **tiling, **settings), CPU
    )


def test_a_folder_and_a_repository_give_the_model_they_describe(snapshot, hub_cache, photo):
    put_in_cache(hub_cache, snapshot)
    by_folder = make_encoder(f'local-dir:{snapshot}')
    by_name = make_encoder(f'hf-hub:{REPOSITORY}')
    for encoder in (by_folder, by_name):
        assert encoder._shared.mean == encoder._shared.std == (0.5, 0.5, 0.5)
        assert encoder._resize == 'bilinear'
        assert encoder._shared.tag is None
    names = ['Cat!', 'dog', 'zebra']
    assert torch.equal(by_folder.encode_text(names), by_name.encode_text(names))
    found, expected = (e.encode_image(photo) for e in (by_name, by_folder))
    assert torch.equal(found.patches_hwd, expected.patches_hwd)


def test_text_is_what_open_clip_encodes_with_the_tokenizer_of_the_folder(snapshot):
    open_clip = pytest.importorskip('open_clip')
    encoder = make_encoder(f'local-dir:{snapshot}')
    tokenize = open_clip.get_tokenizer(f'local-dir:{snapshot}')
    tokens = tokenize(['a photo of a Cat.', 'a photo of a zebra.'])
    assert tokens.tolist() == [[3, 4, 5, 3, 6, 0, 0, 0], [3, 4, 5, 3, 2, 0, 0, 0]]
    expected = encoder._shared.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(encoder.encode_text(['Cat', 'zebra']), expected)


def test_a_tokenizer_mended_beside_the_same_weights_counts(snapshot, tmp_path):
    name = changed_folder(snapshot, tmp_path / 'model', 'text_cfg', tokenizer_kwargs={})
    wrong = make_encoder(name).encode_text(['Cat!'])  # no word on the list
    shutil.copy(snapshot / 'open_clip_config.json', tmp_path / 'model')
    mended = make_encoder(name).encode_text(['Cat!'])
    assert torch.equal(mended, make_encoder(f'local-dir:{snapshot}').encode_text(['Cat!']))
    assert not torch.equal(mended, wrong)


def test_scale_and_bias_of_siglip_are_those_of_the_checkpoint(snapshot):
    state = read_state_dict(given_weights(str(snapshot / 'open_clip_model.safetensors')))
    model = make_encoder(f'local-dir:{snapshot}')._shared.model
    assert model.logit_bias == state['logit_bias']
    assert model.logit_scale == state['logit_scale']


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('file', ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin'])
def test_half_precision_gives_the_rounded_weights_in_full(snapshot, tmp_path, dtype, file, photo):
    whole = make_encoder(f'local-dir:{snapshot}')
    shutil.copytree(snapshot, tmp_path / 'half')
    state = read_state_dict(snapshot / 'open_clip_model.safetensors')
    (tmp_path / 'half' / 'open_clip_model.safetensors').unlink()
    (tmp_path / 'half' / 'model.safetensors').unlink()
    half = {key: value.to(dtype) for key, value in state.items()}
    (save_file if file.endswith('safetensors') else torch.save)(half, tmp_path / 'half' / file)
    model = make_encoder(f'local-dir:{tmp_path / "half"}')._shared.model
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, half[key].float()), key
    found = make_encoder(f'local-dir:{tmp_path / "half"}').encode_image(photo).pooled_d
    expected = whole.encode_image(photo).pooled_d
    assert torch.cosine_similarity(found, expected, dim=0) > 0.999
    assert not torch.equal(found, expected)


def test_of_a_cache_the_snapshot_of_main_is_taken(snapshot, hub_cache, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(snapshot, other)
    (other / 'open_clip_model.safetensors').write_bytes(b'other')
    put_in_cache(hub_cache, snapshot, 'abc1')
    repository = put_in_cache(hub_cache, other, 'zzz9', main='abc1')
    assert model_folder(f'hf-hub:{REPOSITORY}') == repository / 'snapshots' / 'abc1'
    assert model_folder(f'local-dir:{repository}') == repository / 'snapshots' / 'abc1'
    assert given_weights(str(repository)).parent == repository / 'snapshots' / 'abc1'
    (repository / 'refs' / 'main').unlink()
    assert given_weights(str(repository)).parent == repository / 'snapshots' / 'zzz9'


def test_what_was_downloaded_goes_before_the_cache(snapshot, hub_cache, cache):
    put_in_cache(hub_cache, snapshot)
    own = weights_folder('open_clip', f'hf-hub:{REPOSITORY}')
    shutil.copytree(snapshot, own)
    assert model_folder(f'hf-hub:{REPOSITORY}') == own


def test_a_tokenizer_is_found_in_the_cache_too(snapshot, hub_cache, tmp_path):
    put_in_cache(hub_cache, snapshot)
    bare = tmp_path / 'bare'
    bare.mkdir()
    for name in ('open_clip_config.json', 'open_clip_model.safetensors'):
        shutil.copy(snapshot / name, bare)
    texts = [
        make_encoder(f'local-dir:{folder}').encode_text(['dog']) for folder in (snapshot, bare)
    ]
    assert torch.equal(*texts)
    shutil.rmtree(hub_cache)
    with pytest.raises(
        EncoderUnavailable, match=r'tokenizer of local-dir:.* not found: put'
    ) as told:
        OpenClipEncoder(OpenClipConfig(model=f'local-dir:{bare}/', short_side=32), CPU)
    assert f'tokenizer.json and tokenizer_config.json of {REPOSITORY} on the hub' in str(told.value)


def test_what_is_absent_is_told_without_network(hub_cache, tmp_path):
    with pytest.raises(EncoderUnavailable, match='run `llmseg download --config FILE`'):
        make_encoder('hf-hub:someone/absent')
    with pytest.raises(EncoderUnavailable, match='give a folder that has it beside the weights'):
        make_encoder(f'local-dir:{tmp_path}')


def changed_folder(snapshot: Path, folder: Path, part: str, **changes) -> str:
    """Copy a model with other settings in a part of its description; return its name."""
    shutil.copytree(snapshot, folder)
    path = folder / 'open_clip_config.json'
    described = json.loads(path.read_text())
    (described if part == 'preprocess_cfg' else described['model_cfg'])[part].update(changes)
    path.write_text(json.dumps(described))
    return f'local-dir:{folder}'


@pytest.mark.parametrize('trusted', [None, True])
def test_code_in_the_folder_of_a_tokenizer_is_not_run(snapshot, tmp_path, trusted, monkeypatch):
    monkeypatch.setattr('builtins.input', lambda *_: pytest.fail('the user was asked'))
    options = {} if trusted is None else {'trust_remote_code': trusted}
    name = changed_folder(snapshot, tmp_path / 'model', 'text_cfg', tokenizer_kwargs=options)
    (tmp_path / 'model/tokenizer_config.json').write_text(
        json.dumps({'tokenizer_class': 'Own', 'auto_map': {'AutoTokenizer': ['own.Own', None]}})
    )
    ran = tmp_path / 'ran'
    (tmp_path / 'model/own.py').write_text(f'open({str(ran)!r}, "w")\nclass Own: pass\n')
    with pytest.raises(EncoderUnavailable, match=r'the tokenizer in .* can not be loaded') as found:
        make_encoder(name)
    assert '\n' not in str(found.value)
    assert not ran.exists()


def test_nor_is_that_of_a_text_tower(snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr('builtins.input', lambda *_: pytest.fail('the user was asked'))
    name = changed_folder(snapshot, tmp_path / 'model', 'text_cfg', hf_model_name='a/b')
    described = {'model_type': 'own', 'auto_map': {'AutoConfig': 'own.Own'}}
    (tmp_path / 'model/config.json').write_text(json.dumps(described))
    with pytest.raises(EncoderUnavailable, match=r'auto_map\), which is not run'):
        make_encoder(name)


@pytest.mark.parametrize(
    ('part', 'changes', 'reason'),
    [
        ('vision_cfg', {'timm_model_name': 'hf-hub:a/b'}, 'an image tower from elsewhere'),
        ('vision_cfg', {'timm_model_name': 7}, 'this timm can not build'),
        ('vision_cfg', {'layers': 10**7}, 'vision_cfg has 10000000 layers'),
        ('text_cfg', {'width': 'wide'}, 'can not build local-dir:'),
        ('text_cfg', {'surprise': 1}, 'can not build local-dir:'),
        ('text_cfg', {'vocab_size': 10**12}, 'only .* bytes'),
        ('text_cfg', {'pool_type': 'none such'}, 'AssertionError'),
        ('text_cfg', {'hf_tokenizer_name': '/a/b/c'}, "'/a/b/c' is no repository of the hub"),
        ('text_cfg', {'tokenizer_kwargs': [1]}, 'the tokenizer in .* can not be loaded'),
        ('preprocess_cfg', {'std': [0, 0, 0]}, 'does not describe a model'),
        ('preprocess_cfg', {'mean': 0.5}, 'does not describe a model'),
    ],
)
def test_what_can_not_be_built_is_told_in_a_sentence(
    snapshot, hub_cache, tmp_path, part, changes, reason
):
    name = changed_folder(snapshot, tmp_path / 'model', part, **changes)
    for file in (tmp_path / 'model').glob('tokenizer*'):
        if 'hf_tokenizer_name' in changes:
            file.unlink()
    with pytest.raises(EncoderUnavailable, match=reason) as found:
        make_encoder(name)
    assert '\n' not in str(found.value)


def test_weights_a_tower_began_with_are_not_fetched(snapshot, tmp_path):
    name = changed_folder(snapshot, tmp_path / 'model', 'vision_cfg', timm_model_pretrained=True)
    assert torch.equal(*(make_encoder(n).encode_text(['cat']) for n in (
        name, f'local-dir:{snapshot}'
    )))  # fmt: skip


def test_settings_for_training_and_empty_ones_are_the_defaults(snapshot, tmp_path):
    open_clip = pytest.importorskip('open_clip')
    changes = {'interpolation': 'random', 'mean': None}
    name = changed_folder(snapshot, tmp_path / 'model', 'preprocess_cfg', **changes)
    path = tmp_path / 'model/open_clip_config.json'
    described = json.loads(path.read_text())
    described['model_cfg']['text_cfg']['vocab_size'] = 49408
    described['model_cfg']['text_cfg']['hf_tokenizer_name'] = ''
    path.write_text(json.dumps(described))
    config = {k: v for k, v in described['model_cfg'].items() if k != 'custom_text'}
    state = open_clip.CustomTextCLIP(**config).state_dict()
    save_file(state, tmp_path / 'model/open_clip_model.safetensors')
    encoder = make_encoder(name)
    assert encoder._resize == 'bicubic'
    assert encoder._shared.mean == open_clip.OPENAI_DATASET_MEAN
    assert isinstance(encoder._shared.tokenize, open_clip.SimpleTokenizer)


def test_what_is_no_name_of_a_repository_is_told():
    with pytest.raises(EncoderUnavailable, match="'a b/c/d' is no repository of the hub"):
        make_encoder('hf-hub:a b/c/d')


@pytest.mark.parametrize(
    'content',
    [
        *('{', '[]', '{"model_cfg": {}}', '{"vision_cfg": 3}', '[' * 10**5),
        '{"vision_cfg": {}, "text_cfg": [["a", 1]]}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": "x"}',
    ],
)
def test_what_describes_no_model_is_refused(tmp_path, content):
    (tmp_path / 'open_clip_config.json').write_text(content)
    with pytest.raises(EncoderUnavailable, match='does not describe a model of open_clip'):
        read_description(f'local-dir:{tmp_path}')


def test_a_description_without_weights_is_told(snapshot, tmp_path):
    shutil.copy(snapshot / 'open_clip_config.json', tmp_path)
    with pytest.raises(EncoderUnavailable, match='has no checkpoint'):
        make_encoder(f'local-dir:{tmp_path}')
