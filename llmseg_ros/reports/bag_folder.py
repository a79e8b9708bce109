"""Folders of bags: a report on each bag, and the sums of all of them."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmseg_ros.bags.files import METADATA, is_bag_file, is_one_recording
from llmseg_ros.bags.reading import find_image_connections, opened_bag
from llmseg_ros.bags.replay import TrueLabels, count_steps, replay_frames
from llmseg_ros.bags.scores import ReplayScores, scores_from_record
from llmseg_ros.bags.storage import BagError
from llmseg_ros.class_rules import Given, in_report
from llmseg_ros.config import SegmenterConfig
from llmseg_ros.evaluation.records import RecordsError, digest
from llmseg_ros.evaluation.variants import Known, load_with_known
from llmseg_ros.files import prepare_folder, write_json
from llmseg_ros.reports.pictures import replay_recorder
from llmseg_ros.reports.replay_page import replay_page
from llmseg_ros.reports.report import frames_report, offline_report, replay_report, write_report

if TYPE_CHECKING:
    from llmseg_ros.segmenter import Segmenter

SCORES = 'scores.json'  # beside the report on a bag: what --resume goes on from


class BagResult(NamedTuple):
    """What became of a bag.

    Attributes:
        bag: its path below the folder.
        topic: of the camera.
        scores: of its frames, None where it can't be used.
        problem: why, in a sentence.
        notes: a sentence each on what of it could not be read.
    """

    bag: str
    topic: str
    scores: ReplayScores | None
    problem: str = ''
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderReplay:
    """What is done with every bag of a folder, by whichever process.

    Attributes:
        folder: of the bags.
        reports: folder of the reports, each in a folder named as its bag.
        config: settings.
        classes: names.
        known: their subclasses.
        rules: of single classes.
        image: topic of the camera, '' for the only one.
        labels: topic of true labels, '' without.
        video: whether to write videos.
        mark: name of a file in `reports`, to see whether a worker has the same one.
    """

    folder: Path
    reports: Path
    config: SegmenterConfig
    classes: tuple[str, ...]
    known: Known
    rules: Given = ()
    image: str = ''
    labels: str = ''
    video: bool = True
    mark: str = ''

    def load(self) -> tuple[str, Callable[..., list[BagResult]]]:
        """Load the model; return the encoder's name and what replays a bag, as replay_one.

        Raises:
            BagError: bags or reports are not on this node.
            EncoderUnavailable: the encoder's packages or weights aren't here.
        """
        for path in (self.folder, self.reports / self.mark):
            if not path.exists():
                raise BagError(
                    f'{path} is not on node {socket.gethostname()}: bags and reports have to lie '
                    'under the same paths on every node'
                )
        segmenter = load_with_known(self.config, self.classes, self.known, self.rules)
        return segmenter.encoder.name, lambda *bag: [replay_one(self, segmenter, *bag)]

    def settings(self, bag: str, encoder: str) -> dict[str, Any]:
        """Return what has to be the same for the scores of a bag to be used again."""
        settings = {
            'bag': bag,
            'bytes': size_of(self.folder / bag),
            'encoder': encoder,
            'config': dataclasses.asdict(self.config),
            'classes': self.classes,
            'subclasses': digest(self.known),
            'image': self.image,
            'labels': self.labels,
            **in_report(self.rules),
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain


def find_bags(folder: Path) -> list[str]:
    """Return the paths of the bags below a folder, sorted: rosbag2 folders and single files."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        if is_bag_folder(Path(parent)):
            folders.clear()
            found.append(parent)
            continue
        folders[:] = [name for name in folders if not name.startswith('.')]
        found += (os.path.join(parent, name) for name in names if is_bag_file(name))
    return sorted(Path(path).relative_to(folder).as_posix() for path in found)


def is_bag_folder(path: Path) -> bool:
    """Tell whether a folder is one bag, by what the recorder has left in it."""
    return (path / METADATA).exists() or is_one_recording(path)


def is_folder_of_bags(path: Path) -> bool:
    """Tell a folder of bags from a bag, which may be a folder itself."""
    if not path.is_dir() or is_bag_folder(path):
        return False
    bags = find_bags(path)
    return len(bags) > 1 or any('/' in bag for bag in bags)


def size_of(path: Path) -> int:
    """Return the bytes of a bag."""
    files = path.iterdir() if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def count_frames(task: FolderReplay, bag: str) -> int:
    """Return how many camera frames a bag says it has.

    Raises:
        BagError: it can't be used.
    """
    with opened_bag(task.folder / bag) as reader:
        camera = find_image_connections(reader, task.image, other_than=task.labels)
        return sum(connection.msgcount for connection in camera)


def replay_one(
    task: FolderReplay, segmenter: Segmenter, bag: str, on_frame: Callable[[], None] = lambda: None
) -> BagResult:
    """Segment the frames of a bag and write its report; the last file written are its scores.

    Raises:
        WriteError: the report can't be written.
        VideoError: the video can't be written.
    """
    folder = task.reports / bag
    scores = ReplayScores(['background', *task.classes])
    begin = time.perf_counter()
    try:
        with ExitStack() as stack:
            reader = stack.enter_context(opened_bag(task.folder / bag))
            camera = find_image_connections(reader, task.image, other_than=task.labels)
            truth = TrueLabels(reader, task.labels) if task.labels else None
            prepare_folder(folder)
            total = sum(connection.msgcount for connection in camera)
            recording = replay_recorder(folder, task.classes, total, task.video)
            recorder = stack.enter_context(recording)
            distinct = truth is not None
            steps = replay_frames(reader, camera, (), segmenter, distinct)
            for _ in count_steps(steps, truth, scores, show=recorder.add):
                on_frame()
            notes = reader.notes
    except BagError as error:
        return BagResult(bag, '', None, str(error))
    topic, wall_s = camera[0].topic, time.perf_counter() - begin
    summary = {**offline_report(bag, topic, segmenter, scores, wall_s), 'notes': notes}
    write_report(folder, summary, replay_page(summary, recorder))
    record = {
        'settings': task.settings(bag, segmenter.encoder.name),
        'topic': topic,
        'notes': notes,
        'scores': scores.to_record(),
    }
    write_json(folder / SCORES, record, indent=None)
    return BagResult(bag, topic, scores, notes=tuple(notes))


def read_result(task: FolderReplay, bag: str, encoder: str) -> BagResult | None:
    """Return what an earlier run has made of a bag, None where it has not.

    Raises:
        RecordsError: it was made with other settings, or is damaged.
    """
    path = task.reports / bag / SCORES
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        settings, topic = record['settings'], str(record['topic'])
        notes = tuple(map(str, record['notes']))
        scores = scores_from_record(['background', *task.classes], record['scores'])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordsError(f'{path} is damaged, remove it') from error
    if settings != task.settings(bag, encoder):
        raise RecordsError(
            f'{path} was made with other settings, classes or data: '
            'leave out --resume, or choose another --report folder'
        )
    return BagResult(bag, topic, scores, notes=notes)


@dataclass
class FolderScores:
    """What is counted over the bags of a folder, in whatever order they come.

    Attributes:
        total: of all frames.
        bags: what is reported of each bag, by its path.
        problems: of bags that can't be used, by their path.
    """

    total: ReplayScores
    bags: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, result: BagResult) -> None:
        """Count a bag."""
        if result.scores is None:
            self.problems[result.bag] = result.problem
            return
        self.total.merge(result.scores)
        self.bags[result.bag] = {
            'image_topic': result.topic,
            'notes': list(result.notes),
            **frames_report(result.scores),
        }


def folder_report(
    task: FolderReplay, encoder: str, scores: FolderScores, complete: bool
) -> dict[str, Any]:
    """Sum up a folder of bags, as a bag is, with every bag under `bags`."""
    topics = sorted({bag['image_topic'] for bag in scores.bags.values()})
    name = task.folder.resolve().name
    summary = replay_report(name, ', '.join(topics), encoder, task.config, scores.total)
    summary.pop('rejections')  # each bag has its own
    return {
        **summary,
        **in_report(task.rules),
        'mode': 'offline',
        'complete': complete,
        'bags': by_bag(scores.bags),
        'problems': by_bag(scores.problems),
    }


def by_bag(values: Mapping[str, Any]) -> dict[str, Any]:
    return {bag: values[bag] for bag in sorted(values)}
