"""`llmseg segment` of a video or a camera."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from llmseg_ros.cli.common import (
    INTERRUPTED,
    CommandError,
    ended_by_interrupt,
    note,
    printable,
    progress,
)
from llmseg_ros.files import prepare_folder, replacing, writing

if TYPE_CHECKING:
    from llmseg_ros.frame_sources import FrameSource, TimedFrame
    from llmseg_ros.reports.video import OverlayVideo
    from llmseg_ros.segmentation import Segmentation
    from llmseg_ros.segmenter import Segmenter

WIDTH = 1920  # of overlay.mp4 at most, in pixels
COLUMNS = ('frame', 'seconds', 'name', 'id', 'class', 'share', 'score')
NANOSECONDS = 1_000_000_000


class Results:
    """What is written of a video, frame by frame.

    Attributes:
        frames: written.
        seconds: from the first to the last of them.
        areas: by class name, the sum of its shares of the frames.
    """

    def __init__(self, video: OverlayVideo, table: IO[str], labels: Path | None) -> None:
        """Write into an open video and table, and a folder of label images where one is given."""
        self.frames = 0
        self.seconds = 0.0
        self.areas: dict[str, float] = {}
        self._video = video
        self._rows: Any = csv.writer(table)
        self._rows.writerow(COLUMNS)
        self._labels = labels
        self._begin = 0.0

    def add(self, frame: TimedFrame, result: Segmentation) -> None:
        """Write a frame.

        Raises:
            VideoError: the video can't be written.
            OSError: another file can't be.
        """
        if not self.frames:
            self._begin = frame.stamp
        self.seconds = frame.stamp - self._begin
        if self._labels:
            write_labels(self._labels / f'{frame.name}.png', result)
        for item in result.classes:
            share = item.area / result.labels.size
            self.areas[item.name] = self.areas.get(item.name, 0.0) + share
            numbers = f'{share:.6f}', f'{item.score:.4f}'
            begin = frame.number, f'{self.seconds:.6f}', frame.name
            self._rows.writerow((*begin, item.id, item.name, *numbers))
        self._video.add(round(self.seconds * NANOSECONDS), frame.rgb, result.labels)
        self.frames += 1

    def in_words(self) -> str:
        """Say how much of the video the classes cover."""
        shares = sorted(self.areas.items(), key=lambda item: -item[1])
        found = [f'{name} {100 * area / self.frames:.1f} %' for name, area in shares if area]
        return ', '.join(found) or 'background only'


def segment_video(source: str, out: Path, labels: bool, load: Callable[[], Segmenter]) -> None:
    """Segment a video file, or a camera until Ctrl-C, into overlay.mp4 and frames.csv.

    Args:
        source: of the frames.
        out: folder of the results.
        labels: whether to write a label image of each frame too.
        load: loads the segmenter.

    Raises:
        SourceError: the source can't be used.
        CommandError: it ended before its end; what came is written.
        VideoError: the video can't be written.
        WriteError: another file can't be.
    """
    from llmseg_ros.frame_sources import open_source
    from llmseg_ros.reports.video import overlay_video

    refuse_overwriting(source, out)
    with open_source(source) as frames:
        prepare_folder(out / 'labels' if labels else out)
        segmenter = load()
        if frames.kind == 'camera':
            note(f'camera {source} is recorded until Ctrl-C')
        names = ['background', *(item.name for item in segmenter.vocabulary.classes)]
        with (
            writing(out),
            table(out / 'frames.csv') as rows,
            overlay_video(out / 'overlay.mp4', names, WIDTH, longest=None) as video,
        ):
            results = Results(video, rows, out / 'labels' if labels else None)
            interrupted, failure = segment_frames(frames, segmenter, results)
    for sentence in frames.notes:
        note(sentence)
    print(f'{printable(source)}: {printable(results.in_words())}')
    done = f'{results.frames} frames, {results.seconds:.1f} s, are in {out / "overlay.mp4"}'
    if failure:
        raise CommandError(f'{failure}; {done}')
    if interrupted and frames.kind != 'camera':
        end = f' of {frames.duration:.1f} s' if frames.duration else ''
        note(f'interrupted at {results.seconds:.1f} s{end}: {done}')
        raise typer.Exit(INTERRUPTED)
    print(printable(done))


def segment_frames(source: FrameSource, segmenter: Segmenter, results: Results) -> tuple[bool, str]:
    """Segment frames until they end; return whether Ctrl-C ended them, and what else did.

    Raises:
        SourceError: there was no frame.
    """
    from llmseg_ros.frame_sources import SourceError
    from llmseg_ros.segmentation import frame_before

    last: tuple[int, Segmentation] | None = None
    with ended_by_interrupt() as ended, progress(source.expected, 'frames') as advance:
        try:
            for frame in source:
                stamp = round(frame.stamp * NANOSECONDS)
                result = segmenter.segment(frame.rgb, previous=frame_before(last, stamp))
                last = stamp, result
                results.add(frame, result)
                advance()
                if ended.is_set():
                    break
        except SourceError as error:
            if not results.frames:
                raise
            return False, str(error)
    return ended.is_set(), ''


@contextmanager
def table(path: Path) -> Iterator[IO[str]]:
    """Open a CSV file that has its name only once the block is through."""
    with replacing(path) as partial, partial.open('w', encoding='utf-8', newline='') as file:
        yield file


def write_labels(path: Path, result: Segmentation) -> None:
    """Write the label image of a frame."""
    from llmseg_ros.visualize import label_image

    with replacing(path) as partial:
        label_image(result.labels).save(partial, format='PNG')


def refuse_overwriting(source: str, out: Path) -> None:
    """Raise CommandError where the source would be overwritten."""
    path = out / 'overlay.mp4'
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise CommandError(f'{printable(path)} would be overwritten, choose another --out')
