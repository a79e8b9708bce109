"""Connected components against those worked out by hand, and those of scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.measure import label

from llmseg_ros.method.components import Component, find_components
from llmseg_ros.segmentation import ClassResult, Segmentation

CUP, CAT = 300, 7  # in the order of the list


def segmentation(
    labels: NDArray[np.uint16], confidence: NDArray[np.float32] | None = None
) -> Segmentation:
    results = []
    for number, name in ((CUP, 'cup'), (CAT, 'cat'), (8, 'dog')):
        rows, columns = np.nonzero(labels == number)
        box = (0, 0, 0, 0)
        if rows.size:
            x, y = int(columns.min()), int(rows.min())
            box = (x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1)
        results.append(ClassResult(number, name, 0.25, rows.size, box))
    confidence = np.ones(labels.shape, np.float32) if confidence is None else confidence
    return Segmentation(labels, confidence, tuple(results), 9, {})


def pixels(found: Component, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x, y, width, height = found.box
    assert found.mask.shape == (height, width)
    assert set(np.unique(found.mask)) <= {0, 255}
    whole = np.zeros(shape, bool)
    whole[y : y + height, x : x + width] = found.mask == 255
    return whole


LABELS = np.array(
    [
        [7, 7, 0, 0, 300, 0],
        [7, 0, 0, 0, 0, 300],  # a corner joins
        [0, 0, 300, 0, 0, 0],
        [0, 0, 7, 7, 0, 0],
    ],
    np.uint16,
)


def test_components_by_hand() -> None:
    confidence = np.full(LABELS.shape, 0.5, np.float32)
    confidence[0, 0] = 0.8
    found = find_components(segmentation(LABELS, confidence), 0)
    assert [(c.number, c.of.name, c.area, c.box) for c in found] == [
        (1, 'cat', 3, (0, 0, 2, 2)),
        (2, 'cup', 2, (4, 0, 2, 2)),  # as large as the next, of the class that is first in the list
        (3, 'cat', 2, (2, 3, 2, 1)),
        (4, 'cup', 1, (2, 2, 1, 1)),
    ]
    assert [c.confidence for c in found] == pytest.approx([0.6, 0.5, 0.5, 0.5])
    assert found[0].of.score == 0.25
    assert found[1].mask.tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize(('share', 'expected'), [(0, 4), (2 / 24, 3), (2.5 / 24, 1), (1, 0)])
def test_small_components_are_left_out(share: float, expected: int) -> None:
    assert len(find_components(segmentation(LABELS), share)) == expected


def test_of_very_many_the_largest_are_kept() -> None:
    labels = np.zeros((100, 200), np.uint16)
    labels[::2, ::2] = CAT  # 5000 of a pixel
    labels[90:93, 100:105] = CAT
    found = find_components(segmentation(labels), 0)
    assert len(found) == 100
    assert (found[0].area, found[0].number) == (15, 1)
    assert {c.area for c in found[1:]} == {1}
    assert [c.number for c in find_components(segmentation(labels), 0, most=2)] == [1, 2]
    assert find_components(segmentation(labels), 0, most=0) == ()


def test_without_classes_there_are_none() -> None:
    nothing = Segmentation(np.zeros((4, 5), np.uint16), np.ones((4, 5), np.float32), (), 1, {})
    assert find_components(nothing) == ()


@settings(deadline=None, max_examples=50)
@given(arrays(np.uint16, (9, 13), elements=st.sampled_from([0, 0, CUP, CAT])))
def test_components_are_those_of_scikit_image(labels: NDArray[np.uint16]) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(labels.shape, dtype=np.float32)
    found = find_components(segmentation(labels, confidence), 0, most=1000)
    assert [c.number for c in found] == list(range(1, len(found) + 1))
    assert [c.area for c in found] == sorted((c.area for c in found), reverse=True)
    true = set()
    for of in (CUP, CAT):
        numbers = label(labels == of, connectivity=2)
        true |= {(of, (numbers == n).tobytes()) for n in range(1, numbers.max() + 1)}
    assert {(c.of.id, pixels(c, labels.shape).tobytes()) for c in found} == true
    for one in found:
        inside = pixels(one, labels.shape)
        assert one.area == np.count_nonzero(inside)
        assert one.confidence == pytest.approx(confidence[inside].mean(), abs=1e-6)
