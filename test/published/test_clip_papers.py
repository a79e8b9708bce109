"""The presets of NACLIP, SCLIP, ClearCLIP and MaskCLIP against what their code computes."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from tiny import NAME, VISION

from llmseg_ros.candidates import unit_features
from llmseg_ros.config import OpenClipConfig
from llmseg_ros.config_files import load_config
from llmseg_ros.encoders.open_clip import OpenClipEncoder
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.layouts import with_published_names
from llmseg_ros.evaluation.variants import load_with_known
from llmseg_ros.files import shipped_path
from llmseg_ros.method.patches import weights_at
from llmseg_ros.subclasses.resolver import Subclasses

CLIP = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SHORT, WINDOW, STRIDE = 83, 64, 24  # no whole patches
ROUNDING = 3e-5  # of float32 against float64; which it is goes with the processor
HEADS = VISION['width'] // VISION['head_width']
PRESETS = {
    'naclip_voc21': ('voc', 'sclip'),
    'naclip_context60': ('context60', 'sclip'),
    'naclip_no_background': ('context59', 'sclip'),
    'sclip_voc21': ('voc', 'sclip'),
    'sclip_coco_object': ('coco-object', 'sclip'),
    'clearclip_voc21': ('voc', 'clearclip'),
    'clearclip_no_background': ('voc20', 'clearclip'),
    'maskclip_voc20': ('voc20', 'maskclip'),
}


def random_texts(self, names):
    """Encode a name into a direction of its own, which tiny random text towers don't."""
    seeds = [torch.Generator().manual_seed(zlib.crc32(name.encode())) for name in names]
    rows = [torch.randn(40, generator=seed) for seed in seeds]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


@pytest.fixture(params=PRESETS)
def segmenter(request, tiny_clip, monkeypatch):
    """A preset on the tiny model, with small windows."""
    monkeypatch.setattr(OpenClipEncoder, 'encode_text', random_texts)
    config = load_config(shipped_path(f'config/published/{request.param}.yaml'))
    sizes = {'short_side': SHORT, 'window': WINDOW, 'stride': STRIDE}
    clip = replace(config.open_clip, model=NAME, pretrained=str(tiny_clip), **sizes)
    config = replace(config, open_clip=replace(clip, templates='photo'))
    layout, paper = PRESETS[request.param]
    empty = Dataset('', (), True, np.zeros(0, np.uint16), ())
    data = with_published_names(empty, layout, [paper, 'sclip'])
    known = {name: Subclasses(data.synonyms.get(name, ()), 'pack') for name in data.classes}
    return load_with_known(config, data.classes, {config.subclasses: known})


def published(segmenter, tiny_clip, rgb):
    """Return logits of every name at image size, the owner of each, and labels."""
    config = segmenter.config
    clip = config.open_clip
    maskclip = clip.attention == 'maskclip'
    mean, std = IMAGENET if maskclip else CLIP
    image = reference.resize_image(rgb, SHORT, clip.long_side, mean, std)
    tower = reference.Tower(
        torch.load(tiny_clip, weights_only=True),
        HEADS,
        clip.attention,
        clip.positions,
        *(('exact', 1e-6) if maskclip else ()),
    )
    texts, owner = names_of(segmenter)
    shape = rgb.shape[:2]
    if maskclip:  # zeros below and to the right, and what they give is squeezed into the image
        height, width = image.shape[1:]
        padded = torch.nn.functional.pad(image, (0, -width % 16, 0, -height % 16))
        maps = reference.cosines(tower.features(padded), texts)
        logits = reference.resize(reference.resize(maps, (height, width)), shape)
    elif clip.windows:
        padded = clip.attention == 'clearclip'
        logits = reference.window_logits(tower, image, texts, WINDOW, STRIDE, shape, padded)
    else:
        logits = reference.whole_logits(tower, image, texts, shape)
    if config.refine.name == 'pamr':
        logits = reference.pamr(reference.resize(image, shape), logits)
    background = config.background
    by_probability = background.name == 'probability'
    least = background.probability if by_probability else 0.0
    scale, area = config.fusion.logit_scale, background.area_threshold
    labels = reference.labels_of(logits, owner, scale, least, area)
    return tower, image, logits, labels if by_probability else labels + 1


def names_of(segmenter):
    """Return the (n, d) texts of the words and of all classes' names, and the label of each."""
    vocabulary = segmenter.vocabulary
    words = vocabulary.words_bd
    texts = [] if words is None else list(words)
    owner = [0] * len(texts)
    first = 0 if words is None else 1
    rows = zip(vocabulary.descriptors_cnd, vocabulary.members_cn, strict=True)
    for label, (names_nd, members_n) in enumerate(rows, start=first):
        texts += list(names_nd[members_n])
        owner += [label] * int(members_n.sum())
    return torch.stack(texts).double(), owner


def test_logits_and_labels_are_those_of_the_published_code(segmenter, tiny_clip, rgb):
    tower, image, expected, labels = published(segmenter, tiny_clip, rgb)
    found = segmenter.encoder.encode_image(rgb)
    if len(found.axes[0].starts) == len(found.axes[1].starts) == 1 and image.shape[1] % 16 == 0:
        features = tower.features(image)
        np.testing.assert_allclose(found.patches_hwd, features, rtol=1e-5, atol=ROUNDING)
    if segmenter.config.refine.name == 'none':
        texts, _ = names_of(segmenter)
        weights = [weights_at(a, n) for a, n in zip(found.axes, rgb.shape[:2], strict=True)]
        maps = torch.einsum('hwd,nd->nhw', unit_features(found)[0].double(), texts)
        logits = np.einsum('yh,nhw,xw->nyx', weights[0], maps, weights[1])
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    result = segmenter.segment(rgb)
    assert (result.labels == labels.numpy()).mean() >= 0.999
    assert len(labels.unique()) >= 2


@pytest.mark.parametrize('mode', ['naclip', 'sclip', 'clearclip', 'maskclip', 'vanilla'])
@pytest.mark.parametrize('grid', [(4, 4), (5, 8)])
def test_features_are_those_of_the_papers(tiny_clip, mode, grid):
    maskclip = mode == 'maskclip'
    positions = 'plain' if maskclip else 'offset'
    config = OpenClipConfig(
        NAME,
        str(tiny_clip),
        mode,
        positions=positions,
        tower='mmseg' if maskclip else 'trained',
        templates='photo',
    )
    encoder = OpenClipEncoder(config, torch.device('cpu'))
    image = torch.randn(3, grid[0] * 16, grid[1] * 16, generator=torch.Generator().manual_seed(1))
    tower = reference.Tower(
        torch.load(tiny_clip, weights_only=True),
        HEADS,
        mode,
        positions,
        *(('exact', 1e-6) if maskclip else ()),
    )
    patches, _ = encoder._encode(image[None])
    expected = tower.features(image.double())
    np.testing.assert_allclose(patches[0], expected, rtol=1e-5, atol=ROUNDING)
