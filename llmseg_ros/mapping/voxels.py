"""A voxel map of the world in which every view votes for the classes it sees."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.geometry import Floats, GeometryError, Matrix

AXIS_BITS = 21
HALF = 1 << (AXIS_BITS - 1)  # voxels to either side of where the map began
FARTHEST = 1 << 52  # voxels from the origin to a camera: beyond, float64 has no fractions
REGION_VOXELS = 32  # edge of the regions that are forgotten as a whole
KEPT = 0.9  # share of the limit that is left once something has to go

Keys = NDArray[np.int64]


class Voxels(NamedTuple):
    """The voxels of a map.

    Attributes:
        centres: (n, 3) float64 metres.
        rgb: (n, 3) uint8, mean colour.
        labels: (n,) uint16 id of the class with most votes, of equal ones the lowest; IGNORED
            where nothing has voted.
        probability: (n,) float32, its share of the votes.
        views: (n,) int32, in how many views the voxel was seen.
    """

    centres: Matrix
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    probability: Floats
    views: NDArray[np.int32]


class _Table:
    """Rows of numbers found by key; new keys get rows at the end."""

    def __init__(self, columns: int) -> None:
        self.keys: Keys = np.empty(0, np.int64)  # sorted
        self.rows: Keys = np.empty(0, np.int64)  # row of each key
        self._values = np.zeros((1024, columns), np.float32)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def values(self) -> Floats:
        """The (n, columns) rows."""
        return self._values[: len(self)]

    def add(self, keys: Keys, values: Floats) -> Keys:
        """Add to the rows of sorted keys, each there once; return the rows."""
        at = np.searchsorted(self.keys, keys)
        is_new = self._match(at, keys) < 0
        if is_new.any():
            first = len(self)
            new = keys[is_new]
            new_rows = np.arange(first, first + len(new))
            self.keys = np.insert(self.keys, at[is_new], new)
            self.rows = np.insert(self.rows, at[is_new], new_rows)
            if len(self) > len(self._values):
                grown = np.zeros((len(self) * 3 // 2, self._values.shape[1]), np.float32)
                grown[:first] = self._values[:first]
                self._values = grown
            at = np.searchsorted(self.keys, keys)
        rows = self.rows[at]
        self._values[rows] += values
        return rows

    def find(self, keys: Keys) -> Keys:
        """Return the row of each key, -1 where there is none."""
        at = np.searchsorted(self.keys, keys)
        return self._match(at, keys)

    def _match(self, at: Keys, keys: Keys) -> Keys:
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(at, len(self) - 1)
        return np.where(self.keys[at] == keys, self.rows[at], -1)

    def keep(self, kept_rows: NDArray[np.bool_], new_keys: Keys | None = None) -> None:
        """Keep some rows, moved together; their keys may be replaced by others in their order."""
        renumbered = np.cumsum(kept_rows) - 1
        values = self.values[kept_rows]
        kept = kept_rows[self.rows]
        self.keys = (self.keys if new_keys is None else new_keys)[kept]
        self.rows = renumbered[self.rows[kept]]
        self._values = np.zeros((max(1024, len(values) * 5 // 4), values.shape[1]), np.float32)
        self._values[: len(values)] = values


class VoxelMap:
    """Votes of many views about the classes of voxels, bounded in memory.

    A view has one vote in a voxel, whether it sees it with one pixel or a hundred: pixels of one
    frame err together. It is split among the classes of these pixels, each weighted with its
    confidence. Class ids are append-only, so votes keep their meaning when the list changes.

    Middles of voxels lie at multiples of their edge: the floor at 0 is not torn by rounding.

    Attributes:
        voxel_m: edge of a voxel in metres.
        limit: voxels at most; beyond, the regions seen longest ago are forgotten.
        views: how many have been added.
        forgotten: voxels forgotten so far.
    """

    def __init__(self, voxel_m: float = 0.05, limit: int = 1_000_000) -> None:
        """Begin an empty map.

        Raises:
            GeometryError: the voxels have no size, or none is allowed.
        """
        if not 0 < voxel_m < np.inf or limit < 1:
            raise GeometryError(
                f'a map has voxels above 0 m and a limit of at least 1, not {voxel_m:g} m '
                f'and {limit}'
            )
        self.voxel_m = voxel_m
        self.limit = limit
        self.views = 0
        self.forgotten = 0
        self._origin = np.zeros(3, np.int64)  # voxel where the first camera was
        self._voxels = _Table(4)  # red, green, blue, views
        self._seen_last = np.empty(0, np.int64)  # view, by row of a voxel
        self._votes = _Table(1)  # keys: row of the voxel, then 16 bits of the class

    def __len__(self) -> int:
        return len(self._voxels)

    def add(
        self,
        points: Floats,
        labels: NDArray[np.uint16],
        confidence: Floats,
        rgb: NDArray[np.uint8],
        pose: Matrix,
    ) -> None:
        """Add a view.

        Args:
            points: (H, W, 3) metres in the camera's frame, NaN where unknown.
            labels: (H, W) ids, IGNORED where a pixel has none.
            confidence: (H, W) in [0, 1].
            rgb: (H, W, 3).
            pose: (4, 4) camera to world.

        Raises:
            GeometryError: a point is too far from where the map began, or the camera from the
                origin.
        """
        # Small numbers for float32: whole voxels up to the camera are added as integers.
        camera = pose[:3, 3] / self.voxel_m
        whole = np.rint(camera)
        if not (np.abs(whole) < FARTHEST).all():
            raise GeometryError(
                f'a pose is {np.abs(pose[:3, 3]).max():.3g} m from the origin, too far for '
                f'voxels of {self.voxel_m:g} m'
            )
        self.views += 1
        if not len(self):
            self._origin = whole.astype(np.int64)
        cells = (pose[:3, :3] / self.voxel_m).astype(np.float32) @ points.reshape(-1, 3).T
        cells += (camera - whole).astype(np.float32)[:, None]
        np.rint(cells, out=cells)

        # Neighbouring pixels mostly share voxel and label: few runs are left to sort.
        starts = np.flatnonzero(is_run_start(cells, labels.ravel()))
        lengths = np.diff(starts, append=cells.shape[1])
        weights = np.add.reduceat(confidence.ravel(), starts)
        known = ~np.isnan(cells[2, starts])
        starts, lengths, weights = starts[known], lengths[known], weights[known]
        if not len(starts):
            return
        offset = whole.astype(np.int64) - self._origin + HALF
        keys = pack(checked_cells(cells[:, starts].astype(np.int64) + offset[:, None]))
        labels_r = labels.ravel()[starts]
        weights *= labels_r != IGNORED
        colours = rgb.reshape(-1, 3)[starts + lengths // 2]
        self._add_runs(keys, labels_r, lengths.astype(np.float32), weights, colours)
        if len(self) > self.limit:
            self._forget()

    def _add_runs(
        self,
        keys: Keys,
        labels: NDArray[np.uint16],
        lengths: Floats,
        weights: Floats,
        colours: NDArray[np.uint8],
    ) -> None:
        """Add runs of pixels with one voxel and one label each."""
        order = np.argsort(keys)
        sorted_keys = keys[order]
        first_n = np.ones(len(order), np.bool_)
        first_n[1:] = sorted_keys[1:] != sorted_keys[:-1]
        voxel_of_run = np.empty(len(order), np.int64)
        voxel_of_run[order] = np.cumsum(first_n) - 1
        unique = sorted_keys[first_n]
        pixels = np.bincount(voxel_of_run, lengths)
        sums = np.empty((len(unique), 4), np.float32)
        for channel in range(3):
            sums[:, channel] = np.bincount(voxel_of_run, lengths * colours[:, channel]) / pixels
        sums[:, 3] = 1
        rows = self._voxels.add(unique, sums)
        seen_last = np.full(len(self._voxels), self.views, np.int64)
        seen_last[: len(self._seen_last)] = self._seen_last
        seen_last[rows] = self.views
        self._seen_last = seen_last

        votes = weights / pixels[voxel_of_run]
        voted = votes > 0
        vote_keys = (rows[voxel_of_run[voted]] << 16) | labels[voted].astype(np.int64)
        unique_votes, inverse = np.unique(vote_keys, return_inverse=True)
        summed = np.bincount(inverse, votes[voted], minlength=len(unique_votes))
        self._votes.add(unique_votes, summed.astype(np.float32)[:, None])

    def _forget(self) -> None:
        """Forget the regions seen longest ago until the map is below its limit again."""
        coordinates = unpack(self._voxels.keys)[:, np.argsort(self._voxels.rows)]
        regions = pack(coordinates // REGION_VOXELS)
        _, region_n = np.unique(regions, return_inverse=True)
        seen_last = np.zeros(region_n.max() + 1, np.int64)
        np.maximum.at(seen_last, region_n, self._seen_last)
        sizes = np.bincount(region_n)
        newest_first = np.argsort(-seen_last, kind='stable')
        fits = np.cumsum(sizes[newest_first]) <= self.limit * KEPT
        if not fits[0]:  # one region alone is too large
            kept = np.zeros(len(self), np.bool_)
            kept[np.argsort(-self._seen_last, kind='stable')[: int(self.limit * KEPT)]] = True
        else:
            is_kept = np.zeros(len(sizes), np.bool_)
            is_kept[newest_first[fits]] = True
            kept = is_kept[region_n]
        self._keep(kept)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.forgotten += int(len(kept) - kept.sum())
        renumbered = np.cumsum(kept) - 1
        voxel_of_vote = self._votes.keys >> 16
        new_keys = (renumbered[voxel_of_vote] << 16) | (self._votes.keys & 0xFFFF)
        kept_votes = np.empty(len(self._votes), np.bool_)
        kept_votes[self._votes.rows] = kept[voxel_of_vote]
        self._votes.keep(kept_votes, new_keys)
        self._voxels.keep(kept)
        self._seen_last = self._seen_last[kept]

    def winners(self) -> tuple[NDArray[np.uint16], Floats]:
        """Return label and probability of every voxel, as Voxels has them."""
        labels = np.full(len(self), IGNORED, np.uint16)
        probability = np.zeros(len(self), np.float32)
        keys = self._votes.keys
        if not len(keys):
            return labels, probability
        weights = self._votes.values[self._votes.rows, 0]
        voxel_n = keys >> 16
        starts = np.flatnonzero(np.diff(voxel_n, prepend=-1))
        voxels = voxel_n[starts]
        best = np.maximum.reduceat(weights, starts)
        counts = np.diff(starts, append=len(keys))
        is_best = weights == np.repeat(best, counts)
        # Keys go up within a voxel: of equal votes the lowest id is written last.
        at = np.flatnonzero(is_best)[::-1]
        labels[voxel_n[at]] = (keys[at] & 0xFFFF).astype(np.uint16)
        probability[voxels] = best / np.add.reduceat(weights, starts)
        return labels, probability

    def voxels(self) -> Voxels:
        """Return all voxels, in the order in which they were first seen."""
        sums = self._voxels.values
        views = sums[:, 3:]
        rgb = np.rint(sums[:, :3] / np.maximum(views, 1)).astype(np.uint8)
        coordinates = unpack(self._voxels.keys)[:, np.argsort(self._voxels.rows)] - HALF
        centres = (coordinates.T + self._origin) * self.voxel_m
        labels, probability = self.winners()
        return Voxels(centres, rgb, labels, probability, views[:, 0].astype(np.int32))

    def rows_at(self, points: NDArray[Any]) -> Keys:
        """Return the index in `voxels` of (n, 3) points of the world, -1 where nothing is."""
        at = np.rint(points / self.voxel_m).astype(np.int64) - self._origin + HALF
        inside = ((at >= 0) & (at < 2 * HALF)).all(axis=1)
        return np.where(inside, self._voxels.find(pack(np.clip(at, 0, 2 * HALF - 1).T)), -1)


def is_run_start(cells: Floats, labels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return (n,) whether a pixel differs from the one before in its (3, n) cell or its label."""
    starts = np.ones(len(labels), np.bool_)
    np.not_equal(labels[1:], labels[:-1], out=starts[1:])
    for axis in cells:
        starts[1:] |= axis[1:] != axis[:-1]
    return starts


def checked_cells(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (3, n) coordinates of voxels.

    Raises:
        GeometryError: one is beyond what a key can hold.
    """
    if cells.min() < 0 or cells.max() >= 2 * HALF:
        raise GeometryError(
            f'a point is more than {HALF} voxels from where the map began: '
            'the pose jumps, or the voxels are too small'
        )
    return cells


def pack(coordinates: NDArray[Any]) -> Keys:
    """Return one number for each of (3, n) coordinates of 0 to 2^21 - 1."""
    x, y, z = coordinates
    keys = x.astype(np.int64)
    for axis in (y, z):
        keys <<= AXIS_BITS
        keys |= axis
    return keys


def unpack(keys: Keys) -> NDArray[np.int64]:
    """Return the (3, n) coordinates of keys."""
    mask = (1 << AXIS_BITS) - 1
    return np.stack([keys >> 2 * AXIS_BITS, keys >> AXIS_BITS & mask, keys & mask])
