"""Images scored here or on a cluster, with progress, into memory or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.cli.common import progress, waiting

if TYPE_CHECKING:
    from llmseg_ros.evaluation.datasets import Dataset, Sample
    from llmseg_ros.evaluation.evaluate import ImageScores, Scorer
    from llmseg_ros.evaluation.variants import Known, Variant


@contextmanager
def opened_scorer(
    dataset: Dataset,
    variants: Sequence[Variant],
    known: Known,
    workers: int,
    ray: str,
    ray_workers: int | None,
) -> Iterator[Scorer]:
    """Load the model here, or on the workers of a Ray cluster.

    Raises:
        EncoderUnavailable: the encoder's packages or weights are missing.
        ScaleOutError: Ray is missing, or the cluster can't be used.
    """
    if ray:
        from llmseg_ros.evaluation.scale_out import cluster_scorer

        with ExitStack() as stack:
            with waiting('starting the workers'):
                cluster = cluster_scorer(dataset, variants, known, workers, ray, ray_workers)
                scorer = stack.enter_context(cluster)
            yield scorer
        return
    with waiting('loading the model'):
        from llmseg_ros.evaluation.evaluate import Evaluator, Scorer, score_images

        evaluator = Evaluator(dataset, variants, known)
    score = partial(score_images, evaluator, workers=workers)
    yield Scorer(evaluator.encoder.name, score, evaluator.encoder)


def score_into(
    scorer: Scorer, samples: Sequence[Sample], path: Path, settings: Mapping[str, Any], resume: bool
) -> tuple[dict[str, ImageScores], bool]:
    """Score images into a file; return all scores of its folder when resuming, else these.

    Raises:
        RecordsError: what is there was made with other settings, or the disk is full.
    """
    from llmseg_ros.evaluation.records import read_all_records, read_records, recording

    before = read_all_records(path.parent, settings) if resume else {}
    own = read_records(path, settings) if resume and path.exists() else ()
    missing = [sample for sample in samples if sample.id not in before]
    with recording(path, settings, own) as add:
        new, interrupted = score_all(scorer, missing, add)
    return {**before, **new}, interrupted


def score_all(
    scorer: Scorer, samples: Sequence[Sample], keep: Callable[[ImageScores], None]
) -> tuple[dict[str, ImageScores], bool]:
    """Score images; return what is done by id, and whether Ctrl-C ended it early."""
    scores: dict[str, ImageScores] = {}
    with progress(len(samples), 'images') as advance:
        try:
            for image in scorer.score(samples):
                keep(image)
                scores[image.id] = image
                advance()
        except KeyboardInterrupt:
            return scores, True
    return scores, False
