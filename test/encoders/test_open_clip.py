"""The open_clip encoder against a written-out reference, on small random models."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import slow_reference as slow
import torch

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.batches import IMAGES_AT_ONCE
from llmseg_ros.encoders.dense_attention import MODES
from llmseg_ros.encoders.open_clip import OpenClipEncoder, dense_forward
from llmseg_ros.encoders.open_clip_models import check_model
from llmseg_ros.encoders.runtime import OnnxRuntime
from llmseg_ros.encoders.templates import load_templates
from llmseg_ros.encoders.weights import weights_folder
from llmseg_ros.method.patches import average_windows, grid_length

from ..helpers.batches import encode_both_ways

open_clip = pytest.importorskip('open_clip')

CPU = torch.device('cpu')
ON_CPU = OnnxRuntime(CPU, ('CPUExecutionProvider',), half=False, required=True)
TINY_TILING = {'short_side': 24, 'long_side': 64, 'window': 16, 'stride': 8}


@pytest.fixture(scope='module', autouse=True)
def held(tiny_models):
    """Hold a model of each kind, so that every test shares it instead of loading it again."""
    return [make_encoder(tiny_models, name) for name in tiny_models]


def make_encoder(tiny_models, name='tiny', precision='auto', runtime=None, **settings):
    settings = {'templates': 'photo', **TINY_TILING, **settings}
    config = OpenClipConfig(model=name, pretrained=str(tiny_models[name]), **settings)
    return OpenClipEncoder(config, CPU, precision, runtime)


def slow_features(name, state, image_chw, mode, grid, positions):
    """Return projected patches (h*w, d) and the image embedding (d,) of the whole tower."""
    weights = slow.Weights(state, 'visual.')
    activation = slow.quick_gelu if name == 'tiny-quickgelu' else slow.gelu
    tokens = slow.embed_patches(image_chw, weights['conv1.weight'])
    x = np.array([weights['class_embedding'], *tokens]) + positions
    if weights.get('ln_pre.weight', None) is not None:
        x = np.array([slow.layer_norm(token, weights.part('ln_pre')) for token in x])

    def output(block, x, mode):
        """Return O of a block, then the block's full output."""
        normed = np.array([slow.layer_norm(token, block.part('ln_1')) for token in x])
        qkv = normed @ block['attn.in_proj_weight'].T + block['attn.in_proj_bias']
        mixed = slow.mix(mode, *np.split(qkv, 3, axis=1), heads=2, grid=grid)
        o = np.array([slow.linear(token, block.part('attn.out_proj')) for token in mixed])
        y = x + o * block.get('ls_1.gamma', 1)
        return o, np.array([token + feed_forward(block, token) for token in y])

    def feed_forward(block, token):
        hidden = slow.linear(slow.layer_norm(token, block.part('ln_2')), block.part('mlp.c_fc'))
        out = slow.linear(activation(hidden), block.part('mlp.c_proj'))
        return out * block.get('ls_2.gamma', 1)

    def project(token):
        return slow.layer_norm(token, weights.part('ln_post')) @ weights['proj']

    x = output(weights.part('transformer.resblocks.0'), x, 'vanilla')[1]
    last = weights.part('transformer.resblocks.1')
    o, finished = output(last, x, mode)
    dense = finished if mode in ('vanilla', 'maskclip', 'sclip') else o
    plain = output(last, x, 'vanilla')[1]
    if name == 'tiny-average':
        pooled = np.mean([project(token) for token in plain[1:]], axis=0)
    elif name == 'tiny-average-late':
        pooled = project(plain[1:].mean(axis=0))
    else:
        pooled = project(plain[0])
    return np.array([project(token) for token in dense[1:]]), pooled


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize(
    'name', ['tiny', 'tiny-quickgelu', 'tiny-scaled', 'tiny-average', 'tiny-average-late']
)
def test_features_are_those_of_the_formulas(tiny_models, name, mode):
    state = torch.load(tiny_models[name], weights_only=True)
    encoder = make_encoder(tiny_models, name, attention=mode)
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    patches, pooled = encoder._encode(image[None])
    positions = state['visual.positional_embedding'].double().numpy()
    expected = slow_features(name, state, image.double().numpy(), mode, (4, 4), positions)
    np.testing.assert_allclose(patches[0].flatten(0, 1), expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pooled[0], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('how', ['antialias', 'offset', 'plain'])
@pytest.mark.parametrize('mode', ['sclip', 'naclip'])
def test_positions_are_interpolated_to_any_grid(tiny_models, mode, how):
    state = torch.load(tiny_models['tiny'], weights_only=True)
    encoder = make_encoder(tiny_models, attention=mode, positions=how)
    grid = (3, 7)
    image = torch.randn(3, 12, 28, generator=torch.Generator().manual_seed(2))
    patches, pooled = encoder._encode(image[None])
    positions = state['visual.positional_embedding'].double().numpy()
    positions = slow.resize_positions(positions, grid, how)
    expected = slow_features('tiny', state, image.double().numpy(), mode, grid, positions)
    np.testing.assert_allclose(patches[0].flatten(0, 1), expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pooled[0], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['tiny', 'tiny-scaled', 'tiny-average', 'tiny-average-late'])
def test_pooled_is_what_open_clip_computes(tiny_models, name):
    model = open_clip.CLIP(**open_clip.get_model_config(name)).eval()
    model.load_state_dict(torch.load(tiny_models[name], weights_only=True))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model.encode_image(images)
    pooled = make_encoder(tiny_models, name)._encode(images)[1]
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mode', MODES)
def test_averaged_windows_give_the_mean_cosine_of_the_windows(tiny_models, photo, mode):
    encoder = make_encoder(tiny_models, attention=mode)
    features = encoder.encode_image(photo)  # 6 x 10 patches: windows of 4 at 0, 2 and 0, 2, 4, 6
    assert features.patches_hwd.shape == (2 * 4, 4 * 4, 20)
    unit_hwd = torch.nn.functional.normalize(features.patches_hwd, dim=-1)
    averaged_hwd = average_windows(unit_hwd, features.axes)
    assert averaged_hwd.shape == (6, 10, 20)
    whole = make_encoder(tiny_models, attention=mode, windows=False)
    image = encoded_pixels(whole, photo)
    descriptor = slow.unit(np.arange(20.0) - 7)
    cosines = [[[] for _ in range(10)] for _ in range(6)]
    pooled = []
    for top in (0, 2):
        for left in (0, 2, 4, 6):
            window = image[:, top * 4 : top * 4 + 16, left * 4 : left * 4 + 16]
            patches, embedding = whole._encode(window[None])
            pooled.append(slow.unit(embedding[0].double().numpy()))
            for y in range(4):
                for x in range(4):
                    direction = slow.unit(patches[0, y, x].double().numpy())
                    cosines[top + y][left + x].append(sum(direction * descriptor))
    expected = [[np.mean(values) for values in row] for row in cosines]
    logits = averaged_hwd.double().numpy() @ descriptor
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_allclose(features.pooled_d, np.mean(pooled, axis=0), atol=1e-6)


def encoded_pixels(encoder, rgb):
    """Return the normalised pixels an encoder makes of an image."""
    seen = []
    forward = encoder._forward
    encoder._forward = lambda visual, images, *rest: (
        seen.append(images) or forward(visual, images, *rest)
    )
    encoder.encode_image(rgb)
    return seen[0][0]


@pytest.mark.parametrize('batch', [1, 3])
def test_batches_of_windows_change_nothing(tiny_models, photo, batch):
    together = make_encoder(tiny_models, batch=16).encode_image(photo)
    apart = make_encoder(tiny_models, batch=batch).encode_image(photo)
    torch.testing.assert_close(apart.patches_hwd, together.patches_hwd, rtol=0, atol=1e-6)
    torch.testing.assert_close(apart.pooled_d, together.pooled_d, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('settings', 'batches', 'each'),
    [
        # 6 x 10, 6 x 9 and 6 x 6 patches: 2 x 4, 2 x 4 and 2 x 2 windows of 4 x 4
        ({'batch': 100}, [28], [8, 8, 8, 4]),
        ({'batch': 10}, [10, 10, 8], [8, 8, 8, 4]),
        ({'batch': 100, 'windows': False}, [2, 1, 1], [1, 1, 1, 1]),
        ({'batch': 100, 'windows': False, 'channels_last': True}, [2, 1, 1], [1, 1, 1, 1]),
        ({'batch': 1, 'windows': False}, [1, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_images_together_are_what_each_is_alone(tiny_models, photo, settings, batches, each):
    images = [photo, photo[:, :360], photo[::-1], photo[:, :240]]
    encoder = make_encoder(tiny_models, attention='naclip', **settings)
    assert encode_both_ways(encoder, images, '_forward') == (batches, each)
    assert encoder.images_at_once == min(settings['batch'], IMAGES_AT_ONCE)


def test_images_together_are_what_each_is_alone_in_onnxruntime(tiny_models, photo):
    encoder = make_encoder(tiny_models, runtime=ON_CPU, windows=False)
    images = [photo, photo[:, :360], photo[::-1]]
    assert encode_both_ways(encoder, images, '_exported') == ([2, 1], [1, 1, 1])
    assert encoder.images_at_once == 4
    assert make_encoder(tiny_models, compile=True).images_at_once == 1


def test_half_precision_and_memory_format_change_little(tiny_models, photo):
    exact = make_encoder(tiny_models).encode_image(photo)
    last = make_encoder(tiny_models, channels_last=True).encode_image(photo)
    torch.testing.assert_close(last.patches_hwd, exact.patches_hwd, rtol=0, atol=1e-5)
    half = make_encoder(tiny_models, precision='bf16').encode_image(photo)
    assert half.patches_hwd.dtype == torch.float32
    difference = (half.patches_hwd - exact.patches_hwd).abs()
    assert 1e-5 < difference.max() < 0.2  # it is half precision, and it is the same image
    assert difference.mean() < 0.02


@pytest.mark.parametrize(
    ('height', 'width', 'grid'),
    [(1, 1, (6, 6)), (3, 2, (9, 6)), (10_000, 30, (16, 1)), (30, 10_000, (1, 16))],
)
def test_every_size_of_image_has_a_bounded_grid(tiny_models, height, width, grid):
    rgb = np.full((height, width, 3), 128, np.uint8)
    for windows in (True, False):
        features = make_encoder(tiny_models, windows=windows).encode_image(rgb)
        assert tuple(map(grid_length, features.axes)) == grid
        assert average_windows(features.patches_hwd, features.axes).shape == (*grid, 20)
        assert features.patches_hwd.isfinite().all()


@pytest.mark.parametrize(
    'rgb',
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_rgb_image_is_refused(tiny_models, rgb):
    with pytest.raises(ValueError, match='image'):
        make_encoder(tiny_models).encode_image(rgb)


def test_text_is_the_mean_of_its_templates(tiny_models):
    encoder = make_encoder(tiny_models, templates='short')
    model = open_clip.CLIP(**open_clip.get_model_config('tiny')).eval()
    model.load_state_dict(torch.load(tiny_models['tiny'], weights_only=True))
    text = encoder.encode_text(['cat', 'sofa {0}'])
    for row, name in zip(text, ['cat', 'sofa {0}'], strict=True):
        directions = []
        for template in load_templates('short'):
            tokens = open_clip.SimpleTokenizer()([template.replace('{}', name)])
            with torch.no_grad():
                directions.append(slow.unit(model.encode_text(tokens)[0].double().numpy()))
        np.testing.assert_allclose(row, slow.unit(np.mean(directions, axis=0)), atol=1e-6)
    assert encoder.encode_text([]).shape == (0, 20)


def test_after_a_restart_no_text_is_encoded(tiny_models, monkeypatch):
    first = make_encoder(tiny_models).encode_text(['cat', 'dog'])

    def refuse(tokens):
        raise AssertionError('text was encoded again')

    restarted = make_encoder(tiny_models)
    monkeypatch.setattr(restarted._shared.model, 'encode_text', refuse)
    assert torch.equal(restarted.encode_text(['dog', 'cat', 'dog']), first[[1, 0, 1]])
    with pytest.raises(AssertionError, match='again'):
        restarted.encode_text(['cow'])
    other_templates = make_encoder(tiny_models, templates='short')
    with pytest.raises(AssertionError, match='again'):
        other_templates.encode_text(['cat'])


def test_two_encoders_share_a_model(tiny_models, tmp_path):
    first = make_encoder(tiny_models, attention='naclip')
    second = make_encoder(tiny_models, attention='sclip', windows=False)
    assert first._shared.model is second._shared.model
    copy = tmp_path / 'copy.pt'
    copy.write_bytes(tiny_models['tiny'].read_bytes())
    same_weights = make_encoder({'tiny': copy})
    assert same_weights._shared.model is first._shared.model
    assert make_encoder(tiny_models, 'tiny-scaled')._shared.model is not first._shared.model


def test_safetensors_and_wrapped_checkpoints_are_read(tiny_models, tmp_path, photo):
    from safetensors.torch import save_file

    state = torch.load(tiny_models['tiny'], weights_only=True)
    expected = make_encoder(tiny_models).encode_image(photo).patches_hwd
    save_file(state, tmp_path / 'plain.safetensors')
    wrapped = {'state_dict': {f'module.{key}': value for key, value in state.items()}, 'epoch': 3}
    torch.save(wrapped, tmp_path / 'wrapped.pth')
    for path in (tmp_path / 'plain.safetensors', tmp_path / 'wrapped.pth'):
        found = make_encoder({'tiny': path}).encode_image(photo).patches_hwd
        assert torch.equal(found, expected)


def test_missing_and_extra_keys_are_named(tiny_models, tmp_path):
    state = torch.load(tiny_models['tiny'], weights_only=True)
    del state['visual.proj']
    state['visual.head.weight'] = torch.zeros(1)
    state['ln_final.weight'] = torch.zeros(3)
    torch.save(state, tmp_path / 'bad.pt')
    with pytest.raises(EncoderUnavailable) as caught:
        make_encoder({'tiny': tmp_path / 'bad.pt'})
    message = str(caught.value)
    assert 'missing visual.proj' in message
    assert 'extra visual.head.weight' in message
    assert 'ln_final.weight is (3,) instead of (16,)' in message


@pytest.mark.parametrize(
    ('name', 'tag', 'reason'),
    [
        ('ViT-B-16', 'openai', 'use the model ViT-B-16-quickgelu'),
        ('ViT-B-16', 'dfn2b', 'use the model ViT-B-16-quickgelu'),
        ('ViT-B-32', 'metaclip_400m', 'use the model ViT-B-32-quickgelu'),
        ('convnext_base', 'laion400m_s13b_b51k', 'ConvNeXt of timm'),
        ('MobileCLIP2-S2', 'dfndr2b', 'FastVit of timm'),
        ('RN50', 'openai', 'ResNet'),
        ('coca_base', 'tag', 'writes captions'),
        ('coca_ViT-B-32', 'laion2b_s13b_b90k', 'attentional pooler'),
        ('ViT-B-16', 'no_such_tag', 'laion2b_s34b_b88k'),
        ('no-such-model', 'openai', 'no model'),
    ],
)
def test_models_that_do_not_fit_are_refused(cache, name, tag, reason):
    folder = weights_folder('open_clip', f'{name}--{tag}')
    folder.mkdir(parents=True)
    (folder / 'open_clip_model.safetensors').touch()
    with pytest.raises(EncoderUnavailable, match=reason):
        OpenClipEncoder(OpenClipConfig(model=name, pretrained=tag), CPU)


@pytest.mark.parametrize(
    ('name', 'tag'),
    [
        ('ViT-B-16', 'laion2b_s34b_b88k'),
        ('ViT-B-32-quickgelu', 'openai'),
        ('ViT-B-16', None),
        ('EVA02-B-16', 'merged2b_s8b_b131k'),
    ],
)
def test_models_that_fit_are_accepted(name, tag):
    assert check_model(name, tag)['embed_dim'] == 512


@pytest.mark.skipif(
    not hasattr(open_clip.CLIPVisionCfg(), 'qk_norm'), reason='this open_clip has no such blocks'
)
def test_special_blocks_are_refused(tiny_models):
    with pytest.raises(EncoderUnavailable, match='special kind'):
        check_model('tiny-special', None)


def test_absent_weights_are_told_of_at_once_without_network(cache):
    started = time.monotonic()
    with pytest.raises(EncoderUnavailable) as caught:
        OpenClipEncoder(OpenClipConfig(), CPU)
    assert time.monotonic() - started < 1
    for part in ('encoder: imagenet', 'llmseg download', str(cache)):
        assert part in str(caught.value)


def test_absent_weights_are_told_of_before_heavy_imports(cache):
    code = (
        'import sys\n'
        'from llmseg_ros.encoders import EncoderUnavailable\n'
        'from llmseg_ros.encoders.open_clip_models import find_checkpoint\n'
        'try:\n'
        "    find_checkpoint('ViT-B-16-quickgelu', 'openai')\n"
        'except EncoderUnavailable:\n'
        "    sys.exit(bool({'torch', 'open_clip', 'huggingface_hub'} & set(sys.modules)))\n"
        'sys.exit(2)\n'
    )
    started = time.monotonic()
    environment = {
        **os.environ,
        'LLMSEG_CACHE': str(cache),
        'PYTHONPATH': os.pathsep.join(sys.path),
    }
    assert subprocess.run([sys.executable, '-c', code], env=environment).returncode == 0
    assert time.monotonic() - started < 5


def test_the_image_path_is_free_of_random_state(tiny_models, photo):
    encoder = make_encoder(tiny_models)
    visual = encoder._shared.model.visual
    assert not visual.training
    first, second = (encoder.encode_image(photo).patches_hwd for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_dense_forward_compiles(tiny_models):
    visual = make_encoder(tiny_models)._shared.model.visual
    images = torch.randn(2, 3, 16, 16)
    arguments = (visual, images, 'clearclip', visual.positional_embedding)
    compiled = torch.compile(dense_forward, backend='eager', fullgraph=True)
    with torch.no_grad():
        for found, expected in zip(compiled(*arguments), dense_forward(*arguments), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('mode', MODES)
def test_onnxruntime_gives_what_torch_gives_at_any_size(tiny_models, photo, cache, mode):
    for settings in ({}, {'windows': False}, {'short_side': 36, 'batch': 3}, {'fit': 'pad'}):
        compare_runtimes(tiny_models, photo, attention=mode, **settings)
    assert len(list((cache / 'onnx').glob('*.onnx'))) == 1


@pytest.mark.parametrize('name', ['tiny-quickgelu', 'tiny-scaled', 'tiny-average-late'])
def test_onnxruntime_gives_what_torch_gives_with_every_kind_of_tower(tiny_models, photo, name):
    compare_runtimes(tiny_models, photo, name=name)
    compare_runtimes(tiny_models, photo, name=name, tower='mmseg', attention='value')


def compare_runtimes(tiny_models, photo, **settings):
    found, expected = (
        make_encoder(tiny_models, runtime=runtime, **settings).encode_image(photo)
        for runtime in (ON_CPU, None)
    )
    for name in ('patches_hwd', 'pooled_d'):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4)
    assert found.axes == expected.axes


def test_a_folder_is_exported_as_it_describes_its_model(tiny_models, photo, cache, tmp_path):
    folder = tmp_path / ('a' * 200) / 'model'  # as a whole too long for the name of a file
    folder.mkdir(parents=True)
    shutil.copy(tiny_models['tiny'], folder / 'open_clip_pytorch_model.bin')
    name = f'local-dir:{folder}'
    for model in ('tiny', 'tiny-quickgelu'):  # the same weights
        description = json.dumps({'model_cfg': open_clip.get_model_config(model)})
        (folder / 'open_clip_config.json').write_text(description)
        gc.collect()  # what the process shares goes with the last encoder that has it
        compare_runtimes({name: 'openai'}, photo, name=name)
    assert len(list((cache / 'onnx').glob('*.onnx'))) == 2


def test_once_exported_torch_holds_no_blocks_of_the_image_tower(tiny_models, photo):
    encoder = make_encoder(tiny_models, 'tiny-average', runtime=ON_CPU)
    assert encoder.runtime.startswith('onnxruntime')
    assert len(encoder._shared.model.visual.transformer.resblocks) == 0
    in_torch = make_encoder(tiny_models, 'tiny-average')
    assert in_torch.runtime == 'torch'
    assert torch.equal(encoder.encode_text(['cat']), in_torch.encode_text(['cat']))


def test_onnxruntime_in_half_precision_changes_little(tiny_models, photo):
    exact = make_encoder(tiny_models).encode_image(photo)
    half = make_encoder(tiny_models, runtime=dataclasses.replace(ON_CPU, half=True)).encode_image(
        photo
    )
    difference = (half.patches_hwd - exact.patches_hwd).abs()
    assert 1e-6 < difference.max() < 0.05
