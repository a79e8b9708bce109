"""Scoring images under several settings at once, each image encoded once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.encoders import Encoder, ImageFeatures
from llmseg_ros.evaluation.datasets import Dataset, Sample, read_sample
from llmseg_ros.evaluation.metrics import (
    IGNORED,
    Counts,
    boundary_overlaps,
    class_boundaries,
    confusion_matrix,
)
from llmseg_ros.evaluation.variants import Known, Variant, resolver_of_known
from llmseg_ros.method.stages import Shared
from llmseg_ros.system.ahead import map_ahead

Labelled = tuple[str, NDArray[np.uint8], NDArray[np.uint16]]
"""Id of an image, (H, W, 3) RGB and (H, W) true ids."""

MOST_UNSCORED = 3  # images segmented and not yet scored: what is kept in memory and lost by a crash


class Prediction(NamedTuple):
    """What a variant makes of an image.

    Attributes:
        labels: (H, W) uint16 ids.
        presence_c: (c,) how strongly it shows each class.
        timings_ms: wall time by stage.
    """

    labels: NDArray[np.uint16]
    presence_c: NDArray[np.float64]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True)
class RunScore:
    """What one variant got on one image.

    Attributes:
        cells_k3: (k, 3) int64, the cells of the confusion matrix that aren't 0: true id,
            predicted id, pixels.
        presence_c: (c,) float64, how strongly the image shows each class, six digits of each.
        boundaries_k3: (k, 3) int64: id, intersection and union of the boundaries in pixels.
        timings_ms: wall time by stage.
    """

    cells_k3: NDArray[np.int64]
    presence_c: NDArray[np.float64]
    boundaries_k3: NDArray[np.int64]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True)
class ImageScores:
    """What every variant got on one image.

    Attributes:
        id: of the image.
        runs: in the variants' order.
        ignored: pixels whose truth does not count.
    """

    id: str
    runs: tuple[RunScore, ...]
    ignored: int = 0


class Scorer(NamedTuple):
    """What scores images, here or elsewhere.

    Attributes:
        encoder: name of the one in use.
        score: yields the scores of images, in any order.
        loaded: the encoder itself, where it is in this process.
    """

    encoder: str
    score: Callable[[Sequence[Sample]], Iterator[ImageScores]]
    loaded: Encoder | None = None


class Evaluator:
    """Segment images under variants that differ in the stages after the encoder, and score them."""

    def __init__(
        self,
        dataset: Dataset,
        variants: Sequence[Variant],
        known: Known,
        encoder: Encoder | None = None,
    ) -> None:
        """Load the encoder once and describe the classes once per source of subclasses.

        Args:
            dataset: for its classes.
            variants: of the same encoder.
            known: subclasses under every variant, as find_subclasses returns them.
            encoder: the variants' own, where it is loaded already.

        Raises:
            EncoderUnavailable: the encoder's packages or weights aren't here.
        """
        from llmseg_ros.segmenter import Segmenter

        self.dataset = dataset
        self.variants = tuple(variants)
        self.sixteen_bit = variants[0].config.images.sixteen_bit
        self._segmenters: dict[object, Segmenter] = {}
        for variant in variants:
            source = variant.config.subclasses
            if source not in self._segmenters:
                resolver = resolver_of_known(source, known)
                self._segmenters[source] = Segmenter(
                    variant.config,
                    dataset.classes,
                    encoder=encoder,
                    resolver=resolver,
                    rules=dataset.rules,
                )
                encoder = self._segmenters[source].encoder
        assert encoder is not None
        self.encoder = encoder

    @property
    def overlaps(self) -> bool:
        """Whether an image is encoded while another is segmented, see Segmenter.overlaps."""
        return next(iter(self._segmenters.values())).overlaps

    def segment(self, rgb: NDArray[np.uint8]) -> tuple[Prediction, ...]:
        """Segment an (H, W, 3) image under every variant; what they share is computed once."""
        return self.predict(rgb, *self.encode(rgb))

    def encode(self, rgb: NDArray[np.uint8]) -> tuple[ImageFeatures, float]:
        """Encode an (H, W, 3) image; return its features and the milliseconds it took."""
        import torch

        started = time.perf_counter()
        with torch.inference_mode():
            features = self.encoder.encode_image(rgb)
        return features, 1000 * (time.perf_counter() - started)

    def predict(
        self, rgb: NDArray[np.uint8], features: ImageFeatures, encode_ms: float
    ) -> tuple[Prediction, ...]:
        """Segment an image that is encoded, as `segment` does."""
        shared = Shared()
        predictions = []
        for variant in self.variants:
            result = self._segmenters[variant.config.subclasses].segment_features(
                features, rgb, config=variant.config, shared=shared
            )
            timings_ms = {**result.timings_ms, 'encode': encode_ms}
            presence_c = np.array([float(f'{item.score:.6g}') for item in result.classes])
            predictions.append(Prediction(result.labels, presence_c, timings_ms))
        return tuple(predictions)

    def score(
        self, image_id: str, truth: NDArray[np.uint16], predictions: Iterable[Prediction]
    ) -> ImageScores:
        """Compare what each variant makes of an image with its (H, W) true ids."""
        true_boundaries = class_boundaries(truth, truth != IGNORED)
        scored: list[tuple[NDArray[np.uint16], RunScore]] = []
        for labels, presence_c, timings_ms in predictions:
            same = (score for known, score in scored if np.array_equal(known, labels))
            if (score := next(same, None)) is not None:
                score = replace(score, presence_c=presence_c, timings_ms=timings_ms)
                scored.append((labels, score))
                continue
            confusion = confusion_matrix(truth, labels, len(self.dataset.names))
            boundaries = class_boundaries(labels, truth != IGNORED)
            overlaps_k3 = boundary_overlaps(true_boundaries, boundaries)
            score = RunScore(cells_of(confusion), presence_c, overlaps_k3, timings_ms)
            scored.append((labels, score))
        ignored = int(np.count_nonzero(truth == IGNORED))
        return ImageScores(image_id, tuple(score for _, score in scored), ignored)


def cells_of(confusion: Counts) -> NDArray[np.int64]:
    """Return the (k, 3) cells of a confusion matrix that aren't 0."""
    rows, columns = np.nonzero(confusion)
    return np.stack([rows, columns, confusion[rows, columns]], axis=1)


def sum_cells(scores: Iterable[RunScore], count: int) -> Counts:
    """Return the (count, count) confusion matrix of several images."""
    confusion = np.zeros((count, count), np.int64)
    for score in scores:
        rows, columns, pixels = score.cells_k3.T
        confusion[rows, columns] += pixels
    return confusion


def sum_boundaries(scores: Iterable[RunScore], count: int) -> Counts:
    """Return the (count, 2) intersections and unions of boundaries over several images."""
    overlaps = np.zeros((count, 2), np.int64)
    for score in scores:
        overlaps[score.boundaries_k3[:, 0]] += score.boundaries_k3[:, 1:]
    return overlaps


def presence_of(
    scores: Sequence[RunScore], count: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (i, c) presence scores of `count` classes in images, and whether they are in truth.

    A class of which an image has one true pixel is in it.
    """
    shown_ic = np.zeros((len(scores), 1 + count), bool)
    for shown_c, score in zip(shown_ic, scores, strict=True):
        shown_c[score.cells_k3[:, 0]] = True
    return np.stack([score.presence_c for score in scores]), shown_ic[:, 1:]


def score_images(
    evaluator: Evaluator, samples: Iterable[Sample], workers: int = 2
) -> Iterator[ImageScores]:
    """Score images of the dataset in their order.

    This thread segments, where stages overlap another encodes; `workers` threads read files ahead,
    as many compare with the truth. What is segmented when an error or Ctrl-C comes is still scored.

    Raises:
        DatasetError: an image or its labels can't be used.
    """

    def read(sample: Sample) -> Labelled:
        return sample.id, *read_sample(evaluator.dataset, sample, evaluator.sixteen_bit)

    def encode(item: Labelled) -> tuple[Labelled, tuple[ImageFeatures, float]]:
        return item, evaluator.encode(item[1])

    encoded = map_ahead(encode, map_ahead(read, samples, workers), int(evaluator.overlaps))
    unscored: deque[Future[ImageScores]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix='score') as pool:
        try:
            for (image_id, rgb, truth), features in encoded:
                predictions = evaluator.predict(rgb, *features)
                unscored.append(pool.submit(evaluator.score, image_id, truth, predictions))
                while unscored and (unscored[0].done() or len(unscored) > MOST_UNSCORED):
                    yield unscored.popleft().result()
        except (Exception, KeyboardInterrupt):
            yield from (future.result() for future in unscored)
            raise
        yield from (future.result() for future in unscored)
