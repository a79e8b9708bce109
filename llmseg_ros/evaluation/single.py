"""One class at a time: what a list of one class makes of every image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.class_rules import Given, with_kept
from llmseg_ros.config import SegmenterConfig
from llmseg_ros.encoders import Encoder, ImageFeatures
from llmseg_ros.evaluation.datasets import Dataset, read_sample
from llmseg_ros.evaluation.metrics import IGNORED, ratio
from llmseg_ros.evaluation.variants import Known, resolver_of_known
from llmseg_ros.system.ahead import map_ahead

if TYPE_CHECKING:
    from llmseg_ros.segmenter import Segmenter

HITS, PREDICTED, TRUE = range(3)


class SingleScores(NamedTuple):
    """What lists of one class made of one image.

    Attributes:
        pixels_c3: (c, 3) int64 by class: pixels of its mask that are right, of its mask, and of
            the truth.
        timings_ms: wall time by stage, the mean over the classes.
    """

    pixels_c3: NDArray[np.int64]
    timings_ms: Mapping[str, float]


def single_segmenters(
    config: SegmenterConfig, classes: Sequence[str], known: Known, rules: Given = ()
) -> list[Segmenter]:
    """Load the model once and make a segmenter for each class alone, with its rule.

    Raises:
        EncoderUnavailable: the encoder's packages or weights aren't here.
    """
    from llmseg_ros.segmenter import Segmenter

    segmenters: list[Segmenter] = []
    encoder: Encoder | None = None
    for name in classes:
        resolver = resolver_of_known(config.subclasses, known)
        own = with_kept((), rules, [name])
        segmenters.append(Segmenter(config, [name], encoder=encoder, resolver=resolver, rules=own))
        encoder = segmenters[0].encoder
    return segmenters


def score_single(
    segmenters: Sequence[Segmenter], dataset: Dataset, workers: int = 2
) -> Iterator[SingleScores]:
    """Segment the images of a dataset with each class alone, and score them in their order.

    Raises:
        DatasetError: an image or its labels can't be used.
    """
    import torch

    for rgb, truth in map_ahead(lambda one: read_sample(dataset, one), dataset.samples, workers):
        started = time.perf_counter()
        with torch.inference_mode():
            features = segmenters[0].encoder.encode_image(rgb)
        encode_ms = 1000 * (time.perf_counter() - started)
        yield score_image(segmenters, features, rgb, truth, encode_ms)


def score_image(
    segmenters: Sequence[Segmenter],
    features: ImageFeatures,
    rgb: NDArray[np.uint8],
    truth: NDArray[np.uint16],
    encode_ms: float,
) -> SingleScores:
    """Score an encoded image of (H, W) true ids, of which the segmenters' classes are 1.. ."""
    counted = truth != IGNORED
    pixels_c3 = np.zeros((len(segmenters), 3), np.int64)
    totals: dict[str, float] = {}
    for index, segmenter in enumerate(segmenters):
        result = segmenter.segment_features(features, rgb)
        mask, true = (result.labels != 0) & counted, truth == index + 1
        pixels_c3[index] = [np.count_nonzero(one) for one in (mask & true, mask, true)]
        for stage, value in {**result.timings_ms, 'encode': encode_ms}.items():
            totals[stage] = totals.get(stage, 0.0) + value
    means = {stage: value / len(segmenters) for stage, value in totals.items()}
    return SingleScores(pixels_c3, means)


def single_iou(pixels_c3: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (c,) intersection over union, NaN where a class is neither true nor predicted."""
    hits_c, predicted_c, true_c = pixels_c3[:, HITS], pixels_c3[:, PREDICTED], pixels_c3[:, TRUE]
    return ratio(hits_c, predicted_c + true_c - hits_c)
