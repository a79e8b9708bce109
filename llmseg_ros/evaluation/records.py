"""Scores by image on disk: what an evaluation that was cut short or split goes on from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from llmseg_ros.class_rules import in_report
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.evaluate import ImageScores, RunScore
from llmseg_ros.evaluation.variants import Known, Variant
from llmseg_ros.files import replacing, writing

PATTERN = 'images*.jsonl'


class RecordsError(ValueError):
    """Scores on disk can't be used; the message is one sentence that says what to do."""


def settings_of(
    dataset: Dataset, variants: Sequence[Variant], known: Known, encoder: str
) -> dict[str, Any]:
    """Return what has to be the same for scores to be added up."""
    settings: dict[str, Any] = {
        'dataset': dataset.name,
        'names': dataset.names,
        'background': dataset.background,
        'encoder': encoder,
        'variants': [dataclasses.asdict(variant) for variant in variants],
        'subclasses': digest(known),
        **in_report(dataset.rules),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def digest(known: Known) -> str:
    """Return a hash of the subclasses, whenever and by whomever they were found."""
    names = [[(name, found.names) for name, found in part.items()] for part in known.values()]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def read_all_records(folder: Path, settings: Mapping[str, Any]) -> dict[str, ImageScores]:
    """Return the scores of all shards in a folder by image id.

    Raises:
        RecordsError: they were made with other settings.
    """
    paths = sorted(folder.glob(PATTERN))
    return {image.id: image for path in paths for image in read_records(path, settings)}


def read_records(path: Path, settings: Mapping[str, Any]) -> Iterator[ImageScores]:
    """Yield the scores in a file; a last line that is cut short is left out.

    Raises:
        RecordsError: they were made with other settings, or the file is another one's.
    """
    with path.open(encoding='utf-8') as file:
        for number, line in enumerate(file):
            if not line.endswith('\n'):
                return
            try:
                record = json.loads(line)
                image = from_record(record) if number else None
            except (ValueError, KeyError, TypeError) as error:
                raise RecordsError(f'{path} is damaged in line {number + 1}, remove it') from error
            if image:
                yield image
            elif record != settings:
                raise RecordsError(
                    f'{path} was made with other settings, classes or data: '
                    'leave out --resume, or choose another --report folder'
                )


@contextmanager
def recording(
    path: Path, settings: Mapping[str, Any], done: Iterable[ImageScores]
) -> Iterator[Callable[[ImageScores], None]]:
    """Begin a file with the settings and what is done; give a function that adds to it at once.

    Raises:
        WriteError: it can't be written.
        RecordsError: it can't be written in that function; what is in it is whole.
    """
    with writing(path):
        with replacing(path) as partial, partial.open('wb', buffering=0) as file:
            append(file, json.dumps(settings))
            for image in done:
                append(file, to_record(image))
        file = path.open('ab', buffering=0)

    def add(image: ImageScores) -> None:
        try:
            append(file, to_record(image))
        except OSError as error:
            raise RecordsError(
                f'{path} can not be written: {error.strerror}; --resume goes on from what is there'
            ) from error

    with file:
        yield add


def append(file: FileIO, line: str) -> None:
    """Append a line to a file without a buffer, whole or not at all.

    Raises:
        OSError: the disk is full.
    """
    end = file.tell()
    rest = memoryview(line.encode() + b'\n')
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(end)
        raise


def to_record(image: ImageScores) -> str:
    """Return the scores of an image as JSON."""
    runs = [
        {
            'cells': run.cells_k3.tolist(),
            'presence': run.presence_c.tolist(),
            'boundaries': run.boundaries_k3.tolist(),
            'timings_ms': dict(run.timings_ms),
        }
        for run in image.runs
    ]
    return json.dumps({'id': image.id, 'ignored': image.ignored, 'runs': runs})


def from_record(record: dict[str, Any]) -> ImageScores:
    """Return the scores that to_record wrote."""
    runs = (
        RunScore(
            np.array(run['cells'], np.int64).reshape(-1, 3),
            np.array(run['presence'], np.float64),
            np.array(run['boundaries'], np.int64).reshape(-1, 3),
            run['timings_ms'],
        )
        for run in record['runs']
    )
    return ImageScores(record['id'], tuple(runs), record['ignored'])
