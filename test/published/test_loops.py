"""The presets of SimSeg, the LLM supervision and CHiLS against what their code computes."""

from __future__ import annotations

import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from llmseg_ros.config_files import load_config
from llmseg_ros.encoders import Encoder, ImageFeatures
from llmseg_ros.files import shipped_path
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.subclasses.resolver import Resolver, Subclasses

pytest.importorskip('pydensecrf.densecrf', reason='pydensecrf2 is not installed')
GRID, WIDTH = 4, 24
CLASSES = ('aeroplane', 'cat', 'dog', 'plant', 'sofa', 'train', 'monitor')


class Given(Encoder):
    """Smooth random patches, and a direction for every name."""

    name, device, runtime, images_at_once = 'given', torch.device('cpu'), 'torch', 1

    def encode_text(self, names):
        seeds = [torch.Generator().manual_seed(zlib.crc32(name.encode())) for name in names]
        rows = [torch.randn(WIDTH, generator=seed) for seed in seeds]
        return normalize(torch.stack(rows), dim=-1) if rows else torch.zeros(0, WIDTH)

    def encode_images(self, rgbs):
        return [self.encode_one(rgb) for rgb in rgbs]

    def encode_one(self, rgb):
        generator = torch.Generator().manual_seed(int(rgb.sum()) % 1000)
        coarse = torch.randn(1, WIDTH, 3, 3, generator=generator)
        patches_hwd = interpolate(coarse, (GRID, GRID), mode='bicubic')[0].permute(1, 2, 0)
        pooled = patches_hwd.mean(dim=(0, 1)) + self.encode_text(['cat', 'sofa']).T @ torch.tensor(
            [4.0, 2.0]
        )
        return ImageFeatures(patches_hwd, normalize(pooled, dim=0))


def published_loop(rgb, encoder, subclasses, top_k):
    """Write the loop out in float64: gate with background, maps, CRF, closing, votes."""
    import pydensecrf.densecrf

    names = ['background', *CLASSES]
    features = encoder.encode_image(rgb)
    v = features.pooled_d.double().numpy()
    texts = encoder.encode_text(names).double().numpy()
    scores = texts @ v
    order = np.argsort(-scores)
    top = scores[order[:top_k]]
    threshold = top.mean() + top.std(ddof=1)
    patches = normalize(features.patches_hwd, dim=-1).double().numpy()
    side = 16 * GRID
    resized = Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    model_input = (np.float32(resized) / np.float32(255) - mean) / std
    seen = ((model_input * std + mean) * np.float32(255)).astype(np.uint8)
    votes = np.zeros((len(names), *rgb.shape[:2]))
    for index in order[:5]:
        if index == 0:
            continue
        if scores[index] < threshold:
            break
        row = texts[index]
        if subclasses:
            kinds = encoder.encode_text(subclasses[names[index]]).double().numpy()
            weights = np.exp(kinds @ v)
            row = weights / weights.sum() @ kinds
        p = (patches @ row).repeat(16, axis=0).repeat(16, axis=1)
        p = (p - p.min()) / (p.max() - p.min())
        crf = pydensecrf.densecrf.DenseCRF2D(side, side, 2)
        unary = -np.log(np.stack([1 - p, p]).reshape(2, -1) + 1e-8)
        crf.setUnaryEnergy(unary.astype(np.float32, order='C'))
        crf.addPairwiseGaussian(sxy=3, compat=3)
        crf.addPairwiseBilateral(sxy=40, srgb=13, rgbim=seen, compat=10)
        mask = np.array(crf.inference(3)).argmax(axis=0).reshape(side, side).astype(np.uint8)
        kernel = np.ones((7, 7), np.uint8)
        mask = cv2.erode(cv2.dilate(mask, kernel), kernel)
        mask = cv2.resize(mask, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        votes[index] = mask * scores[index]
    return votes.argmax(axis=0), threshold, scores


@pytest.mark.parametrize('paper', ['simseg', 'llm_supervision'])
@pytest.mark.parametrize('top_k', [8, 5])
def test_labels_are_those_of_the_published_loop(rgb, paper, top_k):
    encoder = Given()
    kinds = {name: [f'{kind} {name}' for kind in 'abcde'] for name in CLASSES}
    used = kinds if paper == 'llm_supervision' else {}
    config = load_config(shipped_path(f'config/published/{paper}_voc21.yaml'))
    config = replace(config, gate=replace(config.gate, top_k=top_k))
    known = {name: Subclasses(tuple(used.get(name, ())), 'pack') for name in CLASSES}
    resolver = Resolver(config.subclasses, known)
    segmenter = Segmenter(config, CLASSES, encoder=encoder, resolver=resolver)
    expected, threshold, scores = published_loop(rgb, encoder, used, top_k)
    result = segmenter.segment(rgb)
    assert (result.labels == expected).mean() >= 0.999
    assert len(np.unique(expected)) >= 2
    passing = np.flatnonzero(scores[1:] >= threshold) + 1
    assert result.candidates == frozenset(passing.tolist())


def test_background_takes_a_place_of_the_gate():
    """Of five places it takes one, and it counts in mean and deviation."""
    encoder = Given()
    rgb = np.full((40, 40, 3), 90, np.uint8)
    config = load_config(shipped_path('config/published/simseg_voc21.yaml'))
    resolver = Resolver(config.subclasses)
    with_it = Segmenter(config, CLASSES, encoder=encoder, resolver=resolver)
    without = replace(config, gate=replace(config.gate, background=False))
    features = encoder.encode_image(rgb)
    loved = features._replace(pooled_d=encoder.encode_text(['background'])[0])
    assert with_it.segment_features(loved, rgb).candidates == frozenset()
    assert with_it.segment_features(loved, rgb, config=without).candidates
    unaware = Segmenter(without, CLASSES, encoder=encoder, resolver=resolver)
    with pytest.raises(ValueError, match=r'gate\.background needs a segmenter'):
        unaware.segment_features(loved, rgb, config=config)
    unaware.reconfigure(config)
    assert unaware.segment_features(loved, rgb).candidates == frozenset()


def test_chils_is_the_product_of_two_softmaxes(rgb):
    """At image size, each after resizing; the best subclass decides for its class."""
    encoder = Given()
    config = load_config(shipped_path('config/published/chils_no_background.yaml'))
    config = replace(config, fusion=replace(config.fusion, logit_scale=20.0))
    kinds = {name: (f'small {name}', f'old {name}') for name in CLASSES}
    known = {name: Subclasses(names, 'pack') for name, names in kinds.items()}
    resolver = Resolver(config.subclasses, known)
    segmenter = Segmenter(config, CLASSES, encoder=encoder, resolver=resolver)
    patches = normalize(encoder.encode_image(rgb).patches_hwd.double(), dim=-1)

    def probabilities(names):
        texts = encoder.encode_text(names).double()
        maps = 20 * torch.einsum('nd,hwd->nhw', texts, patches)[None]
        return interpolate(maps, rgb.shape[:2], mode='bilinear')[0].softmax(dim=0)

    own = probabilities(CLASSES)
    every = probabilities([n for name in CLASSES for n in (name, *kinds[name])])
    product = own * every.unflatten(0, (len(CLASSES), 3)).amax(dim=1)
    labels = segmenter.segment(rgb).labels
    assert (labels == product.argmax(dim=0).numpy() + 1).mean() >= 0.999
    assert len(np.unique(labels)) >= 2
