"""The whole method on real photographs with real weights."""

import threading

import numpy as np
import pytest
from skimage import data

from llmseg_ros.config import RefineConfig, SegmenterConfig
from llmseg_ros.files import shipped_path
from llmseg_ros.segmenter import Segmenter

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
    result = other.segment(np.full((*shape, 3), 90, np.uint8))
    assert result.labels.shape == shape


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
