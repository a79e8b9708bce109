"""Scoring images under several settings at once, each image encoded once."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import FusionConfig, RefineConfig, SegmenterConfig
from llmseg_ros.evaluation.datasets import Dataset, Sample, read_sample
from llmseg_ros.evaluation.metrics import (
    IGNORED,
    Counts,
    boundary_overlaps,
    class_boundaries,
    confusion_matrix,
)
from llmseg_ros.refine import available_refiner

Item = TypeVar('Item')
Result = TypeVar('Result')


def choices_of(section: type, name: str) -> tuple[str, ...]:
    """Return what a setting may be."""
    field = next(field for field in dataclasses.fields(section) if field.name == name)
    choices: tuple[str, ...] = field.metadata['choices']
    return choices


VALUES: Mapping[str, tuple[str, ...]] = {
    'fusion': choices_of(FusionConfig, 'name'),
    'refine': choices_of(RefineConfig, 'name'),
    'subclasses': ('none', 'packs'),
}


@dataclass(frozen=True)
class Variant:
    """Settings to score, under a name that says how they differ from the others."""

    name: str
    config: SegmenterConfig


@dataclass(frozen=True)
class RunScore:
    """What one variant got on one image.

    Attributes:
        cells_k3: (k, 3) int64, the cells of the confusion matrix that aren't 0: true id,
            predicted id, pixels.
        boundaries_k3: (k, 3) int64: id, intersection and union of the boundaries in pixels.
        timings_ms: wall time by stage.
    """

    cells_k3: NDArray[np.int64]
    boundaries_k3: NDArray[np.int64]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True)
class ImageScores:
    """What every variant got on one image, in the variants' order."""

    id: str
    runs: tuple[RunScore, ...]


def with_setting(config: SegmenterConfig, axis: str, value: str) -> SegmenterConfig:
    """Return the configuration with another fusion, refiner or source of subclasses."""
    if axis == 'fusion':
        return replace(config, fusion=replace(config.fusion, name=value))
    if axis == 'refine':
        return replace(config, refine=replace(config.refine, name=value))
    subclasses = replace(config.subclasses, packs=value == 'packs', store='off', llm='off')
    if value == 'none':
        subclasses = replace(subclasses, file='')
    return replace(config, subclasses=subclasses)


def make_variants(config: SegmenterConfig, axes: Sequence[str]) -> tuple[Variant, ...]:
    """Return every combination of the values of some settings, none of them: one variant."""
    variants = []
    for values in itertools.product(*(VALUES[axis] for axis in axes)):
        changed = config
        for axis, value in zip(axes, values, strict=True):
            changed = with_setting(changed, axis, value)
        names = [f'{axis}={value}' for axis, value in zip(axes, values, strict=True)]
        variants.append(Variant(' '.join(names), changed))
    return tuple(variants)


def with_available_refiner(variant: Variant) -> Variant:
    """Return the variant with the refiner that can be had here, as it will be reported."""
    config = variant.config
    return replace(variant, config=replace(config, refine=available_refiner(config.refine)))


class Evaluator:
    """Score images under variants that differ in the stages after the encoder."""

    def __init__(self, dataset: Dataset, variants: Sequence[Variant]) -> None:
        """Load the encoder once and describe the classes once per source of subclasses.

        Raises:
            EncoderUnavailable: the encoder's packages or weights aren't here.
        """
        from llmseg_ros.segmenter import Segmenter

        self.dataset = dataset
        self.variants = tuple(map(with_available_refiner, variants))
        config = self.variants[0].config
        first = Segmenter(config, dataset.classes)
        self.encoder = first.encoder
        self._segmenters = {config.subclasses: first}
        for variant in self.variants:
            if variant.config.subclasses not in self._segmenters:
                segmenter = Segmenter(variant.config, dataset.classes, encoder=self.encoder)
                self._segmenters[variant.config.subclasses] = segmenter

    def score(
        self, image_id: str, rgb: NDArray[np.uint8], truth: NDArray[np.uint16]
    ) -> ImageScores:
        """Segment an (H, W, 3) image under every variant and compare with its (H, W) true ids."""
        import torch

        started = time.perf_counter()
        with torch.inference_mode():
            features = self.encoder.encode_image(rgb)
        encode_ms = 1000 * (time.perf_counter() - started)
        runs = []
        true_boundaries = class_boundaries(truth, truth != IGNORED)
        for variant in self.variants:
            segmenter = self._segmenters[variant.config.subclasses]
            result = segmenter.segment_features(features, rgb, config=variant.config)
            confusion = confusion_matrix(truth, result.labels, len(self.dataset.names))
            timings_ms = {**result.timings_ms, 'encode': encode_ms}
            boundaries = class_boundaries(result.labels, truth != IGNORED)
            boundaries_k3 = boundary_overlaps(true_boundaries, boundaries)
            runs.append(RunScore(cells_of(confusion), boundaries_k3, timings_ms))
        return ImageScores(image_id, tuple(runs))


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


def score_images(
    evaluator: Evaluator, samples: Sequence[Sample], workers: int = 2
) -> Iterator[ImageScores]:
    """Score images of the dataset in their order; files are read ahead by `workers` threads.

    Raises:
        DatasetError: an image or its labels can't be used.
    """
    dataset = evaluator.dataset

    def read(sample: Sample) -> tuple[str, NDArray[np.uint8], NDArray[np.uint16]]:
        return (sample.id, *read_sample(dataset, sample))

    for image_id, rgb, truth in map_ahead(read, samples, workers):
        yield evaluator.score(image_id, rgb, truth)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield function(item) in order, at most 2 * workers of them computed ahead on threads."""
    pending: deque[Future[Result]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix='read')
    try:
        for item in itertools.islice(remaining, 2 * workers):
            pending.append(pool.submit(function, item))
        while pending:
            result = pending.popleft().result()
            for item in itertools.islice(remaining, 1):
                pending.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
