"""Text embeddings kept on disk, so that a restart encodes no text."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.files import cache_folder

if TYPE_CHECKING:
    import torch

BATCH = 32
"""Names encoded, and stored, at a time."""

logger = logging.getLogger(__name__)


class TextCache:
    """Embeddings of names by one model through one set of templates.

    They lie in one SQLite file for all models, which several processes may use at once. A cache
    that can't be read or written costs time, never the answer.
    """

    def __init__(self, model: str, templates: Sequence[str], path: Path | None = None) -> None:
        """Open the cache of a model, named with its tag or the checksum of its weights."""
        self._path = path or cache_folder() / 'text.sqlite'
        self._prefix = json.dumps([model, list(templates)])
        self._usable = True

    def encode(
        self, names: Sequence[str], encode: Callable[[Sequence[str]], torch.Tensor]
    ) -> torch.Tensor:
        """Return (n, d) float32 embeddings on the CPU, calling encode for unknown names only."""
        import torch

        known = self._read(set(names))
        unknown = [name for name in dict.fromkeys(names) if name not in known]
        for start in range(0, len(unknown), BATCH):
            batch = unknown[start : start + BATCH]
            vectors_nd = encode(batch).float().cpu().numpy()
            fresh = dict(zip(batch, vectors_nd, strict=True))
            self._write(fresh)
            known.update(fresh)
        return torch.from_numpy(np.stack([known[name] for name in names]))

    def _key(self, name: str) -> bytes:
        return hashlib.sha256(json.dumps([self._prefix, name]).encode()).digest()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=5)
        connection.execute('CREATE TABLE IF NOT EXISTS text (key BLOB PRIMARY KEY, vector BLOB)')
        return connection

    def _read(self, names: set[str]) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        if not self._usable:
            return found
        try:
            with closing(self._connect()) as connection:
                for name in names:
                    row = connection.execute(
                        'SELECT vector FROM text WHERE key = ?', (self._key(name),)
                    ).fetchone()
                    if row:
                        found[name] = np.frombuffer(row[0], dtype='<f4')
            if len({len(vector) for vector in found.values()}) > 1:
                raise ValueError('embeddings of one model differ in width')
        except (sqlite3.Error, OSError, ValueError) as error:
            self._give_up(error)
            return {}
        return found

    def _write(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        if not self._usable:
            return
        rows = [(self._key(name), v.astype('<f4').tobytes()) for name, v in vectors.items()]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany('INSERT OR REPLACE INTO text VALUES (?, ?)', rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Say once that the cache is of no use, and leave it alone from then on."""
        self._usable = False
        logger.warning('text embeddings are not cached, %s: %s', self._path, error)
