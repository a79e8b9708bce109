"""Contrasts with an encoder that has names for background and no things it knows: CLIP's kind.

On random weights, so that every label counts: the same as words given by hand, and as written out.
"""

import dataclasses

import numpy as np
import pytest
import torch

from llmseg_ros.config import (
    BackgroundConfig,
    EncoderConfig,
    FusionConfig,
    GateConfig,
    OpenClipConfig,
    RefineConfig,
    SegmenterConfig,
)
from llmseg_ros.method.patches import average_windows
from llmseg_ros.segmenter import Segmenter

pytest.importorskip('open_clip')

WORDS = ('sky', 'wall', 'dogs')


@pytest.fixture(scope='module')
def encoder(tiny_models):
    return Segmenter(configuration(tiny_models)).encoder


def configuration(tiny_models, background='probability', contrasts=True, **more):
    return SegmenterConfig(
        encoder=EncoderConfig('open_clip', device='cpu', runtime='torch'),
        open_clip=OpenClipConfig(
            model='tiny', pretrained=str(tiny_models['tiny']), templates='photo',
            short_side=24, long_side=64, window=16, stride=8,
        ),
        gate=GateConfig('none'),
        fusion=FusionConfig('max'),
        background=BackgroundConfig(
            background, words=WORDS, contrasts=contrasts, probability=0.0, **more
        ),
        refine=RefineConfig('none'),
    )  # fmt: skip


@pytest.mark.parametrize('background', ['probability', 'names'])
@pytest.mark.parametrize('names', [['cat'], ['cat', 'sofa']])
def test_contrasts_are_background_words_of_this_list(
    tiny_models, encoder, photo, background, names
):
    config = configuration(tiny_models, background)
    seg = Segmenter(config, names, encoder=encoder)
    contrasts = [one for item in seg.vocabulary.classes for one in item.contrasts]
    assert 'rabbit' in contrasts
    assert ('sofa' in contrasts) == (names == ['cat'])
    assert set(seg.vocabulary.words) == {'sky', 'wall', 'dogs', *contrasts}
    assert seg.vocabulary.contrasts is None  # words alone
    by_hand = Segmenter(
        dataclasses.replace(
            config,
            background=dataclasses.replace(
                config.background, words=(*WORDS, *contrasts), contrasts=False
            ),
        ),
        names,
        encoder=encoder,
    )
    found, expected = seg.segment(photo), by_hand.segment(photo)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)
    alone = Segmenter(configuration(tiny_models, background, contrasts=False), names,
                      encoder=encoder).segment(photo)  # fmt: skip
    assert (found.labels > 0).sum() < (alone.labels > 0).sum()  # they take pixels
    assert not found.labels[alone.labels == 0].any()  # and give none


def test_by_threshold_they_are_a_map_in_the_way_of_the_classes(tiny_models, encoder, photo):
    config = configuration(tiny_models, 'threshold', scale=10.0, threshold=0.25)
    seg = Segmenter(config, ['cat'], encoder=encoder)
    contrasts = seg.vocabulary.classes[0].contrasts
    found = seg.find(photo)
    with torch.inference_mode():
        features = encoder.encode_image(photo)
        patches = torch.nn.functional.normalize(features.patches_hwd, dim=-1)
        patches = average_windows(patches, features.axes).numpy()
        rows = encoder.encode_text([*contrasts]).numpy()
        own = encoder.encode_text(['cat', *seg.vocabulary.classes[0].subclasses]).numpy()
    logits = found.fused.numpy()
    assert logits.shape[0] == 2
    strongest = max(0.0, *(max(own @ x) for x in patches.reshape(-1, patches.shape[-1])))
    for y in range(patches.shape[0]):
        for x in range(patches.shape[1]):
            rival = max(0.0, *(row @ patches[y, x] for row in rows)) / strongest
            cat = max(0.0, *(row @ patches[y, x] for row in own)) / strongest
            assert logits[0, y, x] == pytest.approx(10 * max(0.25, rival), abs=1e-4)
            assert logits[1, y, x] == pytest.approx(10 * cat, abs=1e-4)


def test_other_backgrounds_want_none(tiny_models, encoder):
    for background in ('none', 'minmax'):
        seg = Segmenter(configuration(tiny_models, background), ['cat'], encoder=encoder)
        assert seg.vocabulary.classes[0].contrasts == ()
        assert seg.vocabulary.contrasts is None
