"""Segmentation metrics from a confusion matrix that adds up over images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

IGNORED = 65535  # truth value of the pixels that don't count

BOUNDARY_SHARE = 0.02  # of the image diagonal: how far from its edge a region's boundary reaches

Counts = NDArray[np.int64]


def confusion_matrix(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], count: int
) -> Counts:
    """Count the pixels of every pair of true and predicted class.

    Args:
        truth: (H, W), 0 to count - 1, or IGNORED.
        predicted: (H, W), 0 to count - 1.
        count: number of classes.

    Returns:
        (count, count) int64, truth in rows, prediction in columns.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f'truth is {truth.shape}, prediction {predicted.shape}')
    counted = truth != IGNORED
    pairs = truth[counted].astype(np.int64) * count + predicted[counted]
    in_range = min(truth.min(initial=0), predicted.min(initial=0)) >= 0
    in_range &= truth.max(initial=0, where=counted) < count
    if not in_range or predicted.max(initial=0) >= count:
        raise ValueError(f'a class value is not in 0 to {count - 1}')
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def class_iou(confusion: Counts) -> NDArray[np.float64]:
    """Return (n,) intersection over union; NaN where a class is in neither truth nor prediction."""
    hits = np.diagonal(confusion)
    return ratio(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def mean_iou(confusion: Counts, first: int = 0) -> float:
    """Return the mean IoU of the classes from `first` on, NaN if none of them occurs.

    Classes absent from both truth and prediction are left out.
    """
    return mean_of_present(class_iou(confusion)[first:])


def pixel_accuracy(confusion: Counts) -> float:
    """Return the share of the pixels that are right, NaN if there are none."""
    return float(ratio(np.trace(confusion), confusion.sum()))


def mean_accuracy(confusion: Counts) -> float:
    """Return the mean over the classes in the truth of the share of their pixels that are right."""
    return mean_of_present(ratio(np.diagonal(confusion), confusion.sum(axis=1)))


def frequency_weighted_iou(confusion: Counts) -> float:
    """Return the mean IoU weighted by the classes' shares of the truth."""
    share_n = ratio(confusion.sum(axis=1), confusion.sum())
    in_truth = confusion.sum(axis=1) > 0
    if not in_truth.any():
        return float('nan')
    return float((share_n * class_iou(confusion))[in_truth].sum())


def class_boundaries(
    labels: NDArray[np.integer], counted: NDArray[np.bool_]
) -> dict[int, NDArray[np.bool_]]:
    """Return the boundary of every class in a label image: what erosion takes off its region.

    Boundary IoU (Cheng et al., CVPR 2021) compares these instead of the regions. The edge of the
    image is an edge of the region, as there.

    Args:
        labels: (H, W) ids.
        counted: (H, W), False where a pixel belongs to no region.

    Returns:
        (H, W) masks by id.
    """
    import cv2

    distance = max(1, round(BOUNDARY_SHARE * math.hypot(*labels.shape)))
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    boundaries = {}
    for class_id in np.flatnonzero(np.bincount(labels[counted])).tolist():
        region = (labels == class_id) & counted
        inside = cv2.erode(
            region.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        boundaries[class_id] = region & (inside == 0)
    return boundaries


def boundary_overlaps(
    truth: Mapping[int, NDArray[np.bool_]], predicted: Mapping[int, NDArray[np.bool_]]
) -> Counts:
    """Return (k, 3) int64: id, intersection and union in pixels of the boundaries of each class."""
    rows = []
    for class_id in sorted({*truth, *predicted}):
        pair = [side[class_id] for side in (truth, predicted) if class_id in side]
        intersection = np.count_nonzero(pair[0] & pair[1]) if len(pair) == 2 else 0
        union = sum(np.count_nonzero(mask) for mask in pair) - intersection
        rows.append((class_id, intersection, union))
    return np.array(rows, np.int64).reshape(-1, 3)


def boundary_iou(overlaps_n2: Counts, first: int = 0) -> float:
    """Return the mean over the classes that occur of their boundaries' intersection over union."""
    return mean_of_present(ratio(overlaps_n2[:, 0], overlaps_n2[:, 1])[first:])


def average_precision(scores: NDArray[np.floating], shown: NDArray[np.bool_]) -> float:
    """Return the mean over what is shown of the precision down to its score; NaN if nothing is.

    As scikit-learn has it: equal scores count together.

    Args:
        scores: of any shape, those of classes in images.
        shown: whether the image shows the class.
    """
    order = np.argsort(-scores, axis=None, kind='stable')
    ordered, hits = scores.ravel()[order], shown.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal scores
    found = np.cumsum(hits)[last]
    return float(ratio((np.diff(found, prepend=0) * ratio(found, last + 1)).sum(), found[-1]))


def ratio(part: Counts | np.number, whole: Counts | np.number) -> NDArray[np.float64]:
    """Return part / whole, NaN where whole is 0."""
    parts, wholes = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)


def mean_of_present(values: NDArray[np.float64]) -> float:
    """Return the mean of what is not NaN, NaN if nothing is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float('nan')
