"""`llmseg replay` of one bag, in this process or by the node."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.cli.common import CommandError, note, progress, waiting

if TYPE_CHECKING:
    from llmseg_ros.bags.depth import BagDepth
    from llmseg_ros.bags.reading import Bag
    from llmseg_ros.bags.replay import Step, TrueLabels
    from llmseg_ros.bags.result_bag import ResultBag
    from llmseg_ros.bags.scores import ReplayScores
    from llmseg_ros.bags.storage import Connection
    from llmseg_ros.class_rules import Given
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.mapping.agreement import AgreementMeter, View
    from llmseg_ros.reports.pictures import ReplayRecorder
    from llmseg_ros.ros.answers import Answer
    from llmseg_ros.segmentation import Segmentation


class Interrupted(Exception):
    """Ctrl-C ended the replay early.

    Attributes:
        summary: of what was done until then.
    """

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__()
        self.summary = summary


@dataclass(frozen=True)
class Geometry:
    """Where what the frames show lies.

    Attributes:
        depth: of the frames.
        meter: of the agreement of their views.
        is_asked_for: whether what is wrong with the depth ends the replay.
    """

    depth: BagDepth
    meter: AgreementMeter
    is_asked_for: bool


@dataclass(frozen=True)
class Job:
    """What is replayed.

    Attributes:
        bag: as it was named.
        reader: of the open bag.
        camera: connections of the camera's topic.
        truth: true labels, where there are any.
        out: new bag, where one is wanted.
        recorder: of what the report shows, where one is wanted.
        geometry: depth and poses, where they are wanted and there.
    """

    bag: Path
    reader: Bag
    camera: Sequence[Connection]
    truth: TrueLabels | None
    out: ResultBag | None
    recorder: ReplayRecorder | None
    geometry: Geometry | None = None

    @property
    def others(self) -> list[Connection]:
        """The connections whose messages go into the new bag as they are."""
        if self.out is None:
            return []
        return [c for c in self.reader.connections if c not in self.camera]


def replay_offline(
    job: Job, settings: SegmenterConfig, names: Sequence[str], rules: Given
) -> dict[str, Any]:
    """Segment the frames here; return the report.

    Raises:
        SubclassesError: the language model gave no answer.
        BagError: no frame can be used, or no true labels.
        Interrupted: by Ctrl-C, after some frames.
    """
    from llmseg_ros.bags.replay import replay_frames
    from llmseg_ros.bags.scores import ReplayScores
    from llmseg_ros.evaluation.variants import load_with_known, look_up_subclasses
    from llmseg_ros.reports.report import offline_report

    settings, known = look_up_subclasses(settings, names, progress)
    with waiting('loading the model'):
        segmenter = load_with_known(settings, names, known, rules)
    scores = ReplayScores(['background', *names])
    if job.out:
        job.out.write_label_map(segmenter.vocabulary, job.reader.start_time)

    def write(out: ResultBag, step: Step[Segmentation]) -> None:
        if step.frame and step.result:
            out.write_result(step.frame, step.result, step.message.time)
            if step.points:
                out.write_points(step.frame, step.result, step.points.points, step.message.time)

    distinct = job.truth is not None
    steps = replay_frames(job.reader, job.camera, job.others, segmenter, distinct)
    begin = time.perf_counter()
    complete = count_frames(job, steps, scores, write)
    wall_s = time.perf_counter() - begin
    topic = job.camera[0].topic
    summary = offline_report(job.bag.stem, topic, segmenter, scores, wall_s, complete)
    return checked(job, summary | agreement(job))


def find_geometry(
    reader: Bag, image: str, depth: str, odometry: str, is_wanted: bool
) -> Geometry | None:
    """Return depth and poses of a bag; None where they aren't there or not wanted.

    Raises:
        BagError: they were asked for by topic, and can't be used.
    """
    from llmseg_ros.bags.depth import BagDepth, find_depth_topics
    from llmseg_ros.bags.storage import BagError
    from llmseg_ros.mapping.agreement import AgreementMeter

    is_asked_for = bool(depth or odometry)
    if not is_wanted and not is_asked_for:
        return None
    try:
        topics = find_depth_topics(reader, image, depth, odometry)
        return Geometry(BagDepth(reader, topics), AgreementMeter(), is_asked_for)
    except BagError:
        if is_asked_for:
            raise
        return None


def go_on_without(problem: str) -> None:
    note(f'{problem}; going on without depth')


def view_of(step: Step[Any]) -> View | None:
    """Return what a frame saw, None without depth or pose."""
    from llmseg_ros.mapping.agreement import View

    found = step.points
    if found is None or found.pose is None or step.result is None:
        return None
    return View(found.points, step.result.labels, found.camera, found.pose)


def agreement(job: Job) -> dict[str, Any]:
    """Return how well views agree as the report has it, nothing where no two see one place."""
    from llmseg_ros.mapping.agreement import agreement_report

    counts = job.geometry.meter.counts if job.geometry else {}
    if not any(of.pairs for of in counts.values()):
        return {}
    return {'view_agreement': agreement_report(counts)}


def checked(job: Job, summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary that is complete, with what is to be said about the bag.

    Raises:
        Interrupted: it is not.
    """
    summary = {**summary, 'notes': job.reader.notes}
    if not summary['complete']:
        raise Interrupted(summary)
    return summary


def replay_live(
    job: Job,
    config: Path,
    settings: SegmenterConfig,
    names: Sequence[str],
    rules: Given,
    rate: float | None,
) -> dict[str, Any]:
    """Play the frames into the node, at a rate or each after the answer before it; report.

    Raises:
        SubclassesError: the language model gave no answer.
        LiveReplayError: the node failed.
        CommandError: it answered nothing.
        BagError: no frame can be used, or no true labels.
        Interrupted: by Ctrl-C, after some frames.
    """
    from llmseg_ros.bags.scores import ReplayScores
    from llmseg_ros.bags.topics import LABEL_MAP_TOPIC
    from llmseg_ros.class_rules import in_report
    from llmseg_ros.evaluation.variants import look_up_subclasses
    from llmseg_ros.reports.report import replay_report
    from llmseg_ros.ros import live_replay
    from llmseg_ros.ros.answers import answered_frames, opened_answers
    from llmseg_ros.ros.played import live_numbers

    settings, _ = look_up_subclasses(settings, names, progress)
    # What the language model has answered is in the store: no answer comes amid the frames.
    asked = replace(settings, subclasses=replace(settings.subclasses, llm='off'))
    scores = ReplayScores(['background', *names])

    def write(out: ResultBag, step: Step[Answer]) -> None:
        if step.result:
            for topic, raw in step.result.messages.items():
                out.write_raw(topic, raw, step.message.time)

    with tempfile.TemporaryDirectory(prefix='llmseg_replay_') as name:
        folder = Path(name)
        live_replay.write_parameters(
            folder / live_replay.PARAMETERS, config, asked, names, live=rate is not None
        )
        if rules:
            live_replay.write_class_list(folder, names, rules)
        played_all = play(job, folder, rate)
        with opened_answers(folder) as answers:
            if job.out and (label_map := answers.label_map()):
                job.out.write_raw(LABEL_MAP_TOPIC, label_map, job.reader.start_time)
            rule = settings.images.sixteen_bit
            steps = answered_frames(job.reader, job.camera, job.others, answers, rule)
            complete = count_frames(job, steps, scores, write) and played_all
            live = live_numbers(answers.played, answers.arrivals, len(answers.rejected))
    encoder = answers.played.encoder
    summary = replay_report(job.bag.stem, job.camera[0].topic, encoder, settings, scores)
    mode = 'lockstep' if rate is None else 'realtime'
    live_summary = {**in_report(rules), 'mode': mode, 'complete': complete, 'live': live}
    return checked(job, summary | agreement(job) | live_summary)


def play(job: Job, folder: Path, rate: float | None) -> bool:
    """Play the camera into the node, showing how far it is; False where Ctrl-C ended it.

    Raises:
        LiveReplayError: the node or the player failed.
    """
    from llmseg_ros.bags.reading import COMPRESSED_TYPE
    from llmseg_ros.ros import live_replay

    total, done = sum(connection.msgcount for connection in job.camera), 0
    with progress(total, 'frames') as advance:

        def say(line: str) -> None:
            nonlocal done
            while line.isdecimal() and done < int(line):
                advance()
                done += 1

        camera = job.camera[0]
        return live_replay.play(
            job.bag,
            camera.topic,
            folder,
            say,
            compressed=camera.msgtype == COMPRESSED_TYPE,
            masks=job.out is not None,
            distinct=job.truth is not None,
            rate=rate,
        )


def count_frames(
    job: Job,
    steps: Iterable[Step[Any]],
    scores: ReplayScores,
    write_result: Callable[[ResultBag, Step[Any]], None],
) -> bool:
    """Count the frames into `scores` and write the new bag; return whether all could be.

    Raises:
        BagError: no frame can be used, or no true labels.
        CommandError: no frame was answered.
        KeyboardInterrupt: before the first was done.
    """
    from llmseg_ros.bags.replay import count_steps

    def write(step: Step[Any]) -> None:
        if job.geometry and step.frame:
            job.geometry.meter.add(view_of(step))
        if job.out:
            job.out.write_message(step.message)
            write_result(job.out, step)

    if job.geometry:
        from llmseg_ros.bags.depth import with_points

        on_problem = None if job.geometry.is_asked_for else go_on_without
        steps = with_points(steps, job.geometry.depth, on_problem)
    total = sum(connection.msgcount for connection in job.camera)
    show = job.recorder.add if job.recorder else None
    with progress(total, 'frames') as advance:
        try:
            for _ in count_steps(steps, job.truth, scores, write, show):
                advance()
        except KeyboardInterrupt:
            if not scores.frames:
                raise
            return False
    if not scores.frames:
        raise CommandError('no frame was answered')
    return True
