"""Objects of a map: voxels of one class that touch each other."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from llmseg_ros.classes import BACKGROUND_ID
from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.voxels import Voxels, pack

# Of the 26 neighbours of a voxel one of each opposite pair.
HALF_NEIGHBOURS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


class MapObject(NamedTuple):
    """Touching voxels of one class.

    Attributes:
        label: id of the class.
        centre: (3,) middle of the box around them, in metres.
        size: (3,) edges of that box along the axes of the map, in metres.
        voxels: how many they are.
        probability: mean of theirs.
    """

    label: int
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    voxels: int
    probability: float


def find_objects(voxels: Voxels, voxel_m: float, least_voxels: int = 1) -> list[MapObject]:
    """Return the objects of all classes but background, largest first.

    Args:
        voxels: of a map.
        voxel_m: edge of a voxel in metres.
        least_voxels: smaller ones are left out.
    """
    chosen = (voxels.labels != BACKGROUND_ID) & (voxels.labels != IGNORED)
    if not chosen.any():
        return []
    labels = voxels.labels[chosen]
    cells = np.rint(voxels.centres[chosen] / voxel_m).astype(np.int64)
    object_n = touching(cells, labels)
    count = int(object_n.max()) + 1
    order = np.argsort(object_n, kind='stable')
    starts = np.searchsorted(object_n[order], np.arange(count))
    low = np.minimum.reduceat(cells[order], starts) - 0.5
    high = np.maximum.reduceat(cells[order], starts) + 0.5
    sizes = np.bincount(object_n, minlength=count)
    probability = np.bincount(object_n, voxels.probability[chosen]) / sizes
    return [
        MapObject(
            int(labels[order[starts[n]]]),
            (low[n] + high[n]) / 2 * voxel_m,
            (high[n] - low[n]) * voxel_m,
            int(sizes[n]),
            float(probability[n]),
        )
        for n in np.argsort(-sizes, kind='stable').tolist()
        if sizes[n] >= least_voxels
    ]


def touching(cells: NDArray[np.int64], labels: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Return (n,) the number of the group of each of (n, 3) voxels.

    Voxels of one label that share a face, an edge or a corner are in one group.
    """
    inside = cells - cells.min(axis=0) + 1
    keys = pack(inside.T)
    order = np.argsort(keys)
    sorted_keys = keys[order]
    ones, others = [], []
    for step in HALF_NEIGHBOURS:
        wanted = pack((inside + step).T)
        at = np.minimum(np.searchsorted(sorted_keys, wanted), len(keys) - 1)
        other = order[at]
        touch = np.flatnonzero((sorted_keys[at] == wanted) & (labels[other] == labels))
        ones.append(touch)
        others.append(other[touch])
    one, other = np.concatenate(ones), np.concatenate(others)
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(len(keys),) * 2)
    found: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return found
