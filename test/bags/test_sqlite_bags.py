"""Bag files of SQLite, also while they are written: nothing of them is changed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from llmseg_ros.bags.storage import BagError

from ..helpers.bags import IMAGE, SECOND, add_to_db3, greys, picture, pictures, write_humble_db3

FIVE = [1, 2, 3, 4, 5]


def test_a_write_ahead_log(tmp_path: Path) -> None:
    database = write_humble_db3(tmp_path / 'new.db3', [('/camera', IMAGE)], pictures(2))
    database.execute('PRAGMA journal_mode = WAL')
    database.execute('PRAGMA wal_autocheckpoint = 0')
    add_to_db3(database, pictures(5)[2:])
    bag = tmp_path / 'killed'
    bag.mkdir()
    for name in ('new.db3', 'new.db3-wal'):  # as they are when the recorder is killed
        shutil.copy(tmp_path / name, bag / name)
    database.close()
    before = {file.name: file.read_bytes() for file in bag.iterdir()}
    assert greys(bag) == greys(bag / 'new.db3') == FIVE
    assert {file.name: file.read_bytes() for file in bag.iterdir()} == before
    (bag / 'new.db3-wal').unlink()  # what was not in it is still there
    assert greys(bag) == [1, 2]


def test_a_log_that_is_being_written_stays(tmp_path: Path) -> None:
    bag, log = tmp_path / 'live.db3', tmp_path / 'live.db3-wal'
    topics = [('/camera', IMAGE), ('/scan', 'my_msgs/msg/Scan')]
    database = write_humble_db3(bag, topics, pictures(2))
    database.execute('PRAGMA journal_mode = WAL')
    database.execute('PRAGMA cache_size = 1')  # what is not complete goes into the log too
    add_to_db3(database, [*pictures(5)[2:], (1, SECOND, bytes(10**6))], commit=False)
    size = log.stat().st_size
    assert size
    assert greys(bag) == [1, 2]
    assert log.stat().st_size == size
    database.commit()
    database.close()
    assert greys(bag) == FIVE


@pytest.mark.parametrize('content', [b'no log', b'garbage' * 1000])
def test_a_damaged_log_stays(tmp_path: Path, content: bytes) -> None:
    bag, log = tmp_path / 'a.db3', tmp_path / 'a.db3-wal'
    database = write_humble_db3(bag, [('/camera', IMAGE)], pictures(2))
    database.execute('PRAGMA journal_mode = WAL')
    database.close()
    log.write_bytes(content)
    assert greys(bag) == [1, 2]
    assert log.read_bytes() == content


def test_a_database_whose_log_is_elsewhere(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / 'a.db3') as database:
        database.execute('PRAGMA journal_mode = WAL')
    database = write_humble_db3(tmp_path / 'a.db3', [('/camera', IMAGE)], pictures(2))
    shutil.copy(tmp_path / 'a.db3', tmp_path / 'b.db3')
    with pytest.raises(BagError, match=r'its messages are in b\.db3-wal, which belongs beside it'):
        greys(tmp_path / 'b.db3')
    database.close()


def test_a_database_with_other_values(tmp_path: Path) -> None:
    database = write_humble_db3(tmp_path / 'a.db3', [('/camera', IMAGE)], pictures(2))
    database.execute("UPDATE messages SET timestamp = 'noon' WHERE id = 1")
    database.commit()
    database.close()
    with pytest.raises(BagError, match='its tables hold other values than a bag'):
        greys(tmp_path / 'a.db3')


def test_a_database_that_is_no_bag(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / 'mine.db3') as database:
        database.execute('CREATE TABLE people(name TEXT)')
    with pytest.raises(BagError, match=r'mine\.db3 is no bag: no such table: messages'):
        greys(tmp_path / 'mine.db3')


def test_a_database_without_an_index_of_times(tmp_path: Path) -> None:
    messages = [(0, s * SECOND, picture(s)) for s in (4, 2, 5, 1, 3)]
    database = write_humble_db3(tmp_path / 'bag.db3', [('/camera', IMAGE)], messages)
    database.execute('DROP INDEX timestamp_idx')
    database.commit()
    assert greys(tmp_path / 'bag.db3') == FIVE
