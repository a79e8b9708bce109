"""`llmseg replay` of a folder of bags, here or on a Ray cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmseg_ros.cli.common import (
    INTERRUPTED,
    CommandError,
    note,
    percent,
    print_table,
    progress,
    track,
    waiting,
)
from llmseg_ros.cli.replay_summary import print_summary
from llmseg_ros.files import prepare_folder, write_json

if TYPE_CHECKING:
    from llmseg_ros.reports.bag_folder import BagResult, FolderReplay, FolderScores


def replay_folder(
    task: FolderReplay, resume: bool, ray: str, ray_workers: int | None, json: Path | None
) -> None:
    """Replay the bags of a folder; a bag that can't be used does not keep the others from it.

    Raises:
        CommandError: none of the bags can be used, or some can't, after the others are done.
        SubclassesError: the language model gave no answer.
        RecordsError: what is to be resumed was made with other settings.
        ScaleOutError: the cluster can't be used.
    """
    from llmseg_ros.bags.scores import ReplayScores
    from llmseg_ros.evaluation.variants import look_up_subclasses
    from llmseg_ros.reports.bag_folder import FolderScores, folder_report, read_result
    from llmseg_ros.reports.replay_page import folder_page
    from llmseg_ros.reports.report import write_report

    scores = FolderScores(ReplayScores(['background', *task.classes]))
    frames = look_through(task, scores.problems)
    config, known = look_up_subclasses(task.config, task.classes, progress)
    prepare_folder(task.reports)
    task = replace(task, config=config, known=known)
    with opened_replayer(task, frames, ray, ray_workers) as (encoder, replay_bags):
        for bag in frames if resume else ():
            if before := read_result(task, bag, encoder):
                scores.add(before)
        missing = [bag for bag in frames if bag not in scores.bags]
        interrupted = count_bags(replay_bags, missing, frames, scores)
    if scores.bags:
        complete = set(frames) <= {*scores.bags, *scores.problems}
        summary = folder_report(task, encoder, scores, complete)
        print_folder(summary)
        write_report(task.reports, summary, folder_page(summary, scores.total))
        if json:
            write_json(json, summary)
    if interrupted:
        note(f'interrupted with {len(scores.bags)} of {len(frames)} bags done, --resume goes on')
        raise typer.Exit(INTERRUPTED)
    if scores.problems:
        total = len({*frames, *scores.problems})
        raise CommandError(f'{len(scores.problems)} of {total} bags can not be used, see above')


def look_through(task: FolderReplay, problems: dict[str, str]) -> dict[str, int]:
    """Return how many frames each bag has; note those that can't be used among the problems.

    Raises:
        CommandError: none of them can be used.
    """
    from llmseg_ros.bags.storage import BagError
    from llmseg_ros.reports.bag_folder import count_frames, find_bags

    frames = {}
    for bag in track(find_bags(task.folder), 'looking through the bags'):
        try:
            frames[bag] = count_frames(task, bag)
        except BagError as error:
            problems[bag] = str(error)
            note(f'{bag}: {error}')
    if not frames:
        raise CommandError(f'none of the {len(problems)} bags in {task.folder} can be used')
    return frames


Replayer = tuple[str, Callable[[Sequence[str], Callable[..., None]], 'Iterator[BagResult]']]
"""The encoder's name, and what replays bags and calls a function with frames that are done."""


@contextmanager
def opened_replayer(
    task: FolderReplay, frames: Mapping[str, int], ray: str, ray_workers: int | None
) -> Iterator[Replayer]:
    """Load the model here, or on the workers of a Ray cluster.

    Raises:
        EncoderUnavailable: the encoder's packages or weights are missing.
        ScaleOutError: Ray is missing, or the cluster can't be used.
    """
    if not ray:
        with waiting('loading the model'):
            encoder, replay_one = task.load()

        def replay_here(bags: Sequence[str], advance: Callable[..., None]) -> Iterator[BagResult]:
            for bag in bags:
                yield from replay_one(bag, advance)

        yield encoder, replay_here
        return
    from llmseg_ros.evaluation.scale_out import Pool, Shard, cluster

    def replay_there(
        pool: Pool, bags: Sequence[str], advance: Callable[..., None]
    ) -> Iterator[BagResult]:
        longest_first = sorted(bags, key=lambda bag: -frames[bag])  # none is left for the end
        for result in pool.run(Shard(bag, f'bag {bag}') for bag in longest_first):
            advance(frames[result.bag])
            yield result

    most = min(len(frames), ray_workers or len(frames))
    with ExitStack() as stack:
        mark = stack.enter_context(tempfile.NamedTemporaryFile(prefix='.run-', dir=task.reports))
        marked = replace(task, mark=Path(mark.name).name)
        with waiting('starting the workers'):
            on_cpu = task.config.encoder.device == 'cpu'
            pool = stack.enter_context(cluster(ray, marked, most, on_cpu))
        yield pool.encoder, partial(replay_there, pool)


def count_bags(
    replay_bags: Callable[[Sequence[str], Callable[..., None]], Iterator[BagResult]],
    bags: Sequence[str],
    frames: Mapping[str, int],
    scores: FolderScores,
) -> bool:
    """Replay bags and count them; return whether Ctrl-C ended it early."""
    with progress(sum(frames[bag] for bag in bags), 'frames') as advance:
        try:
            for result in replay_bags(bags, advance):
                scores.add(result)
                for sentence in (*result.notes, *([result.problem] if result.problem else [])):
                    note(f'{result.bag}: {sentence}')
        except KeyboardInterrupt:
            return True
    return False


def print_folder(summary: Mapping[str, Any]) -> None:
    """Print a line per bag, and what holds for all of them."""
    rows = []
    for bag, of in summary['bags'].items():
        total = of['timing_ms']['total']
        shares = (percent(of['changed_pixels']), percent(of['miou']))
        frames = (of['frames'], of['rejected_frames'])
        rows.append((bag, *frames, total['p50'], total['p95'], *shares))
    columns = ('bag', 'frames', 'rejected', 'ms p50', 'ms p95', 'changed pixels %', 'mIoU %')
    width = len(columns) - (not summary['labelled_frames'])
    print_table(columns[:width], [row[:width] for row in rows])
    print_summary(summary)
