"""What is written down about a map: its numbers, its classes, its cloud for the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llmseg_ros.classes import BACKGROUND_ID
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.agreement import AgreementMeter, agreement_report
from llmseg_ros.mapping.geometry import Matrix
from llmseg_ros.mapping.voxels import VoxelMap, Voxels
from llmseg_ros.reports.cloud_pictures import PALE, PALEST, Scene
from llmseg_ros.reports.tables import colour_of

NO_CLASS = (BACKGROUND_ID, IGNORED)
SHOWN_POINTS = 200_000  # of the cloud on the page: 2.4 MB
UNLABELLED = (PALE + PALEST) // 2


class CloudClass(NamedTuple):
    """A class of the cloud on the page; `points` is how many of those shown are of it."""

    id: int
    name: str
    colour: str
    points: int


class Cloud(NamedTuple):
    """The cloud on the page.

    Attributes:
        data: JSON for its script.
        classes: that occur in it.
        shown: points.
        total: voxels of the map.
    """

    data: str
    classes: Sequence[CloudClass]
    shown: int
    total: int


def class_list(
    vocabulary: Sequence[Any], voxels: Voxels, voxel_m: float, world: str
) -> dict[str, Any]:
    """Return what classes.json says: the meaning of the labels in map.ply.

    Args:
        vocabulary: its classes.
        voxels: of the map.
        voxel_m: edge of a voxel in metres.
        world: name of the frame that the map is in.
    """
    counts = np.bincount(voxels.labels, minlength=IGNORED + 1)
    named = [
        (0, 'background', []),
        *((c.id, c.name, [*dict.fromkeys((c.name, *c.subclasses))]) for c in vocabulary),
    ]
    classes = [
        {
            'id': class_id,
            'name': name,
            'colour': colour_of(class_id),
            'subclasses': subclasses,
            'voxels': int(counts[class_id]),
        }
        for class_id, name, subclasses in named
    ]
    return {
        'frame': world,
        'voxel_m': voxel_m,
        'unlabelled': IGNORED,
        'unlabelled_voxels': int(counts[IGNORED]),
        'classes': classes,
    }


def map_facts(voxels: VoxelMap, found: Voxels, meter: AgreementMeter) -> dict[str, Any]:
    """Return the numbers of a map, and how well its views agree without and with it."""
    corners: list[list[float]] = []
    if len(found.labels):
        corners = np.round([found.centres.min(axis=0), found.centres.max(axis=0)], 3).tolist()
    return {
        'map': {
            'voxel_m': voxels.voxel_m,
            'voxels': len(voxels),
            'forgotten_voxels': voxels.forgotten,
            'views': voxels.views,
            'corners_m': corners,
            'median_views': float(np.median(found.views)) if len(found.views) else 0.0,
            'mean_probability': round(float(found.probability.mean()), 6) if len(voxels) else None,
        },
        'view_agreement': agreement_report(meter.counts),
        'view_agreement_in_map': agreement_report(meter.counts_in_map(voxels)),
    }


def make_cloud(
    voxels: Voxels, names: Mapping[int, str], scene: Scene, path_n3: Matrix, seed: int = 0
) -> Cloud:
    """Pack voxels for the page: 12 bytes each, positions to a 65535th of the map's edges.

    Args:
        voxels: of the map, at least one; a random part where they are too many.
        names: of the classes by id.
        scene: the same voxels as they are drawn.
        path_n3: where the cameras were, in metres.
        seed: of what is left out.
    """
    total = len(voxels.labels)
    chosen = np.arange(total)
    if total > SHOWN_POINTS:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(total, SHOWN_POINTS, replace=False))
    centres, labels = voxels.centres[chosen], voxels.labels[chosen]
    ids, class_n = np.unique(labels, return_inverse=True)
    low = centres.min(axis=0)
    size = np.maximum(centres.max(axis=0) - low, 1e-6)
    places = np.rint((centres - low) / size * 65535).astype('<u2')
    data = {
        'low': low.tolist(),
        'size': size.tolist(),
        'voxel': scene.voxel_m,
        'up': scene.up.tolist(),
        'ahead': scene.ahead.tolist(),
        'count': len(chosen),
        'colours': [rgb_of(int(i)) for i in ids],
        'plain': [int(i) in NO_CLASS for i in ids],
        'pale': [PALE, PALEST],
        'places': packed(places),
        'rgb': packed(voxels.rgb[chosen]),
        'classes': packed(class_n.astype('<u2')),
        'probability': packed(np.rint(255 * voxels.probability[chosen]).astype(np.uint8)),
        'path': np.round(path_n3, 3).tolist(),
    }
    counts = np.bincount(class_n, minlength=len(ids)).tolist()
    classes = [
        CloudClass(int(i), names.get(int(i), 'unlabelled'), '#' + bytes(rgb_of(int(i))).hex(), n)
        for i, n in zip(ids, counts, strict=True)
    ]
    return Cloud(json.dumps(data, separators=(',', ':')), classes, len(chosen), total)


def rgb_of(class_id: int) -> list[int]:
    """Return the colour of a class, 3 numbers of 0 to 255; background and no class are grey."""
    if class_id in NO_CLASS:
        return [UNLABELLED] * 3
    return list(bytes.fromhex(colour_of(class_id)[1:]))


def packed(values: Any) -> str:
    """Return the bytes of an array as base64."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode('ascii')
