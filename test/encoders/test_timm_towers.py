"""Towers of timm against a written-out reference and against open_clip, on small random models."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import slow_reference as slow
import torch

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.dense_attention import MODES
from llmseg_ros.encoders.open_clip import OpenClipEncoder, dense_tower
from llmseg_ros.encoders.open_clip_models import check_model
from llmseg_ros.encoders.runtime import OnnxRuntime
from llmseg_ros.encoders.timm_towers import dense_forward, grid_constants, patch_side
from llmseg_ros.encoders.weights import checksum

open_clip = pytest.importorskip('open_clip')

import timm_tiny  # noqa: E402
from slow_timm import SlowTower  # noqa: E402

CPU = torch.device('cpu')
WIDE = ('mobileclip', 'vitamin', 'vitamin-xl')  # their stems have a width of their own
OTHER_GRIDS = {'siglip': (3, 5), 'eva02': (5, 2), 'pe': (3, 5), 'registers': (2, 6)}


@pytest.fixture(scope='module')
def models():
    """Return a random model of each kind by name."""
    return {kind: timm_tiny.random_model(timm_tiny.register(kind)) for kind in timm_tiny.KINDS}


def random_image(model, grid, seed=1):
    patch = patch_side(model.visual)
    size = grid[0] * patch, grid[1] * patch
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def features(model, image, grid, mode):
    constants = grid_constants(model.visual, grid, 'antialias', mode, CPU)
    with torch.no_grad():
        patches, pooled = dense_forward(model.visual, image, mode, *constants)
    return patches[0], pooled[0]


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('kind', timm_tiny.KINDS)
def test_features_are_those_of_the_formulas(models, kind, mode):
    model = models[kind]
    side = timm_tiny.KINDS[kind].size // patch_side(model.visual)
    grid = OTHER_GRIDS.get(kind, (side, side))
    image = random_image(model, grid)
    found = features(model, image, grid, mode)
    tower = SlowTower(model, kind)
    positions = tower.positions(grid, side)
    expected = tower.features(image[0].double().numpy(), mode, grid, positions)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize('grid', ['own', (3, 5)])
@pytest.mark.parametrize('kind', timm_tiny.KINDS)
def test_vanilla_is_what_open_clip_computes(models, kind, grid):
    model = copy.deepcopy(models[kind])
    side = timm_tiny.KINDS[kind].size // patch_side(model.visual)
    grid = (side, side) if grid == 'own' else grid
    image = random_image(model, grid)
    patches, pooled = features(model, image, grid, 'vanilla')
    if grid != (side, side):
        model.visual.set_input_size(tuple(image.shape[2:]))
    with torch.no_grad():
        embedding = model.encode_image(image)[0]
        last = model.visual.forward_intermediates(
            image, indices=1, normalize_intermediates=True, intermediates_only=True
        )['image_intermediates'][0]
        tokens = last.flatten(2).transpose(1, 2)[0][:, None]
        trunk = model.visual.trunk
        # a token as if the image had no other, through timm's own pool and head
        pooled_alone = trunk.attn_pool(tokens) if trunk.attn_pool is not None else tokens[:, 0]
        alone = model.visual.head(trunk.head(trunk.fc_norm(pooled_alone)))
    torch.testing.assert_close(pooled, embedding, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(patches, alone, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope='module')
def checkpoints(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp('timm')
    for kind in ('siglip', 'eva02'):
        torch.save(models[kind].state_dict(), folder / f'{kind}.pt')
    return folder


def make_encoder(checkpoints, kind, runtime=None, **settings):
    tiling = {'short_side': 24, 'long_side': 64, 'window': 16, 'stride': 8}
    config = OpenClipConfig(
        model=f'tiny-timm-{kind}',
        pretrained=str(checkpoints / f'{kind}.pt'),
        **{'templates': 'photo', **tiling, **settings},
    )
    return OpenClipEncoder(config, CPU, runtime=runtime)


@pytest.mark.parametrize('kind', ['siglip', 'eva02'])
def test_the_encoder_takes_such_a_tower(checkpoints, photo, kind):
    encoder = make_encoder(checkpoints, kind)
    found = encoder.encode_image(photo)  # 6 x 10 patches: windows of 4 at 0, 2 and 0, 2, 4, 6
    width = encoder.encode_text(['cat']).shape[1]
    assert found.patches_hwd.shape == (2 * 4, 4 * 4, width)
    assert encoder.encode_text([]).shape == (0, width)
    whole = make_encoder(checkpoints, kind, windows=False).encode_image(photo)
    assert whole.patches_hwd.shape == (6, 10, width)
    window = found.input_3hw[None, :, :16, :16]
    constants = grid_constants(encoder._visual, (4, 4), 'antialias', 'naclip', CPU)
    expected = dense_forward(encoder._visual, window, 'naclip', *constants)[0]
    torch.testing.assert_close(found.patches_hwd[:4, :4].flatten(0, 1), expected[0])


ON_CPU = OnnxRuntime(CPU, ('CPUExecutionProvider',), half=False, required=True)
# the others have no operation that these have not; an export takes half a second
EXPORTED = ('siglip', 'eva02-e', 'pe', 'mobileclip', 'vitamin')


@pytest.mark.parametrize(
    ('kind', 'mode'),
    [*((kind, 'naclip') for kind in EXPORTED), *(('eva02', mode) for mode in MODES)],
)
def test_onnxruntime_gives_what_torch_gives(models, tmp_path, cache, kind, mode):
    pytest.importorskip('onnxruntime')
    path = tmp_path / 'weights.pt'
    torch.save(models[kind].state_dict(), path)
    config = OpenClipConfig(f'tiny-timm-{kind}', str(path), mode)
    tower = ON_CPU.open(dense_tower(config, checksum(path)))
    patch = patch_side(models[kind].visual)
    for count, grid in ((1, (4, 4)), (3, (2, 5))):  # one graph for all
        size = grid[0] * patch, grid[1] * patch
        images = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(2))
        constants = grid_constants(models[kind].visual, grid, 'antialias', mode, CPU)
        with torch.no_grad():
            expected = dense_forward(models[kind].visual, images, mode, *constants)
        found = tower(images, *(constant for constant in constants if constant is not None))
        for ours, theirs in zip(found, expected, strict=True):
            scale = float(theirs.abs().max())
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * scale)
    assert len(list((cache / 'onnx').glob('*.onnx'))) == 1


@pytest.mark.parametrize('kind', ['siglip', 'eva02'])
def test_the_encoder_runs_it_in_onnxruntime_and_drops_its_blocks(checkpoints, photo, cache, kind):
    pytest.importorskip('onnxruntime')
    encoder = make_encoder(checkpoints, kind, ON_CPU)
    assert encoder.runtime.startswith('onnxruntime ')
    assert len(encoder._visual.trunk.blocks) == 0
    found = encoder.encode_image(photo)
    expected = make_encoder(checkpoints, kind).encode_image(photo)
    scale = float(expected.patches_hwd.abs().max())
    torch.testing.assert_close(
        found.patches_hwd, expected.patches_hwd, rtol=1e-4, atol=1e-4 * scale
    )
    torch.testing.assert_close(found.pooled_d, expected.pooled_d, rtol=1e-4, atol=1e-4)


def test_damaged_weights_are_told_once_whatever_they_would_run_in(models, tmp_path, caplog):
    pytest.importorskip('onnxruntime')
    state = models['siglip'].state_dict()
    state['visual.trunk.norm.weight'] = torch.full_like(state['visual.trunk.norm.weight'], np.nan)
    torch.save(state, tmp_path / 'siglip.pt')
    either = OnnxRuntime(CPU, ('CPUExecutionProvider',), half=False, required=False)
    with pytest.raises(EncoderUnavailable, match='has NaN or infinity in visual'):
        make_encoder(tmp_path, 'siglip', either)
    assert 'runs in torch' not in caplog.text


def test_it_compiles(models):
    visual = models['eva02'].visual
    constants = grid_constants(visual, (4, 4), 'antialias', 'naclip', CPU)
    arguments = (visual, torch.randn(2, 3, 16, 16), 'naclip', *constants)
    compiled = torch.compile(dense_forward, backend='eager', fullgraph=True)
    with torch.no_grad():
        for found, expected in zip(compiled(*arguments), dense_forward(*arguments), strict=True):
            torch.testing.assert_close(found, expected)


def test_the_tower_of_mmseg_is_not_for_them(checkpoints):
    with pytest.raises(EncoderUnavailable, match='is for towers of CLIP'):
        make_encoder(checkpoints, 'siglip', tower='mmseg')


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('convnext_base', 'ConvNeXt'),
        ('MobileCLIP2-S0', 'FastVit'),
        ('swin_base_patch4_window7_224', 'SwinTransformer'),
        ('vit_relpos_medium_patch16_cls_224', 'VisionTransformerRelPos'),
    ],
)
def test_towers_that_are_no_plain_vit_are_refused(name, reason):
    with pytest.raises(EncoderUnavailable, match=f'{name} has a {reason} of timm') as refusal:
        check_model(name, None)
    assert 'llmseg doctor --models' in str(refusal.value)


@pytest.mark.parametrize(
    ('name', 'tag', 'reason'),
    [
        ('MobileCLIP2-S0', 'dfndr2b', 'has a FastVit of timm'),
        ('ViT-B-16-SigLIP9', 'webli', 'has no model'),
        ('ViT-B-16-SigLIP', 'openai', 'there are webli'),
        ('ViT-B-16-SigLIP', 'webli', 'llmseg download --config FILE'),
    ],
)
def test_what_can_not_be_used_is_not_told_to_be_downloaded(name, tag, reason):
    with pytest.raises(EncoderUnavailable, match=reason):
        OpenClipEncoder(OpenClipConfig(model=name, pretrained=tag), CPU)


def test_the_resolution_told_is_that_of_the_positions():
    from llmseg_ros.encoders.model_list import find_facts

    fact = find_facts('ViTamin-XL-384', open_clip.get_model_config('ViTamin-XL-384'))
    assert fact.resolution == 384  # open_clip's own configuration has 256
    assert fact.weights == 'jienengchen/ViTamin-XL-384px'


def test_slow_rotation_turns_with_the_distance_alone(models):
    """The reference itself: products of rotated vectors depend on how far patches are apart."""
    tower = SlowTower(models['eva02'], 'eva02')
    q, k = (np.tile(slow.unit(np.arange(24.0) + seed), (17, 1)) for seed in (1, 5))
    q, k = tower.rotate(q, (4, 4)), tower.rotate(k, (4, 4))
    products = q[:, :12] @ k[:, :12].T
    assert products[1, 2] == pytest.approx(products[6, 7])
    assert products[1, 5] == pytest.approx(products[10, 14])
