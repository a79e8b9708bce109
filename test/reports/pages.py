"""Small evaluations and replays to make report pages of, with names that try to break out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.frames import Frame, Rejection
from llmseg_ros.bags.scores import ReplayScores
from llmseg_ros.config import SegmenterConfig
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.evaluate import ImageScores, RunScore, cells_of
from llmseg_ros.evaluation.metrics import boundary_overlaps, class_boundaries, confusion_matrix
from llmseg_ros.evaluation.variants import Variant, make_variants
from llmseg_ros.mapping.agreement import PairCounts
from llmseg_ros.mapping.voxels import Voxels
from llmseg_ros.reports.bag_folder import BagResult, FolderReplay, FolderScores, folder_report
from llmseg_ros.reports.cloud_pictures import draw_top, make_scene
from llmseg_ros.reports.evaluation_page import best_run, evaluation_page
from llmseg_ros.reports.map_page import map_page
from llmseg_ros.reports.map_report import make_cloud
from llmseg_ros.reports.pictures import (
    ReplayRecorder,
    Shot,
    image_ious,
    make_shot,
    photograph,
    replay_recorder,
    worst_and_best,
)
from llmseg_ros.reports.replay_page import folder_page, replay_page
from llmseg_ros.reports.report import evaluation_report, replay_report
from llmseg_ros.segmentation import Segmentation

HOSTILE = '<script>alert(1)</script>'
QUOTED = '"><img src=x onerror=alert(2)> {{ 7 * 7 }}'
SECOND = 1_000_000_000
Labels = NDArray[np.uint16]


def random_labels(rng: np.random.Generator, count: int) -> tuple[Labels, Labels]:
    """Return true and predicted labels, of which two thirds agree."""
    truth = rng.integers(0, count, (12, 16)).astype(np.uint16)
    other = rng.integers(0, count, (12, 16)).astype(np.uint16)
    return truth, np.where(rng.random((12, 16)) < 2 / 3, truth, other)


def score(truth: Labels, labels: Labels, count: int, encode_ms: float) -> RunScore:
    counted = np.ones(truth.shape, np.bool_)
    overlaps = boundary_overlaps(
        class_boundaries(truth, counted), class_boundaries(labels, counted)
    )
    cells = cells_of(confusion_matrix(truth, labels, count))
    presence = np.array([np.mean(labels == index) for index in range(1, count)])
    return RunScore(cells, presence, overlaps, {'encode': encode_ms, 'fuse': 1.0})


def make_dataset(classes: Sequence[str], name: str = f'set {HOSTILE}') -> Dataset:
    id_of_value = np.arange(65536, dtype=np.uint16)
    return Dataset(name, tuple(classes), True, id_of_value, ())


class Scored(NamedTuple):
    """Random labels and their scores; pairs of true and predicted labels by image and variant."""

    dataset: Dataset
    variants: tuple[Variant, ...]
    pairs: list[list[tuple[Labels, Labels]]]
    scores: list[ImageScores]
    summary: dict[str, Any]


def make_scores(
    classes: Sequence[str],
    axes: Mapping[str, Sequence[str]],
    images: int,
    config: SegmenterConfig | None = None,
) -> Scored:
    """Return the scores of random labels."""
    rng = np.random.default_rng(0)
    dataset = make_dataset(classes)
    count = len(dataset.names)
    variants = make_variants(config or SegmenterConfig(), axes)
    pairs = [[random_labels(rng, count) for _ in variants] for _ in range(images)]
    names = [f'{index} {QUOTED}' for index in range(images)]
    scores = [
        ImageScores(name, tuple(score(*pair, count, 10 * index + 5) for pair in of_image))
        for index, (name, of_image) in enumerate(zip(names, pairs, strict=True))
    ]
    summary = evaluation_report(dataset, variants, f'encoder {HOSTILE}', scores)
    return Scored(dataset, variants, pairs, scores, summary)


def make_evaluation_page(
    classes: Sequence[str], axes: Mapping[str, Sequence[str]], images: int = 9
) -> str:
    """Return the page on random labels."""
    dataset, variants, pairs, scores, summary = make_scores(classes, axes, images)
    run = best_run(summary)
    rgb = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)

    def shots(indices: Sequence[int]) -> list[Shot]:
        return [make_shot(names[i], '', rgb, pairs[i][run][1], pairs[i][run][0]) for i in indices]

    names = [image.id for image in scores]
    worst, best = map(shots, worst_and_best(image_ious(dataset, scores, run)))
    return evaluation_page(summary, dataset, scores, worst, best, variants[-1].name)


def moving_square(index: int) -> tuple[NDArray[np.uint8], Labels]:
    """Return a frame and labels with a square of class 1 that moves to the right."""
    rgb = np.full((48, 64, 3), 90, np.uint8)
    labels = np.zeros((48, 64), np.uint16)
    labels[10:30, 2 * index : 2 * index + 20] = 1
    rgb[labels == 1] = (200, 40, 40)
    return rgb, labels


def segmentation(labels: Labels, timings_ms: Mapping[str, float]) -> Segmentation:
    return Segmentation(labels, np.ones(labels.shape, np.float32), (), 1, timings_ms)


def make_replay_page(
    folder: Path,
    classes: Sequence[str],
    frames: int = 8,
    with_truth: bool = False,
    **more: object,
) -> str:
    """Return the page on a bag, its video beside it in the folder; `more` is for the report."""
    scores = ReplayScores(['background', *classes])
    with replay_recorder(folder, classes, frames, with_video=True) as recorder:
        for index in range(frames):
            rgb, labels = moving_square(index)
            timings_ms = {'encode': 20.0 + index, 'fuse': 2.0}
            truth = labels if with_truth else None
            result = segmentation(labels, timings_ms)
            scores.add(result, truth)
            recorder.add(Frame(index * SECOND // 10, None, rgb), result, truth)
    scores.reject(Rejection(f'/cam {HOSTILE}', 10**9, None, f'an image is no {HOSTILE}'))
    summary = replay_report(f'bag {HOSTILE}', '/cam"era', 'encoder', SegmenterConfig(), scores)
    said = {'mode': 'offline', 'complete': True, 'notes': [f'{HOSTILE} is cut off']}
    return replay_page(summary | said | more, recorder)


def make_map_page(classes: Sequence[str], side: int = 12, forgotten: int = 0) -> str:
    """Return the page on a map that is a cube, its classes in layers from below; z is up."""
    names = ['background', *classes]
    scores, recorder = ReplayScores(names), ReplayRecorder(names, 3, None)
    for index in range(3):
        rgb, labels = moving_square(index)
        scores.add(segmentation(labels, {'encode': 20.0}), None)
        frame = Frame(index * SECOND // 10, None, rgb)
        recorder.add(frame, segmentation(labels, {'encode': 20.0}), None)
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)
    labels = (cells[:, 2] * len(names) // side).astype(np.uint16)
    rgb = np.full((len(cells), 3), 200, np.uint8)
    probability = (0.3 + 0.7 * cells[:, 0] / side).astype(np.float32)
    views = np.ones(len(cells), np.int32)
    found = Voxels(cells * 0.1, rgb, labels, probability, views)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    pose[:3, 3] = (0.5, -1, 2)
    scene = make_scene(found, np.stack([pose, pose]), 0.1)
    agreement = {'1': PairCounts(3, 100, 60, 50, 10, [0.01]).to_json(), '5': PairCounts().to_json()}
    summary = {
        **replay_report(f'map {HOSTILE}', 'color', 'encoder', SegmenterConfig(), scores),
        **{'mode': 'offline', 'complete': True, 'frame': f'map {QUOTED}', 'left_out': ''},
        'map': {
            'voxel_m': 0.1,
            'voxels': len(cells),
            'forgotten_voxels': forgotten,
            'mean_probability': 0.6,
        },
        **{'view_agreement': agreement, 'view_agreement_in_map': agreement},
    }
    listed = [{'id': i, 'name': name, 'voxels': side**2} for i, name in enumerate(names)]
    cloud = make_cloud(found, dict(enumerate(names)), scene, np.array([[0.5, -1, 2], [0.5, 0, 2]]))
    return map_page(summary, listed, cloud, [('from above', photograph(draw_top(scene)))], recorder)


def make_folder_page(folder: Path, bags: Sequence[str], classes: Sequence[str]) -> str:
    """Return the page on a folder of bags, one of them of no use; true labels in all others."""
    scores = FolderScores(ReplayScores(['background', *classes]))
    for number, bag in enumerate(bags):
        part = ReplayScores(['background', *classes])
        for index in range(3 + number):
            labels = moving_square(index)[1]
            part.add(segmentation(labels, {'encode': 20.0 + number}), labels // 2 * 2 + number % 2)
        scores.add(BagResult(bag, '/camera', part))
    scores.add(BagResult(HOSTILE, '', None, f'no bag {QUOTED}'))
    task = FolderReplay(folder, folder, SegmenterConfig(), tuple(classes), {})
    return folder_page(folder_report(task, 'encoder', scores, complete=True), scores.total)
