"""What is counted over the frames of a bag, or of several."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.bags.frames import Rejection
from llmseg_ros.bags.storage import BagError
from llmseg_ros.evaluation.metrics import confusion_matrix

MOST_NAMED = 100  # messages that can't be used; all are counted


class Labelled(Protocol):
    """What a frame led to, in this process or in the node's.

    Attributes:
        labels: (H, W) uint16 ids.
        timings_ms: wall time by stage.
    """

    @property
    def labels(self) -> NDArray[np.uint16]: ...
    @property
    def timings_ms(self) -> Mapping[str, float]: ...


COUNTS = (
    *('frames', 'rejected', 'rejected_labels', 'labelled', 'compared', 'changed'),
    *('pixels_n', 'presence_changes_n', 'confusion'),
)  # of ReplayScores: what adds up


@dataclass
class ReplayScores:
    """What is counted over the frames of a bag, or of several.

    Attributes:
        names: name by id, that of the background first.
        frames: how many were segmented.
        rejected: how many more can't be used.
        rejected_labels: how many label images can't be used.
        rejections: of the first MOST_NAMED of both.
        labelled: how many of them have true labels.
        compared: pixels of frames that have one of their size before them.
        changed: how many of these have another label than there.
        timings_ms: wall time by stage and in all, a frame each.
        pixels_n: (n,) int64, pixels by id.
        presence_changes_n: (n,) int64, how often each class appeared or vanished from one frame
            to the next.
        confusion: (n, n) int64, of the frames with true labels.
    """

    names: Sequence[str]
    frames: int = 0
    rejected: int = 0
    rejected_labels: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    labelled: int = 0
    compared: int = 0
    changed: int = 0
    timings_ms: dict[str, array[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.names)
        self.pixels_n = np.zeros(count, np.int64)
        self.presence_changes_n = np.zeros(count, np.int64)
        self.confusion = np.zeros((count, count), np.int64)
        self._last: NDArray[np.uint16] | None = None
        self._last_present_n: NDArray[np.bool_] | None = None

    def add(self, result: Labelled, truth: NDArray[np.uint16] | None) -> None:
        """Count the next frame."""
        labels = result.labels
        laps = {**result.timings_ms, 'total': sum(result.timings_ms.values())}
        for stage, value in laps.items():
            self.timings_ms.setdefault(stage, array('d')).append(round(value, 3))
        pixels_n = np.bincount(labels.ravel(), minlength=len(self.names))
        present_n = pixels_n > 0
        self.pixels_n += pixels_n
        if self._last_present_n is not None:
            self.presence_changes_n += present_n != self._last_present_n
        if self._last is not None and self._last.shape == labels.shape:
            self.compared += labels.size
            self.changed += np.count_nonzero(labels != self._last)
        self._last, self._last_present_n = labels, present_n
        self.frames += 1
        if truth is not None:
            self.labelled += 1
            self.confusion += confusion_matrix(truth, labels, len(self.names))

    def reject(self, rejection: Rejection) -> None:
        """Count a frame that can't be used."""
        self.rejected += 1
        self._name(rejection)

    def reject_labels(self, rejection: Rejection) -> None:
        """Count a label image that can't be used."""
        self.rejected_labels += 1
        self._name(rejection)

    def check(self, labelled: bool) -> None:
        """Check that a bag is through, and what it was replayed for is there.

        Raises:
            BagError: no frame can be used, or none of the true labels that there should be.
        """
        if self.rejected and not self.frames:
            raise BagError(
                f'none of the {self.rejected} frames can be used: {self.rejections[0].reason}'
            )
        if labelled and self.frames and not self.labelled:
            if self.rejected_labels:
                reasons = [r.reason for r in self.rejections]
                raise BagError(f'no label image can be used: {reasons[-1]}')
            raise BagError('no label image has the stamp of a camera frame')

    def merge(self, other: ReplayScores) -> None:
        """Add what was counted over another bag, of the same classes."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for stage, values in other.timings_ms.items():
            self.timings_ms.setdefault(stage, array('d')).extend(values)

    def _name(self, rejection: Rejection) -> None:
        if len(self.rejections) < MOST_NAMED:
            self.rejections.append(rejection)

    def to_record(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        counts: dict[str, Any] = {name: np.asarray(getattr(self, name)).tolist() for name in COUNTS}
        timings_ms = {stage: values.tolist() for stage, values in self.timings_ms.items()}
        rejections = [list(rejection) for rejection in self.rejections]
        return {**counts, 'rejections': rejections, 'timings_ms': timings_ms}


def scores_from_record(names: Sequence[str], record: Mapping[str, Any]) -> ReplayScores:
    """Return what to_record wrote.

    Raises:
        KeyError: something is missing.
        TypeError: something is of another kind.
        ValueError: something is of another size.
    """
    scores = ReplayScores(names)
    for name in COUNTS:
        value = getattr(scores, name)
        value += np.array(record[name], np.int64).reshape(np.shape(value))
        setattr(scores, name, value if np.ndim(value) else int(value))
    scores.rejections = [Rejection(*rejection) for rejection in record['rejections']]
    for stage, values in record['timings_ms'].items():
        scores.timings_ms[stage] = array('d', values)
    return scores
