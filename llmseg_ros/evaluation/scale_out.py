"""Scoring on a Ray cluster: a process with the model for every GPU or share of the CPUs."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from llmseg_ros.evaluation.datasets import Dataset, DatasetError, Sample
from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores, Scorer, score_images
from llmseg_ros.evaluation.report import versions
from llmseg_ros.evaluation.variants import Known, Variant

LOCAL = 'local'
SHARD_IMAGES = 8  # what a lost worker loses at most
MAX_TRIES = 3
CONNECT_SECONDS = 5.0
STORE_BYTES = 200_000_000  # of a local cluster: what travels is small

logger = logging.getLogger(__name__)


class ScaleOutError(RuntimeError):
    """The cluster can't be used; the message is one sentence that says what to do."""


class Job(NamedTuple):
    """What every worker is told.

    Attributes:
        dataset: without samples.
        variants: settings to score.
        known: subclasses, looked up once for all workers.
        first: an image of the dataset, to see whether it can be seen from there.
        threads: of torch, and Ray's share of the CPUs.
        workers: threads that read ahead.
    """

    dataset: Dataset
    variants: tuple[Variant, ...]
    known: Known
    first: Sample
    threads: int
    workers: int


class Shard(NamedTuple):
    """Images that one worker scores, and how many were lost over them."""

    samples: Sequence[Sample]
    lost: int = 0


class Loaded(NamedTuple):
    """What a worker says of itself."""

    node: str
    encoder: str
    versions: dict[str, str]


class Worker:
    """A process of the cluster, with the model loaded."""

    def load(self, job: Job) -> Loaded:
        """Load the model.

        Raises:
            DatasetError: the dataset can't be seen from this node.
            EncoderUnavailable: the encoder's packages or weights aren't on this node.
        """
        import torch

        torch.set_num_threads(job.threads)
        node = socket.gethostname()
        for path in (job.first.image, job.first.labels):
            if not path.is_file():
                raise DatasetError(
                    f'{path} is not on node {node}: the dataset has to lie under the same path '
                    'on every node'
                )
        evaluator = Evaluator(job.dataset, job.variants, job.known)
        self._score = partial(score_images, evaluator, workers=job.workers)
        return Loaded(node, evaluator.encoder.name, versions())

    def score(self, samples: Sequence[Sample]) -> list[ImageScores]:
        """Score a shard.

        Raises:
            DatasetError: an image or its labels can't be used.
        """
        return list(self._score(samples))


class Pool:
    """The workers of a job.

    A worker that is lost, with its node or alone, is replaced, and its shard scored again.
    """

    def __init__(self, ray: Any, job: Job, count: int, gpus: int) -> None:
        """Begin to load the model on `count` workers; return when the first has.

        Raises:
            ScaleOutError: no worker stays, or one has other packages.
        """
        self._ray = ray
        self._job = ray.put(job)
        options = {'num_cpus': job.threads, 'num_gpus': gpus}
        self._actor = ray.remote(Worker).options(**options)
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Shard | None]] = {}  # by what is waited for; None: loads
        self._lost_loading = 0
        self.encoder = ''
        for _ in range(count):
            self._start()
        while not self._idle:
            self._wait()

    def score(self, samples: Sequence[Sample]) -> Iterator[ImageScores]:
        """Yield the scores of images as they come.

        Raises:
            DatasetError: an image or its labels can't be used, or the dataset isn't on a node.
            ScaleOutError: images cost one worker after the other.
        """
        starts = range(0, len(samples), SHARD_IMAGES)
        shards = deque(Shard(samples[start : start + SHARD_IMAGES]) for start in starts)
        while shards or any(shard for _, shard in self._busy.values()):
            while shards and self._idle:
                self._give(shards.popleft())
            scores, lost = self._wait()
            yield from scores
            if lost is not None:
                shards.appendleft(lost)

    def _start(self) -> None:
        actor = self._actor.remote()
        self._busy[actor.load.remote(self._job)] = actor, None

    def _give(self, shard: Shard) -> None:
        actor = self._idle.pop()
        self._busy[actor.score.remote(shard.samples)] = actor, shard

    def _wait(self) -> tuple[list[ImageScores], Shard | None]:
        """Wait for one worker; return what it has scored, and the shard where it was lost."""
        (done,), _ = self._ray.wait(list(self._busy), num_returns=1)
        actor, shard = self._busy.pop(done)
        try:
            result = self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError as error:
            self._start()
            return [], self._count_loss(shard, error)
        self._idle.append(actor)
        if isinstance(result, Loaded):
            self._check(result)
            return [], None
        return result, None

    def _check(self, loaded: Loaded) -> None:
        here = versions()
        if loaded.versions != here:
            name = sorted(k for k, _ in loaded.versions.items() ^ here.items())[0]
            raise ScaleOutError(
                f'{name} is {loaded.versions.get(name, "missing")} on node {loaded.node} and '
                f'{here.get(name, "missing")} here: install the same everywhere'
            )
        self.encoder = loaded.encoder

    def _count_loss(self, shard: Shard | None, error: Exception) -> Shard | None:
        reason = str(error).strip().splitlines()[-1]
        if shard is None:
            self._lost_loading += 1
            if self._lost_loading == MAX_TRIES:
                raise ScaleOutError(
                    f'{MAX_TRIES} workers ended while they loaded the model, look whether '
                    f'llmseg_ros is installed and memory free on every node: {reason}'
                ) from None
            return None
        if shard.lost + 1 == MAX_TRIES:
            raise ScaleOutError(
                f'{MAX_TRIES} workers ended over the images from {shard.samples[0].id} to '
                f'{shard.samples[-1].id}, look whether memory ran out'
            ) from None
        logger.warning(
            'a worker was lost, the images from %s on are scored again: %s',
            shard.samples[0].id,
            reason,
        )
        return shard._replace(lost=shard.lost + 1)


@contextmanager
def cluster_scorer(
    dataset: Dataset,
    variants: Sequence[Variant],
    known: Known,
    workers: int,
    address: str,
    most: int | None = None,
) -> Iterator[Scorer]:
    """Load the model on the workers of a Ray cluster, one per GPU, else one per CPU.

    A worker computes on one CPU, or as many as OMP_NUM_THREADS says. Sums come out the same, to
    the last bit, as those of one process with as many threads on such a machine.

    Args:
        dataset: under the same path on every node.
        variants: settings to score.
        known: subclasses, as find_subclasses returns them.
        workers: threads that read ahead, of each worker.
        address: HOST:PORT of a cluster that runs, or 'local' to start one here.
        most: workers, at most.

    Raises:
        ScaleOutError: Ray is not installed, or the cluster can't be used.
        DatasetError: the dataset isn't on a node.
        EncoderUnavailable: the encoder's packages or weights aren't on a node.
    """
    threads = int(os.environ.get('OMP_NUM_THREADS') or 1)
    job = Job(
        replace(dataset, samples=()), tuple(variants), known, dataset.samples[0], threads, workers
    )
    with connected(address) as ray:
        resources = ray.cluster_resources()
        on_gpu = variants[0].config.encoder.device != 'cpu' and resources.get('GPU', 0) >= 1
        count = int(resources['GPU'] if on_gpu else resources.get('CPU', 0) // threads)
        if not count:
            raise ScaleOutError(f'no node of the cluster {address} has {threads} CPUs')
        shards = -(-len(dataset.samples) // SHARD_IMAGES)
        pool = Pool(ray, job, min(count, shards, most or count), int(on_gpu))
        yield Scorer(pool.encoder, pool.score)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster, or start one here that ends with the block; give the module.

    Raises:
        ScaleOutError: Ray is not installed, or there is no such cluster.
    """
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    try:
        import ray
    except ImportError:
        raise ScaleOutError(
            "Ray is not installed: pip install 'llmseg_ros[ray]', or requirements/ray.txt"
        ) from None
    if address != LOCAL:
        check_reachable(address)
    with tempfile.TemporaryDirectory(prefix='llmseg-ray-', dir='/tmp') as folder:  # a short path
        options: dict[str, Any] = {'log_to_driver': False, 'logging_level': 'ERROR'}
        if address == LOCAL:
            options['include_dashboard'] = False
            options['object_store_memory'] = STORE_BYTES
            options['_temp_dir'] = folder
        try:
            try:
                ray.init(address=address, **options)
            except Exception as error:
                reason = str(error).strip().splitlines()[0]
                raise ScaleOutError(f'Ray cluster {address}: {reason}') from error
            with redirect_stdout(sys.stderr):  # what Ray says of a lost worker is no result
                yield ray
        finally:
            ray.shutdown()


def check_reachable(address: str) -> None:
    """Refuse what is no HOST:PORT or where nobody listens: Ray would try for minutes.

    Raises:
        ScaleOutError: it is one of these.
    """
    host, _, port = address.rpartition(':')
    if not host or '/' in host or not port.isdecimal():
        raise ScaleOutError(f'--ray takes local or the HOST:PORT of a cluster, not {address!a}')
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ScaleOutError(
            f'no Ray cluster answers at {address}: start one there with '
            f'`ray start --head --port {port}`'
        ) from error
