"""The SimSeg encoder against a written-out reference, on a random checkpoint as published."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import slow_reference as slow
import torch

from llmseg_ros.config import SimSegConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.runtime import OnnxRuntime
from llmseg_ros.encoders.simseg import MAX_TOKENS, SimSegEncoder, encode_patches
from llmseg_ros.encoders.templates import load_templates
from llmseg_ros.encoders.vit import image_tensor

from ..helpers.batches import encode_both_ways
from ..helpers.products import check_products

vision_transformer = pytest.importorskip('timm.models.vision_transformer')
transformers = pytest.importorskip('transformers')

CPU = torch.device('cpu')
ON_CPU = OnnxRuntime(CPU, ('CPUExecutionProvider',), half=False, required=True)
WIDTH = 128  # two heads of 64, as wide as the published ones
PATCH = 16
TOKENS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'photo', 'of', 'cat', 'dog', '.']
UNKNOWN, CLS, SEP = 1, 2, 3


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """Write a random checkpoint in the published layout, and a tokenizer folder."""
    vit = vision_transformer.VisionTransformer(
        img_size=2 * PATCH, embed_dim=WIDTH, depth=2, num_heads=2, num_classes=0
    )
    config = transformers.BertConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    bert = transformers.BertModel(config, add_pooling_layer=False)
    parts = {
        'image_encoder.model.model': vit,
        'text_encoder.model.model': bert,
        'image_projection.linear': torch.nn.Linear(WIDTH, 24, bias=False),
        'text_projection.linear': torch.nn.Linear(WIDTH, 24, bias=False),
    }
    state = {'loss.temperature': torch.tensor(0.02)}
    for seed, (prefix, module) in enumerate(parts.items()):
        slow.randomise(module, seed)
        state |= {f'{prefix}.{key}': value for key, value in module.state_dict().items()}
    folder = tmp_path_factory.mktemp('simseg')
    path = folder / 'simseg.vit-s.pth'
    torch.save({'state_dict': state, 'optimizer': {'state': {}}, 'meta': {'epoch': 20}}, path)
    (folder / 'tokenizer').mkdir()
    (folder / 'tokenizer' / 'vocab.txt').write_text('\n'.join(TOKENS))
    return path


def make_encoder(path, tokenizer=None, runtime=None, **settings):
    settings = {'templates': 'photo', 'input_size': 3 * PATCH, **settings}
    tokenizer = tokenizer or path.parent / 'tokenizer'
    config = SimSegConfig(checkpoint=str(path), tokenizer=str(tokenizer), **settings)
    return SimSegEncoder(config, CPU, runtime=runtime)


def state_of(path):
    return torch.load(path, weights_only=True)['state_dict']


def test_pixels_are_prepared_as_published(published, photo):
    torchvision = pytest.importorskip('torchvision')
    from PIL import Image

    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((3 * PATCH, 3 * PATCH)),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    difference = (pixels_of(make_encoder(published), photo) - steps(Image.fromarray(photo))).abs()
    assert difference.max() < 1.01 / 255 / 0.224  # some round to the next of their 256 values
    assert (difference > 1e-6).float().mean() < 0.01


def pixels_of(encoder, rgb):
    """Return what an encoder's image tower is given."""
    size = (3 * PATCH, 3 * PATCH)
    return image_tensor(rgb, size, 'bilinear', encoder._mean_c11, encoder._std_c11)


def test_tokens_and_pooling_are_those_of_the_formulas(published, photo):
    encoder = make_encoder(published)
    features = encoder.encode_image(photo)
    image = pixels_of(encoder, photo)
    state = state_of(published)
    tokens = slow_vit(slow.Weights(state, 'image_encoder.model.model.'), image.double().numpy())
    projected = tokens @ state['image_projection.linear.weight'].double().numpy().T
    assert features.patches_hwd.shape == (3, 3, 24)
    assert not features.keep_length
    np.testing.assert_allclose(features.patches_hwd.flatten(0, 1), projected, rtol=1e-5, atol=1e-5)
    pooled = slow.unit(slow.loda(projected, 5))
    np.testing.assert_allclose(features.pooled_d, pooled, rtol=1e-5, atol=1e-5)


def slow_vit(weights, image_chw):
    """Return the patch tokens of timm's ViT (h*w, d), CLS dropped."""
    bias = weights['patch_embed.proj.bias']
    tokens = slow.embed_patches(image_chw, weights['patch_embed.proj.weight'], bias)
    grid = (image_chw.shape[1] // PATCH, image_chw.shape[2] // PATCH)
    positions = slow.resize_positions(weights['pos_embed'][0], grid, 'plain')
    x = np.array([weights['cls_token'][0, 0], *tokens]) + positions
    for number in range(2):
        block = weights.part(f'blocks.{number}')
        normed = np.array([slow.layer_norm(t, block.part('norm1'), 1e-6) for t in x])
        qkv = np.array([slow.linear(token, block.part('attn.qkv')) for token in normed])
        mixed = slow.mix('vanilla', *np.split(qkv, 3, axis=1), heads=2, grid=grid)
        x = x + np.array([slow.linear(token, block.part('attn.proj')) for token in mixed])
        hidden = [
            slow.gelu(slow.linear(slow.layer_norm(t, block.part('norm2'), 1e-6), fc1))
            for t, fc1 in ((token, block.part('mlp.fc1')) for token in x)
        ]
        x = x + np.array([slow.linear(h, block.part('mlp.fc2')) for h in hidden])
    return np.array([slow.layer_norm(token, weights.part('norm'), 1e-6) for token in x[1:]])


def test_text_features_are_those_of_the_formulas(published):
    text = make_encoder(published, templates='short').encode_text(['cat', 'dog dog'])
    state = state_of(published)
    for row, name in zip(text, ['cat', 'dog dog'], strict=True):
        texts = [template.replace('{}', name) for template in load_templates('short')]
        expected = slow.unit(np.mean([slow_text(state, text) for text in texts], axis=0))
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def slow_text(state, text):
    """Return the embedding of one text, of length 1: BERT, projection, LoDA with k = 1."""
    words = text.lower().replace('.', ' .').split()
    ids = [CLS, *(TOKENS.index(word) if word in TOKENS else UNKNOWN for word in words)][
        : MAX_TOKENS - 1
    ]
    ids.append(SEP)
    weights = slow.Weights(state, 'text_encoder.model.model.')
    embeddings = weights.part('embeddings')
    x = [
        slow.layer_norm(
            embeddings['word_embeddings.weight'][number]
            + embeddings['position_embeddings.weight'][position]
            + embeddings['token_type_embeddings.weight'][0],
            embeddings.part('LayerNorm'),
            1e-12,
        )
        for position, number in enumerate(ids)
    ]
    for number in range(2):
        layer = weights.part(f'encoder.layer.{number}')
        query, key, value = (
            np.array([slow.linear(token, layer.part(f'attention.self.{part}')) for token in x])
            for part in ('query', 'key', 'value')
        )
        mixed = slow.mix('vanilla', query, key, value, heads=2, grid=None)
        output = layer.part('attention.output')
        x = [
            slow.layer_norm(
                token + slow.linear(o, output.part('dense')), output.part('LayerNorm'), 1e-12
            )
            for token, o in zip(x, mixed, strict=True)
        ]
        output = layer.part('output')
        x = [
            slow.layer_norm(
                token + slow.linear(hidden, output.part('dense')), output.part('LayerNorm'), 1e-12
            )
            for token, hidden in (
                (t, slow.gelu(slow.linear(t, layer.part('intermediate.dense')))) for t in x
            )
        ]
    projection = state['text_projection.linear.weight'].double().numpy()
    return slow.unit(slow.loda([projection @ token for token in x], 1))


def test_long_texts_are_cut_and_empty_lists_pass(published):
    encoder = make_encoder(published)
    assert encoder.encode_text(['cat ' * 16]).isfinite().all()
    state = state_of(published)
    long = 'a photo of a ' + 'dog ' * 40 + '.'
    np.testing.assert_allclose(
        encoder._encode_texts([long])[0] / encoder._encode_texts([long])[0].norm(),
        slow_text(state, long),
        atol=1e-5,
    )
    assert encoder.encode_text([]).shape == (0, 24)


def test_two_encoders_share_a_model_and_texts_are_kept(published, monkeypatch):
    first = make_encoder(published)
    text = first.encode_text(['cat'])
    second = make_encoder(published, input_size=2 * PATCH)
    assert second._model is first._model
    monkeypatch.setattr(second, '_encode_text', None)  # calling it would fail
    assert torch.equal(second.encode_text(['cat']), text)


def test_images_together_are_what_each_is_alone(published, photo):
    images = [photo, photo[:, :360], photo[::-1]]  # squeezed into squares of one size
    encoder = make_encoder(published)
    assert encode_both_ways(encoder, images, '_encode_patches') == ([3], [1, 1, 1])
    encoder = make_encoder(published, runtime=ON_CPU)
    assert encode_both_ways(encoder, images, '_exported') == ([1, 1, 1], [1, 1, 1])
    assert encoder.images_at_once == 1
    assert make_encoder(published, compile=True).images_at_once == 1


@pytest.mark.parametrize('shape', [(1, 1), (5, 3), (10_000, 4)])
def test_every_size_of_image_gives_the_same_grid(published, shape):
    features = make_encoder(published).encode_image(np.full((*shape, 3), 99, np.uint8))
    assert features.patches_hwd.shape == (3, 3, 24)
    assert features.patches_hwd.isfinite().all()


def test_layouts_of_other_versions_are_read(published, tmp_path, photo):
    expected = make_encoder(published).encode_image(photo).patches_hwd
    state = {
        f'module.{key.replace("text_encoder.model.model.", "text_encoder.model.")}': value
        for key, value in state_of(published).items()
    }
    state['module.text_encoder.model.embeddings.position_ids'] = torch.arange(32)[None]
    state['module.text_encoder.model.pooler.dense.bias'] = torch.zeros(WIDTH)
    torch.save({'state_dict': state}, tmp_path / 'other.pth')
    other = make_encoder(tmp_path / 'other.pth', published.parent / 'tokenizer')
    assert torch.equal(other.encode_image(photo).patches_hwd, expected)


def drop(key):
    return lambda state: state.pop(key)


def add(key):
    return lambda state: state.update({key: torch.zeros(1)})


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (drop('image_encoder.model.model.blocks.1.norm1.bias'), r'missing blocks\.1\.norm1\.bias'),
        (drop('image_encoder.model.model.pos_embed'), "no 'pos_embed'"),
        (drop('image_projection.linear.weight'), r'no image_projection\.linear\.\*'),
        (drop('text_encoder.model.model.encoder.layer.0.output.dense.bias'), 'missing encoder'),
        (add('decoder.weight'), r'extra decoder\.weight'),
        (add('image_encoder.model.model.pos_embed'), 'shapes'),
        (add('text_projection.linear.weight'), 'shapes'),
        (dict.clear, 'no image_encoder'),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(published, tmp_path, change, reason):
    state = state_of(published)
    change(state)
    torch.save({'state_dict': state}, tmp_path / 'bad.pth')
    with pytest.raises(EncoderUnavailable, match=reason):
        make_encoder(tmp_path / 'bad.pth', published.parent / 'tokenizer')


def test_what_is_not_used_is_named(published, tmp_path, caplog):
    state = state_of(published)
    unused = (
        'image_encoder.model.model.head.weight',
        'text_encoder.model.model.embeddings.token_type_ids',
    )
    for key in unused:
        add(key)(state)
    torch.save({'state_dict': state}, tmp_path / 'more.pth')
    with caplog.at_level('INFO'):
        make_encoder(tmp_path / 'more.pth', published.parent / 'tokenizer')
    assert all(key in caplog.text for key in unused)


class Trap:
    """What a hostile pickle is made of: unpickling it calls a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


def test_code_in_a_checkpoint_is_never_run(published, tmp_path):
    trap = tmp_path / 'sprung'
    hostile = {'state_dict': state_of(published), 'meta': Trap(trap)}
    torch.save(hostile, tmp_path / 'hostile.pth')
    (tmp_path / 'bare.pth').write_bytes(pickle.dumps(Trap(trap)))
    for name in ('hostile.pth', 'bare.pth'):
        with pytest.raises(EncoderUnavailable, match=name):
            make_encoder(tmp_path / name, published.parent / 'tokenizer')
    with pytest.raises(EncoderUnavailable, match='code or objects'):
        make_encoder(tmp_path / 'hostile.pth', published.parent / 'tokenizer')
    assert not trap.exists()


def test_absent_and_damaged_files_are_told_of(published, cache, tmp_path):
    with pytest.raises(EncoderUnavailable, match=r'llmseg download --encoder simseg') as caught:
        SimSegEncoder(SimSegConfig(), CPU)
    assert str(cache) in str(caught.value)
    assert 'encoder: imagenet' in str(caught.value)
    with pytest.raises(EncoderUnavailable, match='does not exist'):
        make_encoder(tmp_path / 'no.pth', published.parent / 'tokenizer')
    with pytest.raises(EncoderUnavailable, match='does not exist'):
        make_encoder(published, tmp_path / 'no')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(EncoderUnavailable, match='tokenizer'):
        make_encoder(published, tmp_path / 'empty')
    (tmp_path / 'large').mkdir()
    (tmp_path / 'large' / 'vocab.txt').write_text('\n'.join([*TOKENS, 'more']))
    with pytest.raises(EncoderUnavailable, match='12 tokens, the checkpoint 11'):
        make_encoder(published, tmp_path / 'large')
    (tmp_path / 'damaged.pth').write_bytes(published.read_bytes()[:5000])
    with pytest.raises(EncoderUnavailable, match='damaged'):
        make_encoder(tmp_path / 'damaged.pth', published.parent / 'tokenizer')


def test_weights_are_found_in_the_cache_folder(published, cache, photo):
    folder = cache / 'weights' / 'simseg'
    (folder / 'tokenizer').mkdir(parents=True)
    (folder / published.name).write_bytes(published.read_bytes())
    (folder / 'tokenizer' / 'vocab.txt').write_text('\n'.join(TOKENS))
    found = SimSegEncoder(SimSegConfig(templates='photo', input_size=3 * PATCH), CPU)
    expected = make_encoder(published).encode_image(photo)
    assert torch.equal(found.encode_image(photo).pooled_d, expected.pooled_d)


def test_patches_compile(published):
    model = make_encoder(published)._model
    arguments = (model, torch.randn(1, 3, 2 * PATCH, 2 * PATCH), model.image.pos_embed[0])
    compiled = torch.compile(encode_patches, backend='eager', fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*arguments), encode_patches(*arguments))


def test_onnxruntime_gives_what_torch_gives_at_any_size(published, photo, cache):
    for side in (3 * PATCH, 5 * PATCH):
        encoder = make_encoder(published, runtime=ON_CPU, input_size=side)
        assert encoder.runtime.startswith('onnxruntime')
        assert len(encoder._model.image.blocks) == 0
        in_torch = make_encoder(published, input_size=side)
        assert in_torch.runtime == 'torch'
        found, expected = encoder.encode_image(photo), in_torch.encode_image(photo)
        for name in ('patches_hwd', 'pooled_d'):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4
            )
        assert torch.equal(encoder.encode_text(['cat']), in_torch.encode_text(['cat']))
    assert len(list((cache / 'onnx').glob('*.onnx'))) == 1


def test_patches_times_names_are_the_maps_of_classes(published, photo, monkeypatch):
    pytest.importorskip('llmseg_ros.msg')
    features = check_products(make_encoder(published), ['cat', 'dog'], photo, 'max', monkeypatch)
    assert (features.rows, features.columns) == (3, 3)  # of an image squeezed into a square
    assert (features.stride_y, features.stride_x) == (240 / 3, 400 / 3)
