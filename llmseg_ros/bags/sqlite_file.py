"""Bag files of SQLite, also with a write-ahead log beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import apsw

from llmseg_ros.bags.storage import BagError, Connection, Stored, ros_type

MAGIC = b'SQLite format 3\0'
WITH_LOG = b'\2\2'  # bytes 18 and 19 of a file that is written with a write-ahead log


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
        except apsw.Error as error:
            self.close()
            raise self._explained(error) from error
        except (TypeError, ValueError) as error:  # SQLite keeps texts in columns of numbers
            self.close()
            raise BagError(f'{path} is no bag: its tables hold other values than a bag') from error

    def close(self) -> None:
        """Close the file."""
        self._database.close(True)  # whatever still reads from it

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
                time, connection, raw = self._database.execute(one, (number,)).get
                yield Stored(time, connection, raw)
        except apsw.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: apsw.Error) -> BagError:
        name = self._path.name
        if 'no such' in str(error) and needs_log(self._path):
            return BagError(
                f'{self._path} has no bag in it yet ({error}): its messages are in {name}-wal, '
                'which belongs beside it'
            )
        if 'no such' in str(error):
            return BagError(f'{self._path} is no bag: {error}')
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

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        found = self._database.execute(query, values)
        return [
            dict(zip([name for name, _ in found.get_description()], row, strict=True))
            for row in found
        ]

    def _topics(self) -> list[dict[str, Any]]:
        return self._rows('SELECT * FROM topics ORDER BY id')

    def _connection(self, has: dict[str, Any], counts: dict[int, int]) -> Connection:
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
        if not self._rows(query):
            return b'', ''
        for row in self._rows('SELECT * FROM message_definitions WHERE topic_type = ?', (kind,)):
            definition = row['encoded_message_definition'] or b''
            if isinstance(definition, str):
                definition = definition.encode()
            return definition, row['encoding'] or ''
        return b'', ''


def open_database(path: Path) -> apsw.Connection:
    """Open a database to read; nothing is written or removed, not even beside it."""
    log = path.with_name(f'{path.name}-wal')
    alone = not log.exists() or not log.stat().st_size
    # The log is read without locks: their files would have to be written beside the bag.
    how = 'immutable=1' if alone else 'mode=ro&vfs=unix-none'
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    database = apsw.Connection(f'{path.absolute().as_uri()}?{how}', flags=flags)
    # SQLite removes a log that has nothing complete in it, such as a recorder's at work.
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    if not alone:
        database.execute('PRAGMA locking_mode = EXCLUSIVE')
    return database


def needs_log(path: Path) -> bool:
    """Tell whether a database is written with a log beside it that is not there."""
    with path.open('rb') as file:
        begin = file.read(20)
    return begin[18:20] == WITH_LOG and not path.with_name(f'{path.name}-wal').exists()
