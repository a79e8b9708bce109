"""Pictures of single images for the report page: which ones, and what they show."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llmseg_ros.bags.frames import Frame
from llmseg_ros.bags.scores import Labelled
from llmseg_ros.classes import clean_names
from llmseg_ros.evaluation.boxes import BoxedDataset
from llmseg_ros.evaluation.datasets import Dataset, read_rgb, read_sample
from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores, sum_cells
from llmseg_ros.evaluation.metrics import IGNORED, confusion_matrix, mean_iou
from llmseg_ros.reports.video import OverlayVideo, overlay_video
from llmseg_ros.visualize import colour_labels, overlay, palette

if TYPE_CHECKING:
    from llmseg_ros.segmenter import Segmenter

SHOWN = 4  # worst and best images, most changed frames
SPREAD = 6  # frames of a bag, evenly spaced
WIDTH = 480  # at most, in pixels
JPEG_QUALITY = 82
WRONG = (230, 60, 40)
NOT_COUNTED = (128, 128, 128)


@dataclass(frozen=True, eq=False)
class Shot:
    """An image with its labels, made small enough for a page.

    Attributes:
        name: of the image.
        about: what is said about it.
        rgb: (h, w, 3) uint8.
        labels: (h, w) uint16.
        truth: (h, w) uint16, IGNORED where a pixel does not count; None without true labels.
    """

    name: str
    about: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    truth: NDArray[np.uint16] | None = None

    def pictures(self) -> list[tuple[str, str]]:
        """Return what is shown of it: title and data URI."""
        shown = [('image', photograph(self.rgb))]
        if self.truth is None:
            return [*shown, ('overlay', self.overlay())]
        return [
            *shown,
            ('truth', drawing(truth_colours(self.truth))),
            ('prediction', drawing(colour_labels(self.labels))),
            ('error', photograph(error_map(self.rgb, self.labels, self.truth))),
        ]

    def overlay(self) -> str:
        """Return the labels over the image as a data URI."""
        return photograph(overlay(self.rgb, self.labels))

    def ids(self) -> list[int]:
        """Return the ids in truth or prediction."""
        found = set(np.unique(self.labels).tolist())
        if self.truth is not None:
            found |= set(np.unique(self.truth).tolist()) - {IGNORED}
        return sorted(found)


def make_shot(
    name: str,
    about: str,
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    truth: NDArray[np.uint16] | None = None,
) -> Shot:
    """Make an image and its labels small."""
    size = (min(WIDTH, rgb.shape[1]), round(rgb.shape[0] * min(1, WIDTH / rgb.shape[1])) or 1)

    def nearest(ids: NDArray[np.uint16]) -> NDArray[np.uint16]:
        return np.asarray(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), np.uint16)

    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Shot(name, about, small, nearest(labels), None if truth is None else nearest(truth))


def truth_colours(truth: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return the (h, w, 3) colours of true ids, grey where a pixel does not count."""
    counted = truth != IGNORED
    colours = colour_labels(np.where(counted, truth, 0))
    colours[~counted] = NOT_COUNTED
    return colours


def error_map(
    rgb: NDArray[np.uint8], labels: NDArray[np.uint16], truth: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Return the (h, w, 3) image in faint grey, red where labels are wrong."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) // 2
    result = np.repeat(grey[..., None], 3, axis=2)
    counted = truth != IGNORED
    result[counted & (labels != truth)] = WRONG
    result[~counted] = NOT_COUNTED
    return result


def photograph(rgb: NDArray[np.uint8]) -> str:
    """Return a picture as the data URI of a JPEG file."""
    return data_uri(rgb, 'jpeg', quality=JPEG_QUALITY)


def drawing(rgb: NDArray[np.uint8]) -> str:
    """Return a picture with sharp edges and few colours as the data URI of a PNG file."""
    return data_uri(rgb, 'png', optimize=True)


def data_uri(rgb: NDArray[np.uint8], kind: str, **options: object) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format=kind, **options)
    return f'data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode("ascii")}'


def image_ious(dataset: Dataset, scores: Sequence[ImageScores], run: int) -> list[float]:
    """Return the mIoU of every image under one variant, NaN where nothing of it counts."""
    count = len(dataset.names)
    return [mean_iou(sum_cells([s.runs[run]], count), dataset.first_id) for s in scores]


def worst_and_best(ious: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return the indices of the lowest values and of the highest, none of them in both."""
    defined = [index for index, iou in enumerate(ious) if not np.isnan(iou)]
    order = sorted(defined, key=lambda index: ious[index])
    worst = order[: min(SHOWN, (len(order) + 1) // 2)]
    return worst, order[len(worst) :][::-1][:SHOWN]


def segment_samples(evaluator: Evaluator, about: Mapping[str, str]) -> dict[str, Shot]:
    """Segment a few images of a dataset.

    Args:
        evaluator: of one variant.
        about: what is said about each image, by its id.
    """
    shots = {}
    for sample in evaluator.dataset.samples:
        if sample.id in about:
            rgb, truth = read_sample(evaluator.dataset, sample, evaluator.sixteen_bit)
            labels = evaluator.segment(rgb)[0].labels
            shots[sample.id] = make_shot(sample.id, about[sample.id], rgb, labels, truth)
    return shots


def segment_boxed(segmenter: Segmenter, dataset: BoxedDataset) -> list[Shot]:
    """Segment a few images of a dataset with boxes, and draw the boxes into them."""
    shots = []
    for index in sorted(evenly_spaced(len(dataset.images))):
        item = dataset.images[index]
        rgb = read_rgb(item.image, segmenter.config.images.sixteen_bit)
        labels = segmenter.segment(rgb).labels
        for box in item.boxes:
            colour = palette(len(dataset.classes) + 1)[1 + dataset.classes.index(box.name)]
            corners = (box.left, box.top), (box.right, box.bottom)
            cv2.rectangle(rgb, *corners, colour.tolist(), max(2, rgb.shape[1] // 160))
        names = sorted({box.name for box in item.boxes})
        shots.append(make_shot(item.id, f'boxes: {", ".join(names) or "none"}', rgb, labels))
    return shots


def evenly_spaced(total: int) -> set[int]:
    """Return at most SPREAD of the indices below `total`, the first and the last among them."""
    return {index * (total - 1) // (SPREAD - 1) for index in range(SPREAD)}


class Ranked(NamedTuple):
    """A shot in a heap: the highest rank stays longest, of equal ones the first."""

    rank: float
    order: int
    shot: Shot


class ReplayRecorder:
    """Keep what the page on a bag shows: some frames, values by frame, and the video."""

    def __init__(self, names: Sequence[str], total: int, video: OverlayVideo | None) -> None:
        """Expect about `total` frames, labelled with ids of `names`, the background's first."""
        self.names = names
        self.video = video
        self.stamps: list[int] = []
        self.totals_ms: list[float] = []
        self.changed: list[float] = []
        self.spread: list[Shot] = []
        self.confusion = np.zeros((len(names),) * 2, np.int64)
        self._spread = evenly_spaced(total)
        self._heaps: dict[str, list[Ranked]] = {'changed': [], 'worst': [], 'best': []}
        self._last: NDArray[np.uint16] | None = None

    def add(self, frame: Frame, result: Labelled, truth: NDArray[np.uint16] | None) -> None:
        """Take the next frame, what it led to and its true ids."""
        index = len(self.stamps)
        rgb, labels = frame.rgb, result.labels
        self.stamps.append(frame.stamp)
        self.totals_ms.append(sum(result.timings_ms.values()))
        comparable = self._last is not None and self._last.shape == labels.shape
        self.changed.append(float(np.mean(labels != self._last)) if comparable else float('nan'))
        self._last = labels
        shot = (rgb, labels, truth)
        if index in self._spread:
            self.spread.append(make_shot(self.frame_name(index), '', *shot))
        if comparable:
            text = f'{100 * self.changed[-1]:.1f} % changed'
            self._rank('changed', self.changed[-1], text, *shot)
        if truth is not None:
            confusion = confusion_matrix(truth, labels, len(self.names))
            self.confusion += confusion
            iou = mean_iou(confusion)
            if not np.isnan(iou):
                self._rank('worst', -iou, f'mIoU {100 * iou:.1f} %', *shot)
                self._rank('best', iou, f'mIoU {100 * iou:.1f} %', *shot)
        if self.video:
            self.video.add(frame.stamp, rgb, labels)

    def frame_name(self, index: int) -> str:
        """Return the number of a frame, and its time after the first."""
        return f'frame {index + 1}, {(self.stamps[index] - self.stamps[0]) / 1e9:.2f} s'

    def top(self, name: str) -> list[Shot]:
        """Return the shots of a ranking: `changed`, `worst` or `best`."""
        return [ranked.shot for ranked in sorted(self._heaps[name], reverse=True)]

    def _rank(
        self,
        name: str,
        rank: float,
        about: str,
        rgb: NDArray[np.uint8],
        labels: NDArray[np.uint16],
        truth: NDArray[np.uint16] | None,
    ) -> None:
        heap, index = self._heaps[name], len(self.stamps) - 1
        if len(heap) == SHOWN and rank <= heap[0].rank:
            return
        shot = make_shot(self.frame_name(index), about, rgb, labels, truth)
        heapq.heappush(heap, Ranked(rank, -index, shot))
        if len(heap) > SHOWN:
            heapq.heappop(heap)


@contextmanager
def replay_recorder(
    folder: Path, classes: Sequence[str], total: int, with_video: bool
) -> Iterator[ReplayRecorder]:
    """Record for the page of a report folder; overlay.mp4 is there once the block is through.

    Args:
        folder: of the report.
        classes: as they were asked for; what the class list refuses is left out.
        total: about how many frames there will be.
        with_video: whether to write the video.

    Raises:
        VideoError: the video can't be written.
    """
    names = ['background', *clean_names(classes)[0]]
    if not with_video:
        yield ReplayRecorder(names, total, None)
        return
    with overlay_video(folder / 'overlay.mp4', names) as video:
        yield ReplayRecorder(names, total, video)
