"""Bag files of SQLite, also with a write-ahead log beside them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from llmseg_ros.bags.storage import BagError, Connection, Stored, ros_type

MAGIC = b'SQLite format 3\0'


class SqliteFile:
    """An open bag file of SQLite, of any schema that rosbag2 has had."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            BagError: it is damaged, or no bag.
        """
        self._path = path
        self.notes: list[str] = []
        self._database = open_database(path)
        try:
            counts, self.start_time, self.end_time = self._count()
            self.connections = [self._connection(row, counts) for row in self._topics()]
        except sqlite3.Error as error:
            self.close()
            raise self._explained(error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(
        self, connections: Collection[int], start: int | None = None, stop: int | None = None
    ) -> Iterator[Stored]:
        """Yield the messages of some topics by time, from `start` until before `stop`.

        Raises:
            BagError: the file is cut off or damaged.
        """
        marks = ','.join('?' for _ in connections)
        query = f'SELECT id FROM messages WHERE topic_id IN ({marks})'
        values = list(connections)
        for condition, value in (('timestamp >= ?', start), ('timestamp < ?', stop)):
            if value is not None:
                query += f' AND {condition}'
                values.append(value)
        try:
            # Ids are sorted, not messages: where no index is, sorting these takes their size.
            for (number,) in self._database.execute(f'{query} ORDER BY timestamp, id', values):
                one = 'SELECT timestamp, topic_id, data FROM messages WHERE id = ?'
                yield Stored(*self._database.execute(one, (number,)).fetchone())
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> BagError:
        if 'no such' in str(error):
            return BagError(f'{self._path} is no bag: {error}')
        name = self._path.name
        return BagError(
            f'{self._path} is cut off or damaged ({error}): try '
            f'`sqlite3 {name} .recover | sqlite3 new.db3`'
        )

    def _count(self) -> tuple[dict[int, int], int, int]:
        counts, times = {}, []
        query = 'SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY 1'
        for topic, count, first, last in self._database.execute(query):
            counts[topic] = count
            times += [first, last]
        return counts, min(times, default=0), max(times, default=0)

    def _topics(self) -> list[sqlite3.Row]:
        return self._database.execute('SELECT * FROM topics ORDER BY id').fetchall()

    def _connection(self, row: sqlite3.Row, counts: dict[int, int]) -> Connection:
        has: dict[str, Any] = dict(row)
        definition = self._definition(has['type'])
        metadata = {
            'offered_qos_profiles': has.get('offered_qos_profiles') or '',
            'topic_type_hash': has.get('type_description_hash') or '',
        }
        return Connection(
            has['id'],
            has['name'],
            ros_type(has['type']),
            has['serialization_format'],
            counts.get(has['id'], 0),
            *definition,
            {key: value for key, value in metadata.items() if value},
        )

    def _definition(self, kind: str) -> tuple[bytes, str]:
        """Return the definition of a type and its encoding; bags before Iron have none."""
        query = "SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'"
        if not self._database.execute(query).fetchone():
            return b'', ''
        query = 'SELECT * FROM message_definitions WHERE topic_type = ?'
        row = self._database.execute(query, (kind,)).fetchone()
        if row is None:
            return b'', ''
        return str(row['encoded_message_definition'] or '').encode(), row['encoding'] or ''


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database to read; nothing is written, not even beside it."""
    log = path.with_name(f'{path.name}-wal')
    alone = not log.exists() or not log.stat().st_size
    # The log is read without locks: their files would have to be written beside the bag.
    how = 'immutable=1' if alone else 'mode=ro&vfs=unix-none'
    database = sqlite3.connect(
        f'{path.absolute().as_uri()}?{how}', uri=True, check_same_thread=False
    )
    database.row_factory = sqlite3.Row
    if not alone:
        database.execute('PRAGMA locking_mode = EXCLUSIVE')
    return database
