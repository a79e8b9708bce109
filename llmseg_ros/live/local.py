"""A segmenter of ours on the frames of a source, as a session."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.candidates import candidate_maps
from llmseg_ros.class_rules import Given, as_given, with_kept
from llmseg_ros.live.frames import ClassShare, LiveFrame
from llmseg_ros.live.reader import FrameReader, LiveSource, TakenFrame
from llmseg_ros.live.session import LiveError, describe_class
from llmseg_ros.live.thresholds import describe_thresholds, with_threshold
from llmseg_ros.segmentation import ClassMaps, Segmentation, frame_before
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.system.frame_statistics import FrameStatistics
from llmseg_ros.system.worker import Worker

STOP_S = 2.0  # for the frame in work


class LocalSession:
    """Segment the newest frame of a source while someone looks."""

    def __init__(self, segmenter: Segmenter, source: LiveSource) -> None:
        self.newest: LiveFrame | None = None
        self._segmenter = segmenter
        self._source = source
        self._statistics = FrameStatistics()
        self._worker: Worker[TakenFrame] = Worker(self._work_on, 'live segment')
        self._reader = FrameReader(source, self._take)
        self._previous: tuple[int, Segmentation] | None = None
        self._item: TakenFrame | None = None
        self._trouble = ''
        self._described: tuple[int, list[dict[str, Any]]] = (-1, [])
        segmenter.on_new_subclasses = self._again

    def start(self, on_frame: Callable[[LiveFrame], None]) -> None:
        """Begin; `on_frame` is called with every frame on the worker's thread."""
        self._on_frame = on_frame
        self._worker.start()
        self._reader.start()

    def close(self) -> None:
        """End the threads and let go of the source."""
        self._reader.close()
        self._worker.stop(STOP_S)
        self._segmenter.close()

    def watch(self, watched: bool) -> None:
        """Work only while someone looks."""
        self._reader.watch(watched)
        if watched:
            self._again()

    def describe(self) -> dict[str, Any]:
        """Return the state as plain values."""
        segmenter, asking = self._segmenter, self._segmenter.asking
        percentiles = self._statistics.percentiles_ms()
        return {
            'source': self._source.name,
            'kind': 'local',
            'paused': self._reader.paused,
            'resting': self._reader.resting,
            'classes': self._describe_classes(),
            'thresholds': describe_thresholds(segmenter.config),
            'encoder': segmenter.encoder.name,
            'device': str(segmenter.encoder.device),
            'rate_hz': round(self._statistics.rate_hz(), 1),
            'dropped': self._worker.dropped,
            'timings_ms': {stage: list(both) for stage, both in percentiles.items()},
            'notes': [*segmenter.notes, *self._reader.notes],
            'asking': asking.pending,
            'trouble': self._trouble or self._reader.trouble or asking.problem,
        }

    def settings(self) -> dict[str, Any]:
        """Return settings and class list in the layout of a configuration file."""
        sections = json.loads(json.dumps(dataclasses.asdict(self._segmenter.config)))
        names = [item.name for item in self._segmenter.vocabulary.classes]
        return {**({'classes': names} if names else {}), **sections}

    def set_classes(self, names: Sequence[str], rules: Given = ()) -> Sequence[str]:
        """Replace the class list; classes that stay keep their rules, but where `rules` has one."""
        kept = with_kept(rules, as_given(self._segmenter.vocabulary.rules), names)
        messages = self._segmenter.set_classes(names, kept).messages
        self._again()
        return messages

    def set_subclasses(self, name: str, names: Sequence[str]) -> Sequence[str]:
        """Replace the subclasses of a class.

        Raises:
            LiveError: the class is not in the list.
        """
        try:
            messages = self._segmenter.set_subclasses(name, names)
        except KeyError as error:
            raise LiveError(f'class {name!a} is not in the list any more') from error
        self._again()
        return messages

    def set_threshold(self, name: str, value: float) -> None:
        """Change a threshold.

        Raises:
            ConfigError: it can't be set to this.
        """
        self._segmenter.reconfigure(with_threshold(self._segmenter.config, name, value))
        self._again()

    def pause(self, paused: bool) -> None:
        """Hold the frames, or let them go on."""
        self._reader.pause(paused)

    def step(self) -> None:
        """While paused, show the next frame."""
        self._reader.step()

    def _take(self, item: TakenFrame) -> None:
        self._statistics.count('received')
        self._item = item
        self._worker.put(item)

    def _again(self) -> None:
        """Segment the frame that is shown once more, unless others are coming anyway."""
        if self._item is not None and self._reader.resting:
            self._previous = None  # what passed the gate before is not what is asked about
            self._worker.put(self._item._replace(taken=time.monotonic()))

    def _describe_classes(self) -> list[dict[str, Any]]:
        vocabulary = self._segmenter.vocabulary
        if self._described[0] != vocabulary.version:
            described = [
                describe_class(
                    item.id,
                    item.name,
                    item.subclasses,
                    item.source,
                    self._segmenter.origin(item.name),
                )
                for item in vocabulary.classes
            ]
            self._described = vocabulary.version, described
        return self._described[1]

    def _work_on(self, item: TakenFrame) -> None:
        try:
            self._segment(item)
        except Exception as error:  # whatever it is, it costs this frame alone
            self._statistics.count('failed')
            self._trouble = f'frame lost: {type(error).__name__}: {error}'.splitlines()[0]
        else:
            self._trouble = ''

    def _segment(self, item: TakenFrame) -> None:
        stamp = round(1e9 * item.frame.stamp)
        started = time.perf_counter()
        found = self._segmenter.find(item.frame.rgb, frame_before(self._previous, stamp))
        result = self._segmenter.finish(found)
        self._previous = stamp, result
        total_ms = 1000 * (time.perf_counter() - started)
        age_ms = 1000 * (time.monotonic() - item.taken)
        timings_ms = {**result.timings_ms, 'total': total_ms}
        self._statistics.add_result({**timings_ms, 'age': age_ms})
        number = 1 if self.newest is None else self.newest.number + 1
        self.newest = to_live_frame(number, item, result, candidate_maps(found), timings_ms, age_ms)
        self._on_frame(self.newest)


def to_live_frame(
    number: int,
    item: TakenFrame,
    result: Segmentation,
    maps: ClassMaps | None,
    timings_ms: dict[str, float],
    age_ms: float,
) -> LiveFrame:
    """Put a frame and its segmentation together."""
    pixels = result.labels.size
    confidence: NDArray[np.uint8] = cv2.convertScaleAbs(result.confidence, alpha=255.0)
    return LiveFrame(
        number,
        item.frame.name,
        item.frame.rgb,
        result.labels,
        confidence,
        tuple(ClassShare(c.id, c.area / pixels, c.score) for c in result.classes),
        result.version,
        maps,
        timings_ms,
        age_ms,
    )
