"""Colours of the pictures of a map."""

from __future__ import annotations

import numpy as np

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.reports.cloud_pictures import cloud_colours
from llmseg_ros.visualize import palette


def test_a_grey_class_is_not_taken_for_background() -> None:
    """The palette of PASCAL VOC, which is used everywhere, has a grey."""
    (grey,) = np.flatnonzero((palette(20) == 128).all(axis=1))
    lightnesses = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)

    def coloured(label: int) -> np.ndarray:
        return cloud_colours(lightnesses, np.full(256, label, np.uint16))

    assert coloured(int(grey)).max() < coloured(0).min() - 10
    np.testing.assert_array_equal(coloured(IGNORED), coloured(0))
    assert (np.diff(coloured(0)[:, 0].astype(int)) >= 0).all()
