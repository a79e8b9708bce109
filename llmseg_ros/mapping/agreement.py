"""How well views of one surface agree about its labels: a measure that needs no true labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.classes import BACKGROUND_ID
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.geometry import Camera, Floats, Matrix, inverse, project, transform
from llmseg_ros.mapping.voxels import VoxelMap

APART = (1, 5)  # frames between the views compared
STEP = 4  # every so many pixels of a view are looked for in the other
SAME_SURFACE = 0.02  # difference of depths, as a share of them, up to which it is one surface
KEPT_PAIRS = 256  # of views, of each distance, for what is looked up in the map afterwards


class View(NamedTuple):
    """What a labelled frame saw.

    Attributes:
        points: (H, W, 3) metres in the camera's frame, NaN where unknown.
        labels: (H, W) uint16.
        camera: of this size.
        pose: (4, 4) camera to world.
    """

    points: Floats
    labels: NDArray[np.uint16]
    camera: Camera
    pose: Matrix


class Matches(NamedTuple):
    """Pixels of two views that see one place.

    Attributes:
        labels_n2: (n, 2) uint16, in the one view and in the other.
        points_n23: (n, 2, 3) float64 metres in the world, as either view has them.
        nearer_n: (n,) float64 metres by which the other view sees the place nearer or (below 0)
            farther than the one does.
    """

    labels_n2: NDArray[np.uint16]
    points_n23: NDArray[np.float64]
    nearer_n: NDArray[np.float64]


def match_views(one: View, other: View, step: int = STEP) -> Matches:
    """Look for the pixels of one view in another; what stands before them there is left out."""
    points = one.points[::step, ::step].reshape(-1, 3)
    labels = one.labels[::step, ::step].ravel()
    known = points[:, 2] > 0
    world = transform(points[known], one.pose)
    labels = labels[known]
    there = transform(world, inverse(other.pose))
    before = there[:, 2] > 0
    there, world, labels = there[before], world[before], labels[before]
    pixels = np.rint(project(there, other.camera))
    height, width = other.labels.shape
    inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
    x, y = pixels[inside].astype(np.int64).T
    world, labels, z = world[inside], labels[inside], there[inside, 2]
    seen = other.points[y, x]
    nearer = z - seen[:, 2]
    same = np.abs(nearer) <= SAME_SURFACE * z  # False where the depth there is unknown
    labels_n2 = np.stack([labels[same], other.labels[y[same], x[same]]], axis=1)
    points_n23 = np.stack([world[same], transform(seen[same], other.pose)], axis=1)
    return Matches(labels_n2, points_n23, nearer[same])


@dataclass
class PairCounts:
    """What is counted over pairs of views that are equally far apart.

    Attributes:
        pairs: of views that see something in common.
        places: seen by both views of a pair.
        agreed: of these under one label.
        named: of these where at least one view says a class, not background.
        named_agreed: of those under one label.
        medians_m: by pair, the median absolute difference of the depths.
    """

    pairs: int = 0
    places: int = 0
    agreed: int = 0
    named: int = 0
    named_agreed: int = 0
    medians_m: list[float] = field(default_factory=list)

    def add(self, labels_n2: NDArray[np.uint16]) -> None:
        """Count the places of a pair."""
        counted = (labels_n2 != IGNORED).all(axis=1)
        one, other = labels_n2[counted].T
        same, named = one == other, (one != BACKGROUND_ID) | (other != BACKGROUND_ID)
        self.pairs += 1
        self.places += len(one)
        self.agreed += int(same.sum())
        self.named += int(named.sum())
        self.named_agreed += int((same & named).sum())

    def merge(self, other: PairCounts) -> None:
        """Add what was counted elsewhere."""
        for name in ('pairs', 'places', 'agreed', 'named', 'named_agreed'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.medians_m += other.medians_m

    def to_json(self) -> dict[str, Any]:
        """Return shares as a report has them; None where nothing was seen twice."""
        return {
            'pairs': self.pairs,
            'places': self.places,
            'agreement': round(self.agreed / self.places, 6) if self.places else None,
            'class_agreement': round(self.named_agreed / self.named, 6) if self.named else None,
            'depth_difference_mm': (
                round(1000 * float(np.median(self.medians_m)), 2) if self.medians_m else None
            ),
        }


class AgreementMeter:
    """Compare every view with those some frames before it.

    Attributes:
        counts: by how many frames the views are apart.
    """

    def __init__(self, apart: Sequence[int] = APART, keep_places: bool = False) -> None:
        """Count pairs that are so many frames apart; places are kept to look them up in a map."""
        self.counts = {distance: PairCounts() for distance in apart}
        self._recent: deque[View | None] = deque(maxlen=max(apart))
        self._kept: dict[int, list[NDArray[np.float64]]] | None = (
            {distance: [] for distance in apart} if keep_places else None
        )
        self._every = dict.fromkeys(apart, 1)  # so many pairs, one is kept

    def add(self, view: View | None) -> None:
        """Compare the next view; None for a frame without depth or pose."""
        for distance, counts in self.counts.items():
            other = self._recent[-distance] if len(self._recent) >= distance else None
            if view is None or other is None:
                continue
            matches = match_views(view, other)
            if not len(matches.nearer_n):
                continue
            counts.add(matches.labels_n2)
            counts.medians_m.append(float(np.median(np.abs(matches.nearer_n))))
            if self._kept is not None:
                self._keep(distance, counts.pairs, matches.points_n23)
        self._recent.append(view)

    def _keep(self, distance: int, pair: int, points_n23: NDArray[np.float64]) -> None:
        """Keep places of every n-th pair, thinned out so that they never are too many."""
        assert self._kept is not None
        if (pair - 1) % self._every[distance]:
            return
        self._kept[distance].append(points_n23)
        if len(self._kept[distance]) > KEPT_PAIRS:
            self._kept[distance] = self._kept[distance][::2]
            self._every[distance] *= 2

    def counts_in_map(self, voxels: VoxelMap) -> dict[int, PairCounts]:
        """Return the counts when both views of a place take its label from the map."""
        labels = np.append(voxels.winners()[0], np.uint16(IGNORED))  # -1: not in the map
        found = {}
        for distance, kept in (self._kept or {}).items():
            found[distance] = PairCounts()
            for points_n23 in kept:
                rows = voxels.rows_at(points_n23.reshape(-1, 3))
                found[distance].add(labels[rows].reshape(-1, 2))
        return found


def agreement_report(counts: Mapping[int, PairCounts]) -> dict[str, Any]:
    """Return the counts as a report has them, by how many frames the views are apart."""
    return {str(distance): of.to_json() for distance, of in counts.items()}
