"""The whole method on real photographs with real weights."""

import dataclasses
import itertools
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.utils._python_dispatch import TorchDispatchMode

from llmseg_ros.candidates import candidate_maps
from llmseg_ros.config import (
    BACKGROUND_WORDS,
    BackgroundConfig,
    FusionConfig,
    GateConfig,
    RefineConfig,
    SegmenterConfig,
    SubclassesConfig,
)
from llmseg_ros.config_files import load_config
from llmseg_ros.files import shipped_path
from llmseg_ros.method.refine import available_refiner
from llmseg_ros.method.stages import Shared
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.ahead import map_ahead

CLASSES = ['cat', 'cup', 'rocket', 'sofa']


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter.from_config(shipped_path('config/offline.yaml'), classes=CLASSES)


@pytest.mark.parametrize(
    ('photo', 'name', 'centre'),
    [
        ('chelsea', 'cat', (150, 225)),
        ('coffee', 'cup', (170, 290)),
        ('rocket', 'rocket', (200, 320)),
    ],
)
def test_the_object_is_found_and_the_distractors_are_not(segmenter, photo, name, centre):
    rgb = getattr(data, photo)()
    result = segmenter.segment(rgb)
    assert result.labels.shape == rgb.shape[:2]
    assert result.labels.dtype == np.uint16
    assert result.mask(name)[centre]
    for other in set(CLASSES) - {name}:
        assert result.mask(other).mean() < 0.02
    assert result.found[0].name == name
    assert result.confidence.min() > 0
    assert result.confidence.max() <= 1 + 1e-5


def test_area_and_box_are_those_of_the_mask(segmenter):
    result = segmenter.segment(data.chelsea())
    cat = result.found[0]
    rows, columns = np.nonzero(result.mask('Cat'))
    assert cat.area == len(rows) == np.count_nonzero(result.labels == cat.id)
    x, y, width, height = cat.box
    assert (x, y) == (columns.min(), rows.min())
    assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
    assert [c.name for c in result.classes] == CLASSES
    assert all(c.box == (0, 0, 0, 0) for c in result.classes if not c.area)
    with pytest.raises(KeyError, match='zebra'):
        result.mask('zebra')


def test_stages_are_timed(segmenter):
    timings = segmenter.segment(data.chelsea()).timings_ms
    assert list(timings) == ['encode', 'gate', 'fuse', 'refine']
    assert all(value >= 0 for value in timings.values())


@pytest.mark.parametrize('background', ['threshold', 'probability'])
def test_maps_tell_how_probable_the_candidates_are_where(segmenter, background):
    rgb = data.chelsea()
    config = dataclasses.replace(segmenter.config, background=BackgroundConfig(background))
    own = Segmenter(config, CLASSES, encoder=segmenter.encoder)
    found = own.find(rgb)
    result, maps = own.finish(found), candidate_maps(found)
    assert set(np.unique(result.labels)) <= set(maps.ids.tolist())
    assert maps.probabilities_khw.shape[0] == len(maps.ids)
    assert maps.probabilities_khw.sum(axis=0) == pytest.approx(1, abs=1e-5)
    best_hw = maps.ids[maps.probabilities_khw.argmax(axis=0)]
    labels_hw = cv2.resize(result.labels, best_hw.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.mean(best_hw == labels_hw) > 0.7
    own.set_classes([])
    assert candidate_maps(own.find(rgb)) is None


def test_subclasses_are_replaced_by_hand(segmenter):
    own = Segmenter(segmenter.config, CLASSES, encoder=segmenter.encoder)
    version = own.vocabulary.version
    assert own.set_subclasses('CUP', ['mug', ' mug ', 'cat']) == (
        "class name 'mug' repeats 'mug': merged",
        "'cat' is a class, or repeats a name: left out",
    )
    cup = own.vocabulary.classes[1]
    assert (cup.name, cup.subclasses, cup.source) == ('cup', ('mug',), 'typed')
    assert own.vocabulary.version == version + 1
    assert own.origin('cup') == ''
    beyond = own.set_subclasses('cup', ['mug', 'cat', *(f'cup {index}' for index in range(99))])
    assert beyond[0] == "'cup 98' is beyond 100 subclasses: refused"
    own.set_subclasses('cup', ['mug', 'cat'])
    own.set_classes(['cup'])
    assert own.vocabulary.classes[0].subclasses == ('mug', 'cat')
    with pytest.raises(KeyError):
        own.set_subclasses('sofa', [])


def test_two_runs_are_equal(segmenter):
    first, second = (segmenter.segment(data.coffee()) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_packs_give_subclasses_and_the_name_comes_without(segmenter):
    classes = {item.name: item for item in segmenter.vocabulary.classes}
    assert classes['cat'].source == 'pack'
    assert len(classes['cat'].subclasses) >= 5
    assert 'cat' not in classes['cat'].subclasses
    assert classes['rocket'].source == 'name'
    assert classes['rocket'].subclasses == ()


@pytest.mark.parametrize(
    'rgb',
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
    ids=['empty', 'grey', 'with alpha', 'float'],
)
def test_what_is_no_image_is_refused(segmenter, rgb):
    with pytest.raises(ValueError, match=r'expected an \(H, W, 3\) uint8 image'):
        segmenter.segment(rgb)


@pytest.mark.parametrize('refiner', ['crf', 'pamr', 'none'])
@pytest.mark.parametrize('shape', [(1, 1), (3, 200)])
def test_tiny_images_are_segmented(segmenter, refiner, shape):
    other = Segmenter.__new__(Segmenter)
    other.__dict__ = dict(segmenter.__dict__)
    other.config = SegmenterConfig(refine=RefineConfig(name=refiner))
    rgb = np.full((*shape, 3), 90, np.uint8)
    rgb.flags.writeable = False  # as of a PIL image
    assert other.segment(rgb).labels.shape == shape


def test_classes_change_at_run_time(segmenter):
    before = segmenter.vocabulary
    update = segmenter.set_classes(['zebra', 'cat', ''])
    try:
        assert [(c.id, c.name) for c in update.classes] == [(5, 'zebra'), (1, 'cat')]
        assert update.version == before.version + 1
        assert 'empty' in update.messages[0]
        result = segmenter.segment(data.chelsea())
        assert result.version == update.version
        assert set(np.unique(result.labels)) <= {0, 1}
        assert segmenter.set_classes([]).classes == ()
        empty = segmenter.segment(data.chelsea())
        assert not empty.labels.any()
        assert empty.classes == ()
    finally:
        segmenter.set_classes(CLASSES)


def test_names_that_will_not_be_found_as_meant_are_told(segmenter):
    update = segmenter.set_classes(['sofa', 'background', 'couch', 'cat', '猫'])
    assert [entry.name for entry in update.classes] == ['sofa', 'couch', 'cat', '猫']
    refused, synonyms, strange = update.messages
    assert refused == "class name 'background' is what no class covers, id 0: left out"
    assert synonyms.startswith("'sofa' and 'couch' are one class")
    assert strange.startswith("'猫' resembles nothing the encoder knows")
    assert segmenter.notes == (synonyms, strange)
    assert segmenter.set_classes(['sofa', 'cat']).messages == ()


def test_a_frame_keeps_the_class_list_it_began_with(segmenter):
    """Lists change from another thread while frames are segmented; none mixes two lists."""
    lists = (CLASSES, ['cat'], [], ['sofa', 'cat'])
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for names in lists:
                segmenter.set_classes(names)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        results = [segmenter.segment(data.chelsea()[:150, :200]) for _ in range(8)]
    finally:
        stop.set()
        thread.join()
        segmenter.set_classes(CLASSES)
    for result in results:
        assert [c.name for c in result.classes] in [list(names) for names in lists]
        assert set(np.unique(result.labels)) <= {0, *(c.id for c in result.classes)}


PAPER = load_config(shipped_path('config/paper.yaml'))


def published_labels(features, vocabulary, rgb):
    """Write the published evaluation out in loops, float64; (H, W) indices of classes, 0 none."""
    import pydensecrf.densecrf

    descriptors = vocabulary.descriptors_cnd.double().numpy()
    membership = vocabulary.things.membership_ce.double().numpy()
    v = features.pooled_d.double().numpy()
    v /= np.linalg.norm(v)
    in_gate = vocabulary.gate_background_e.double().numpy()  # row 0, which counts and has a place
    rows = np.vstack([in_gate, membership])
    scores = np.sqrt(((rows * features.evidence_e.double().numpy()) ** 2).sum(axis=1))
    order = np.argsort(-scores)
    top = scores[order[:10]]
    threshold = top.mean() + top.std(ddof=1)
    patches = features.patches_hwd.double().numpy()
    height, width = patches.shape[:2]
    size = (16 * width, 16 * height)
    resized = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    model_input = (np.float32(resized) / np.float32(255) - mean) / std
    small = ((model_input * std + mean) * np.float32(255)).astype(np.uint8)
    votes = [np.zeros(rgb.shape[:2])] * len(scores)
    for c in order[:5] - 1:
        if c < 0:
            continue
        if scores[c + 1] < threshold:
            break
        rows = descriptors[c][vocabulary.members_cn[c].numpy()]
        rows = rows[1:] if len(rows) > 1 else rows
        weights = np.exp(rows @ v)
        fused = (weights / weights.sum()) @ rows
        p = np.array([[patches[y, x] @ fused for x in range(width)] for y in range(height)])
        p = (p - p.min()) / (p.max() - p.min())
        p = p.repeat(16, axis=0).repeat(16, axis=1)
        crf = pydensecrf.densecrf.DenseCRF2D(*size, 2)
        unary = -np.log(np.stack([1 - p, p]).reshape(2, -1) + 1e-8)
        crf.setUnaryEnergy(unary.astype(np.float32, order='C'))
        crf.addPairwiseGaussian(sxy=3, compat=3)
        crf.addPairwiseBilateral(sxy=40, srgb=13, rgbim=small, compat=10)
        mask = np.array(crf.inference(3)).argmax(axis=0).reshape(size[::-1]).astype(np.uint8)
        kernel = np.ones((7, 7), np.uint8)
        mask = cv2.erode(cv2.dilate(mask, kernel), kernel)
        mask = cv2.resize(mask, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        votes[1 + c] = mask * scores[c + 1]
    return np.stack(votes).argmax(axis=0)


@pytest.mark.parametrize('photo', ['chelsea', 'coffee'])
def test_paper_preset_is_the_published_evaluation(segmenter, photo):
    """All stages after the encoder, pixel by pixel, on real features."""
    pytest.importorskip('pydensecrf.densecrf', reason='pydensecrf2 is not installed')
    rgb = np.ascontiguousarray(getattr(data, photo)()[:300, :400])
    config = dataclasses.replace(PAPER, subclasses=segmenter.config.subclasses)
    segmenter = Segmenter(config, CLASSES, encoder=segmenter.encoder)
    with torch.inference_mode():
        features = segmenter.encoder.encode_image(rgb)
    result = segmenter.segment_features(features, rgb)
    expected = published_labels(features, segmenter.vocabulary, rgb)
    ids = np.array([0, *(item.id for item in segmenter.vocabulary.classes)])
    np.testing.assert_array_equal(result.labels, ids[expected])
    assert len(np.unique(result.labels)) == 2
    assert result.candidates == frozenset(np.unique(result.labels)) - {0}


def test_images_found_in_together_get_what_each_gets_alone(monkeypatch):
    config = load_config(shipped_path('config/offline.yaml'))
    small = dataclasses.replace(config.imagenet, model='lite0', short_sides=(160,))
    in_torch = dataclasses.replace(config.encoder, runtime='torch')
    config = dataclasses.replace(config, encoder=in_torch, imagenet=small)
    segmenter = Segmenter(config, CLASSES)
    tower, batches = segmenter.encoder._network, []
    monkeypatch.setattr(segmenter.encoder, '_network', lambda x: batches.append(len(x)) or tower(x))
    cat, cup = data.chelsea()[:200, 100:350], data.coffee()[100:300, 150:400]
    rgbs = [np.ascontiguousarray(rgb) for rgb in (cat, cup, cat[:, :150], cup[::-1])]
    own = segmenter.describe(['cup', 'cat', 'rocket'])
    for before, classes in (([None] * 4, None), ([segmenter.find(cat), None, None, None], own)):
        batches.clear()
        together = segmenter.find_all(rgbs, before, classes)
        assert batches == [3, 1]
        for found, rgb, previous in zip(together, rgbs, before, strict=True):
            result, alone = segmenter.finish(found), segmenter.segment(rgb, previous, classes)
            np.testing.assert_array_equal(result.labels, alone.labels)
            assert result.candidates == alone.candidates
            assert found.rgb is rgb
            assert result.timings_ms.keys() == alone.timings_ms.keys()
    of_cat, of_cup = (found.candidates for found in together[:2])
    assert of_cat
    assert of_cup - of_cat
    assert segmenter.find_all([], []) == []
    with pytest.raises(ValueError, match='got'):
        segmenter.find_all([cat, cat[..., 0]], [None, None])


def test_several_at_once_are_for_a_gpu(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter.encoder, 'images_at_once', 5)
    assert segmenter.images_at_once == 1
    monkeypatch.setattr(segmenter.encoder, 'device', torch.device('cuda'))
    assert segmenter.images_at_once == 5


@pytest.mark.parametrize('fusion', ['paper', 'reference', 'mean', 'max', 'chils'])
@pytest.mark.parametrize('background', ['threshold', 'probability', 'names', 'minmax', 'none'])
def test_every_fusion_goes_with_every_background(segmenter, fusion, background):
    rgb = np.ascontiguousarray(data.chelsea()[:200, 100:350])
    config = SegmenterConfig(
        fusion=FusionConfig(fusion, logit_scale=5.0),
        background=BackgroundConfig(background, probability=0.0),
        refine=RefineConfig('none'),
    )
    with_words = Segmenter(config, CLASSES, encoder=segmenter.encoder)
    result = with_words.segment(rgb)
    assert result.mask('cat').mean() > 0.1
    assert (result.labels == 0).any() == (background != 'none')


@pytest.mark.parametrize('classes', [CLASSES, ['zebra crossing', 'quark', 'blorp']])
def test_settings_that_share_stages_get_what_each_gets_alone(segmenter, classes):
    """Labels and confidence bit for bit; of classes without subclasses, all fusions are one."""
    rgb = np.ascontiguousarray(data.chelsea()[:120, 150:300])
    own = SubclassesConfig(store='off', llm='off')
    several = Segmenter(SegmenterConfig(subclasses=own), classes, encoder=segmenter.encoder)
    features = several.encoder.encode_image(rgb)
    shared = Shared()
    for background, gate in [('threshold', 'share'), ('minmax', 'none')]:
        for fusion, refiner in itertools.product(
            ['paper', 'reference', 'mean', 'max', 'chils'], ['crf', 'crf_binary', 'pamr', 'none']
        ):
            config = SegmenterConfig(
                fusion=FusionConfig(fusion),
                gate=GateConfig(gate),
                background=BackgroundConfig(background),
                refine=available_refiner(RefineConfig(refiner, short_side=80)),
            )
            alone = several.segment_features(features, rgb, config=config)
            result = several.segment_features(features, rgb, config=config, shared=shared)
            np.testing.assert_array_equal(result.labels, alone.labels)
            np.testing.assert_array_equal(result.confidence, alone.confidence)
            assert result.classes == alone.classes
            assert result.candidates == alone.candidates


def test_words_for_background_are_described_when_they_are_switched_on(segmenter):
    other = Segmenter(SegmenterConfig(), ['cat', 'floor'], encoder=segmenter.encoder)
    assert other.vocabulary.words == ()
    by_names = SegmenterConfig(background=BackgroundConfig('names'))
    with pytest.raises(ValueError, match='background by names'):
        other.segment_features(
            other.encoder.encode_image(data.chelsea()), data.chelsea(), config=by_names
        )
    other.reconfigure(by_names)
    assert set(BACKGROUND_WORDS) - set(other.vocabulary.words) == {'floor'}
    assert other.segment(data.chelsea()).found
    # switched off, they stay until the class list changes: a frame in work may need them
    other.reconfigure(SegmenterConfig())
    assert other.segment(data.chelsea()).mask('cat').any()
    other.set_classes(['cat'])
    assert other.vocabulary.words == ()


def test_hysteresis_holds_a_class_from_frame_to_frame(segmenter):
    rgb = data.coffee()
    best, second = sorted(segmenter.segment(rgb).classes, key=lambda c: -c.score)[:2]
    share = 1.1 * second.score / best.score  # more than the second class has
    config = SegmenterConfig(gate=GateConfig('share', share=share, minimum=0.0, hysteresis=0.2))
    other = Segmenter(config, CLASSES, encoder=segmenter.encoder)
    alone = other.segment(rgb)
    assert len(alone.candidates) == 1
    both = dataclasses.replace(alone, candidates=frozenset([best.id, second.id]))
    held = other.segment(rgb, previous=both)
    assert held.candidates == both.candidates
    assert other.segment(rgb, previous=held).candidates == both.candidates
    assert other.segment(rgb).candidates == alone.candidates


def test_parts_of_two_frames_side_by_side_give_what_a_plain_loop_gives(segmenter):
    config = SegmenterConfig(
        gate=GateConfig('share', share=0.5, minimum=0.0, hysteresis=0.4),
        background=BackgroundConfig(contrasts=False),  # blends show too little of anything
    )
    other = Segmenter(config, CLASSES, encoder=segmenter.encoder)
    cat, cup = data.chelsea()[:240, :320], data.coffee()[:240, :320]
    shares = (0.0, 0.2, 0.3, 0.0, 0.3)
    frames = [cv2.addWeighted(cat, share, cup, 1 - share, 0) for share in shares]
    expected, last = [], None
    for rgb in frames:
        last = other.segment(rgb, previous=last)
        expected.append(last)
    alone = [other.segment(rgb).candidates for rgb in frames]
    assert alone != [result.candidates for result in expected]  # hysteresis decides somewhere
    before = None

    def find(rgb):
        nonlocal before
        before = other.find(rgb, previous=before)
        return before

    for found, plain in zip(map_ahead(find, frames, 1), expected, strict=True):
        result = other.finish(found)
        np.testing.assert_array_equal(result.labels, plain.labels)
        assert result.candidates == plain.candidates
        assert list(result.timings_ms) == ['encode', 'gate', 'fuse', 'refine']


def test_a_pause_between_the_parts_counts_to_no_stage(segmenter):
    found = segmenter.find(data.chelsea()[:120, :160])
    time.sleep(1)
    assert segmenter.finish(found).timings_ms['refine'] < 1000


def test_both_parts_are_of_the_class_list_in_force_at_the_beginning(segmenter):
    other = Segmenter(segmenter.config, ['cat'], encoder=segmenter.encoder)
    found = other.find(data.chelsea())
    update = other.set_classes([])
    result = other.finish(found)
    assert result.mask('cat').any()
    assert result.version == update.version - 1


class RefuseWaiting(TorchDispatchMode):
    """Refuse what makes the host wait for a GPU: reading values, sizes that depend on values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = ('_local_scalar_dense', 'nonzero', 'masked_select', 'unique', 'equal')
        name = function.overloadpacket.__name__
        assert not any(name.startswith(wait) for wait in waits), f'{name} waits for the GPU'
        if name.startswith('index'):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), name
        return function(*args, **(kwargs or {}))


def test_refuse_waiting_finds_what_waits():
    for waiting in (torch.Tensor.item, torch.nonzero, lambda x: x[x > 0]):
        with pytest.raises(AssertionError), RefuseWaiting():
            waiting(torch.ones(1))


@pytest.mark.parametrize(
    ('gate', 'fusion', 'background', 'refiner'),
    [
        ('share', 'max', 'threshold', 'pamr'),
        ('simseg', 'paper', 'minmax', 'none'),
        ('share', 'reference', 'names', 'pamr'),
        ('none', 'chils', 'probability', 'none'),
        ('none', 'mean', 'none', 'none'),
        ('share', 'max', 'threshold', 'crf'),
        ('none', 'max', 'none', 'crf'),
    ],
)
def test_a_frame_waits_for_a_gpu_at_its_end_only(
    segmenter, gate, fusion, background, refiner, monkeypatch
):
    """From the features to the labels on the GPU; labels and scores are then read at once."""
    monkeypatch.setattr('llmseg_ros.method.refine.on_host', lambda device: False)
    config = SegmenterConfig(
        gate=GateConfig(gate, hysteresis=0.1),
        fusion=FusionConfig(fusion),
        background=BackgroundConfig(background),
        refine=RefineConfig(refiner, short_side=40),
    )
    other = Segmenter(config, CLASSES, encoder=segmenter.encoder)
    rgb = np.ascontiguousarray(data.chelsea()[:64, :96])
    previous = other.segment(rgb)
    features = other.encoder.encode_image(rgb)
    with RefuseWaiting():
        result = other.segment_features(features, rgb, previous=previous)
    np.testing.assert_array_equal(result.labels.shape, rgb.shape[:2])
