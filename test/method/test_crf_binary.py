"""The published masks: by hand where the CRF is idle, and against loops and exact mean field."""

import numpy as np
import pytest

from llmseg_ros.config import RefineConfig
from llmseg_ros.method import crf_binary
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.crf_binary import close_mask, label_by_binary_crf

from .mean_field import dense_mean_field

pytest.importorskip('pydensecrf.densecrf', reason='pydensecrf2 is not installed')

PAPER = {'iterations': 3, 'bilateral_sxy': 40.0, 'bilateral_srgb': 13.0}
IDLE = RefineConfig('crf_binary', gaussian_compat=0.0, bilateral_compat=0.0, morphology=False)
LOG3 = np.log(3).astype(np.float32)  # the log odds of 3/4


def test_masks_compete_by_score():
    """Three classes and four patches; the third class did not pass."""
    logits = np.zeros((4, 1, 4), np.float32)
    logits[1] = [-LOG3, LOG3, LOG3, -LOG3]
    logits[2] = [-LOG3, -LOG3, LOG3, LOG3]
    logits[3] = ABSENT
    rgb = np.zeros((16, 64, 3), np.uint8)
    labels, confidence = label_by_binary_crf(logits, np.array([0.2, 0.3, 0.9]), rgb, IDLE)
    assert labels.shape == (16, 64)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, np.array([[0, 1, 2, 2]]).repeat(16, 0).repeat(16, 1))
    np.testing.assert_allclose(confidence, 0.75, atol=1e-6)
    # a class that the image as a whole speaks against has no mask
    labels, _ = label_by_binary_crf(logits, np.array([0.2, -0.3, 0.9]), rgb, IDLE)
    np.testing.assert_array_equal(labels[0, ::16], [0, 1, 1, 0])


def test_labels_are_resized_by_the_nearest_neighbour():
    logits = np.zeros((2, 1, 2), np.float32)
    logits[1] = [LOG3, -LOG3]
    labels, _ = label_by_binary_crf(logits, np.ones(1), np.zeros((3, 5, 3), np.uint8), IDLE)
    # pixel centres at 0, 6.4, 12.8, 19.2, 25.6 of 32
    np.testing.assert_array_equal(labels, [[1, 1, 1, 0, 0]] * 3)


def test_closing_fills_gaps_of_six_pixels_and_leaves_the_outline():
    mask = np.zeros((20, 40), np.uint8)
    mask[5:15, 5:15] = mask[5:15, 21:31] = 1
    closed = close_mask(mask)
    expected = mask.copy()
    expected[5:15, 15:21] = 1
    np.testing.assert_array_equal(closed, expected)
    mask[:, 30:] = 0
    apart = np.zeros_like(mask)
    apart[5:15, 5:15] = apart[5:15, 22:32] = 1  # seven pixels
    np.testing.assert_array_equal(close_mask(apart), apart)


def slow_extreme(mask, extreme):
    """Return the largest or smallest value of 7 x 7 around every pixel, inside the image."""
    height, width = mask.shape
    result = np.empty_like(mask)
    for y in range(height):
        for x in range(width):
            window = mask[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
            result[y, x] = extreme(window)
    return result


def slow_labels(maps, scores, rgb, patch, morphology):
    """Write the protocol out: (k, h, w) similarities to (H, W) labels, and marginals."""
    _, h, w = maps.shape
    votes = [np.zeros((h * patch, w * patch))]
    marginals = []
    for values, score in zip(maps, scores, strict=True):
        scaled = (values - values.min()) / (values.max() - values.min())
        p = np.empty((h * patch, w * patch))
        for y in range(h * patch):
            for x in range(w * patch):
                p[y, x] = scaled[y // patch, x // patch]
        q = dense_mean_field(np.stack([1 - p, p]), rgb, RefineConfig(**PAPER))
        mask = q.argmax(axis=0)
        if morphology:
            mask = slow_extreme(slow_extreme(mask, np.max), np.min)
        votes.append(mask * score)
        marginals.append(q[1])
    return np.stack(votes).argmax(axis=0), np.stack(marginals)


@pytest.mark.parametrize('morphology', [False, True])
@pytest.mark.parametrize('seed', [0, 1])
def test_equals_the_protocol_written_out(monkeypatch, seed, morphology):
    """On a 12 x 12 image of 3 x 3 patches, 4 pixels wide so that loops are quick."""
    import torch

    from llmseg_ros.config import BackgroundConfig
    from llmseg_ros.method.background import label_logits

    monkeypatch.setattr(crf_binary, 'PATCH_PIXELS', 4)
    random = np.random.default_rng(seed)
    rgb = np.full((12, 12, 3), 60)
    rgb[:, 5:] = 190
    rgb = (rgb + random.integers(-2, 3, rgb.shape)).astype(np.uint8)
    maps = random.normal(size=(2, 3, 3))
    maps[0, :, 0] += 3
    maps[1, :, 1:] += 3
    scores = np.array([0.31, 0.28])
    expected, marginals = slow_labels(maps, scores, rgb, 4, morphology)
    logits = label_logits(
        torch.from_numpy(maps), torch.tensor([True, True]), BackgroundConfig('minmax')
    ).numpy()
    config = RefineConfig('crf_binary', morphology=morphology, **PAPER)
    labels, _ = label_by_binary_crf(logits, scores, rgb, config)
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(labels)) > 1
    fast = dict(crf_binary.class_marginals(logits, rgb, config))
    np.testing.assert_allclose([fast[0], fast[1]], marginals, atol=0.01)
