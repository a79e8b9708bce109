"""Metrics against hand-computed values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from llmseg_ros.evaluation.metrics import (
    IGNORED,
    average_precision,
    boundary_iou,
    boundary_overlaps,
    class_boundaries,
    class_iou,
    confusion_matrix,
    frequency_weighted_iou,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)

# Truth in rows: 6 pixels of class 0, 4 of 1, none of 2 and 3; one pixel is wrongly called 2.
CONFUSION = np.array([[5, 1, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int64)


def test_confusion_matrix_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, IGNORED, 2]], np.uint16)
    predicted = np.array([[0, 1, 1], [0, 2, 2]], np.uint16)
    confusion = confusion_matrix(truth, predicted, 3)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_confusion_matrix_as_scikit_learn_has_it() -> None:
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 300, (2, 60, 80)).astype(np.uint16)
    expected = sklearn.metrics.confusion_matrix(
        truth.ravel(), predicted.ravel(), labels=np.arange(300)
    )
    assert np.array_equal(confusion_matrix(truth, predicted, 300), expected)


@pytest.mark.parametrize(
    ('truth', 'predicted', 'message'),
    [
        ([[0, 1]], [[0], [1]], r'truth is \(1, 2\), prediction \(2, 1\)'),
        ([[0, 2]], [[0, 1]], 'not in 0 to 1'),
        ([[0, 1]], [[2, 1]], 'not in 0 to 1'),
        ([[0, -1]], [[1, 1]], 'not in 0 to 1'),
        ([[IGNORED, 1]], [[2, 1]], 'not in 0 to 1'),
    ],
)
def test_confusion_matrix_refuses(
    truth: list[list[int]], predicted: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(truth), np.array(predicted), 2)


def test_iou_by_hand() -> None:
    iou_n = class_iou(CONFUSION)
    assert iou_n[:3].tolist() == [5 / 7, 2 / 5, 0.0]  # 2 is predicted, never true
    assert np.isnan(iou_n[3])  # neither: left out of the mean
    assert mean_iou(CONFUSION) == pytest.approx((5 / 7 + 2 / 5 + 0) / 3)
    assert mean_iou(CONFUSION, first=1) == pytest.approx((2 / 5 + 0) / 2)


def test_accuracies_by_hand() -> None:
    assert pixel_accuracy(CONFUSION) == pytest.approx(7 / 10)
    assert mean_accuracy(CONFUSION) == pytest.approx((5 / 6 + 2 / 4) / 2)
    assert frequency_weighted_iou(CONFUSION) == pytest.approx(0.6 * 5 / 7 + 0.4 * 2 / 5)


def test_nothing_counted_is_undefined() -> None:
    ignored = np.full((2, 2), IGNORED, np.uint16)
    confusion = confusion_matrix(ignored, np.zeros((2, 2), np.uint16), 2)
    for metric in (mean_iou, pixel_accuracy, mean_accuracy, frequency_weighted_iou):
        assert np.isnan(metric(confusion))


def test_boundary_iou_by_hand() -> None:
    # 50 x 50 pixels: the boundary reaches round(0.02 * 70.7) = 1 pixel into a region.
    truth = np.zeros((50, 50), np.uint16)
    truth[10:20, 10:20] = 1
    predicted = np.zeros((50, 50), np.uint16)
    predicted[10:20, 11:21] = 1
    counted = np.ones((50, 50), np.bool_)
    counted[0] = False
    true_boundaries = class_boundaries(truth, counted)
    assert true_boundaries[1].sum() == 10 * 10 - 8 * 8
    assert not true_boundaries[0][0].any()
    overlaps = boundary_overlaps(true_boundaries, class_boundaries(predicted, counted))
    # Both rings have 36 pixels and share 9 of the upper and 9 of the lower row.
    assert overlaps[1].tolist() == [1, 18, 36 + 36 - 18]
    counts = np.array([[0, 0], overlaps[1, 1:], [0, 7], [0, 0]])
    assert boundary_iou(counts) == pytest.approx((18 / 54 + 0) / 2)


def test_boundaries_of_a_class_on_one_side() -> None:
    one = {1: np.ones((2, 2), np.bool_)}
    assert boundary_overlaps(one, {}).tolist() == [[1, 0, 4]]
    assert boundary_overlaps({}, {}).shape == (0, 3)


def test_average_precision_by_hand() -> None:
    # the best is shown, of the best three two, of all four three
    scores, shown = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, True])
    assert average_precision(scores, shown) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # equal scores count together: half of them are right
    assert average_precision(np.zeros((2, 2)), np.array([[True, False]] * 2)) == 0.5
    assert np.isnan(average_precision(scores, np.zeros(4, bool)))


def test_average_precision_as_scikit_learn_has_it() -> None:
    random = np.random.default_rng(1)
    scores = random.random((40, 7)).round(2)
    shown = random.random((40, 7)) < 0.3
    expected = sklearn.metrics.average_precision_score(shown.ravel(), scores.ravel())
    assert average_precision(scores, shown) == pytest.approx(expected)
