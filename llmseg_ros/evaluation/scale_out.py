"""Work on a Ray cluster: a process with the model for every GPU or share of the CPUs."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from llmseg_ros.evaluation.datasets import Dataset, DatasetError, Sample
from llmseg_ros.evaluation.evaluate import Evaluator, ImageScores, Scorer, score_images
from llmseg_ros.evaluation.variants import Known, Variant
from llmseg_ros.evaluation.versions import versions

LOCAL = 'local'
SHARD_IMAGES = 8  # what a lost worker loses at most
MAX_TRIES = 3
CONNECT_SECONDS = 5.0
STORE_BYTES = 200_000_000  # of a local cluster: what travels is small

logger = logging.getLogger(__name__)


class ScaleOutError(RuntimeError):
    """The cluster can't be used; the message is one sentence that says what to do."""


class Job(Protocol):
    """What every worker is told."""

    def load(self) -> tuple[str, Callable[[Any], list[Any]]]:
        """Load the model on a worker; return the encoder's name and what does a shard."""


@dataclass(frozen=True)
class ImagesJob:
    """Score the images of a dataset.

    Attributes:
        dataset: without samples.
        variants: settings to score.
        known: subclasses, looked up once for all workers.
        first: an image of the dataset, to see whether it can be seen from there.
        workers: threads that read ahead.
    """

    dataset: Dataset
    variants: tuple[Variant, ...]
    known: Known
    first: Sample
    workers: int

    def load(self) -> tuple[str, Callable[[Sequence[Sample]], list[ImageScores]]]:
        """Load the model.

        Raises:
            DatasetError: the dataset can't be seen from this node.
        """
        for path in (self.first.image, self.first.labels):
            if not path.is_file():
                raise DatasetError(
                    f'{path} is not on node {socket.gethostname()}: the dataset has to lie under '
                    'the same path on every node'
                )
        evaluator = Evaluator(self.dataset, self.variants, self.known)

        def score(samples: Sequence[Sample]) -> list[ImageScores]:
            return list(score_images(evaluator, samples, self.workers))

        return evaluator.encoder.name, score


class Shard(NamedTuple):
    """What one worker does at a time.

    Attributes:
        work: for the function that Job.load returns.
        name: what it is called where it is lost.
        lost: how many workers were lost over it.
    """

    work: Any
    name: str
    lost: int = 0


class Loaded(NamedTuple):
    """What a worker says of itself."""

    node: str
    encoder: str
    versions: dict[str, str]


class Worker:
    """A process of the cluster, with the model loaded."""

    def load(self, job: Job, threads: int) -> Loaded:
        """Load the model, to compute with so many threads; raise what the job raises."""
        import torch

        torch.set_num_threads(threads)
        encoder, self._work = job.load()
        return Loaded(socket.gethostname(), encoder, versions())

    def work(self, work: Any) -> list[Any]:
        """Do a shard's work; raise what the job raises."""
        return self._work(work)


class Pool:
    """The workers of a job.

    A worker that is lost, with its node or alone, is replaced, and its shard scored again.
    """

    def __init__(self, ray: Any, job: Job, count: int, threads: int, gpus: int) -> None:
        """Begin to load the model on `count` workers; return when the first has.

        Args:
            ray: the module, connected.
            job: for the workers.
            count: of the workers.
            threads: of each, and its share of the CPUs.
            gpus: of each.

        Raises:
            ScaleOutError: no worker stays, or one has other packages.
        """
        self._ray = ray
        self._job = ray.put(job)
        self._threads = threads
        options = {'num_cpus': threads, 'num_gpus': gpus}
        self._actor = ray.remote(Worker).options(**options)
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Shard | None]] = {}  # by what is waited for; None: loads
        self._lost_loading = 0
        self.encoder = ''
        for _ in range(count):
            self._start()
        while not self._idle:
            self._wait()

    def run(self, shards: Iterable[Shard]) -> Iterator[Any]:
        """Yield the results of shards as they come.

        Raises:
            ScaleOutError: a shard costs one worker after the other.
            Exception: what the job raises.
        """
        waiting = deque(shards)
        while waiting or any(shard for _, shard in self._busy.values()):
            while waiting and self._idle:
                self._give(waiting.popleft())
            results, lost = self._wait()
            yield from results
            if lost is not None:
                waiting.appendleft(lost)

    def _start(self) -> None:
        actor = self._actor.remote()
        self._busy[actor.load.remote(self._job, self._threads)] = actor, None

    def _give(self, shard: Shard) -> None:
        actor = self._idle.pop()
        self._busy[actor.work.remote(shard.work)] = actor, shard

    def _wait(self) -> tuple[list[Any], Shard | None]:
        """Wait for one worker; return what it has done, and the shard where it was lost."""
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
                f'{MAX_TRIES} workers ended over {shard.name}, look whether memory ran out'
            ) from None
        logger.warning('a worker was lost, it starts again with %s: %s', shard.name, reason)
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
    job = ImagesJob(
        replace(dataset, samples=()), tuple(variants), known, dataset.samples[0], workers
    )

    def shards_of(samples: Sequence[Sample]) -> list[Shard]:
        parts = [samples[i : i + SHARD_IMAGES] for i in range(0, len(samples), SHARD_IMAGES)]
        return [Shard(part, f'the images from {part[0].id} to {part[-1].id}') for part in parts]

    useful = len(shards_of(dataset.samples))
    on_cpu = variants[0].config.encoder.device == 'cpu'
    with cluster(address, job, min(useful, most or useful), on_cpu) as pool:
        yield Scorer(pool.encoder, lambda samples: pool.run(shards_of(samples)))


@contextmanager
def cluster(address: str, job: Job, most: int, on_cpu: bool) -> Iterator[Pool]:
    """Load the model on the workers of a Ray cluster, one per GPU, else one per CPU.

    Args:
        address: HOST:PORT of a cluster that runs, or 'local' to start one here.
        job: for the workers.
        most: workers, at most.
        on_cpu: leave the GPUs alone.

    Raises:
        ScaleOutError: Ray is not installed, or the cluster can't be used.
        Exception: what the job raises.
    """
    threads = int(os.environ.get('OMP_NUM_THREADS') or 1)
    with connected(address) as ray:
        resources = ray.cluster_resources()
        on_gpu = not on_cpu and resources.get('GPU', 0) >= 1
        count = int(resources['GPU'] if on_gpu else resources.get('CPU', 0) // threads)
        if not count:
            raise ScaleOutError(f'no node of the cluster {address} has {threads} CPUs')
        yield Pool(ray, job, min(count, most), threads, int(on_gpu))


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
