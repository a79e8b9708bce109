"""Answers of language models, kept in one SQLite file for every process of a user."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llmseg_ros.subclasses.parse import PARSER_VERSION

T = TypeVar('T')

VERSION = 1
APPLICATION_ID = 0x4C4C4D53  # 'LLMS': how the file says whose it is
BUSY_SECONDS = 10.0
POLL_SECONDS = 0.05
COLUMNS = 'class_key, prompt, n, model, asked_at, text, parser'

logger = logging.getLogger(__name__)


class StoreError(RuntimeError):
    """The store can't be used; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Question:
    """What an answer is kept under.

    Attributes:
        class_key: the class name under `name_key`.
        prompt: key of the prompt template.
        n: subclasses asked for.
        model: the language model's name.
    """

    class_key: str
    prompt: str
    n: int
    model: str


@dataclass(frozen=True)
class Answer:
    """What a language model said.

    Attributes:
        text: word for word.
        asked_at: seconds since 1970.
        parser: version of the parser of the time.
    """

    text: str
    asked_at: float
    parser: int = PARSER_VERSION


def default_store_path() -> Path:
    """Return the store in the user's data folder: ROS_HOME, else XDG_DATA_HOME."""
    ros, xdg = os.environ.get('ROS_HOME'), os.environ.get('XDG_DATA_HOME')
    folder = Path(ros or xdg or Path.home() / '.local' / 'share')
    return folder / 'llmseg_ros' / 'subclasses.sqlite3'


class Store:
    """Answers by question; safe across threads and processes.

    An answer is either there complete or not at all. Where the file can't be written, what is in
    it is still read, and new answers are kept in memory, with a warning.

    Raises:
        StoreError: the file is another program's, or a newer llmseg_ros wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._memory: dict[Question, Answer] = {}
        self._warned = False
        self._db = self._open()

    def find(self, question: Question) -> Answer | None:
        """Return the answer to a question, None where there is none."""

        def select(db: sqlite3.Connection) -> Answer | None:
            row = db.execute(
                'SELECT text, asked_at, parser FROM answers'
                ' WHERE class_key = ? AND prompt = ? AND n = ? AND model = ?',
                _row(question),
            ).fetchone()
            return Answer(*row) if row else None

        return self._memory.get(question) or self._run(select, None)

    def put(self, question: Question, answer: Answer) -> None:
        """Keep an answer; it replaces an earlier one."""

        def insert(db: sqlite3.Connection) -> bool:
            _insert(db, question, answer)
            return True

        if self._run(insert, False):
            self._memory.pop(question, None)
        else:
            self._memory[question] = answer

    def delete(self, questions: Iterable[Question]) -> int:
        """Forget answers; return how many there were."""

        def remove(db: sqlite3.Connection) -> int:
            return sum(
                db.execute(
                    'DELETE FROM answers WHERE class_key = ? AND prompt = ? AND n = ?'
                    ' AND model = ?',
                    _row(question),
                ).rowcount
                for question in questions
            )

        questions = list(questions)
        in_memory = sum(self._memory.pop(question, None) is not None for question in questions)
        return self._run(remove, 0) + in_memory

    def all(self) -> dict[Question, Answer]:
        """Return everything that is kept."""

        def select(db: sqlite3.Connection) -> dict[Question, Answer]:
            rows = db.execute(f'SELECT {COLUMNS} FROM answers ORDER BY class_key').fetchall()
            return {Question(*row[:4]): Answer(row[5], row[4], row[6]) for row in rows}

        return {**self._run(select, {}), **self._memory}

    @contextlib.contextmanager
    def claim(self, question: Question, given_up: Callable[[], bool]) -> Iterator[None]:
        """Hold a question while asking it, so that nobody else asks it at the same time.

        The system frees the claim of a process that dies. Waits while another holds it, until
        `given_up` says to go on without.
        """
        digest = hashlib.sha256(repr(_row(question)).encode()).hexdigest()[:32]
        with self._locked(self.path.with_name(f'{self.path.name}.{digest}.lock'), given_up):
            yield

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _run(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Work on the database in one transaction; where that fails, warn and go on without."""
        with self._lock:
            for _ in range(2):
                if self._db is None:
                    break
                try:
                    with self._db:
                        return work(self._db)
                except sqlite3.OperationalError as error:
                    self._warn(error)
                    break
                except sqlite3.DatabaseError:  # damaged while in use
                    self._db.close()
                    self._db = self._open()
        return default

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                'subclass store %s can not be written (%s): new answers are kept in memory only',
                self.path,
                error,
            )

    def _open(self) -> sqlite3.Connection | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._warn(error)
            return None
        deadline = time.monotonic() + BUSY_SECONDS
        lock = self.path.with_name(f'{self.path.name}.lock')
        with self._locked(lock, lambda: time.monotonic() > deadline):
            try:
                return self._prepare(_connect(self.path))
            except sqlite3.OperationalError as error:
                self._warn(error)
                return self._open_to_read()
            except sqlite3.DatabaseError:
                return self._rebuild()

    def _prepare(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Check whose file this is and that it is whole; lay out a new one."""
        try:
            (owner,) = db.execute('PRAGMA application_id').fetchone()
            (version,) = db.execute('PRAGMA user_version').fetchone()
            (tables,) = db.execute('SELECT count(*) FROM sqlite_master').fetchone()
            if tables and owner != APPLICATION_ID:
                raise StoreError(
                    f'{self.path} is the database of another program, name another file as store'
                )
            if version > VERSION:
                raise StoreError(
                    f'subclass store {self.path} has version {version}, this llmseg_ros reads '
                    f'{VERSION}: upgrade it, or name another file as store'
                )
            if db.execute('PRAGMA quick_check(1)').fetchone() != ('ok',):
                raise sqlite3.DatabaseError('damaged')
            if not tables:
                db.execute('PRAGMA journal_mode = WAL').fetchone()
                with db:
                    db.execute('BEGIN')
                    db.execute(
                        'CREATE TABLE answers (class_key TEXT NOT NULL, prompt TEXT NOT NULL,'
                        ' n INTEGER NOT NULL, model TEXT NOT NULL, asked_at REAL NOT NULL,'
                        ' text TEXT NOT NULL, parser INTEGER NOT NULL,'
                        ' PRIMARY KEY (class_key, prompt, n, model))'
                    )
                    db.execute(f'PRAGMA application_id = {APPLICATION_ID}')
                    db.execute(f'PRAGMA user_version = {VERSION}')
        except BaseException:
            db.close()
            raise
        return db

    def _open_to_read(self) -> sqlite3.Connection | None:
        for options in ('mode=ro', 'mode=ro&immutable=1'):  # the last needs no files beside it
            with contextlib.suppress(sqlite3.Error):
                return self._prepare(_connect(self.path, options))
        return None

    def _rebuild(self) -> sqlite3.Connection | None:
        """Set the damaged file aside and start a new one with what can still be read of it."""
        aside = self.path.with_name(f'{self.path.name}.damaged-{time.strftime("%Y%m%d-%H%M%S")}')
        number = 0
        while aside.exists():
            number += 1
            aside = aside.with_name(f'{aside.name.split("~")[0]}~{number}')
        try:
            for suffix in ('', '-wal', '-shm'):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f'{self.path}{suffix}', f'{aside}{suffix}')
            db = self._prepare(_connect(self.path))
        except (OSError, sqlite3.Error) as error:
            self._warn(error)
            return None
        saved = _salvage(aside, db)
        logger.warning(
            'subclass store %s was damaged: it lies in %s now, %d answers could be saved',
            self.path,
            aside,
            saved,
        )
        return db

    @contextlib.contextmanager
    def _locked(self, path: Path, given_up: Callable[[], bool]) -> Iterator[None]:
        """Hold a lock file, gone afterwards; without one where the folder can't be written."""
        descriptor = None
        try:
            while descriptor is None and not given_up():
                descriptor = _try_lock(path)
                if descriptor is None:
                    time.sleep(POLL_SECONDS)
        except OSError as error:
            self._warn(error)
        try:
            yield
        finally:
            if descriptor is not None:
                path.unlink(missing_ok=True)  # first: who has it open meanwhile sees it is gone
                os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """Create and lock a file; None where another has it.

    Raises:
        OSError: the folder can't be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _connect(path: Path, options: str = 'mode=rwc') -> sqlite3.Connection:
    db = sqlite3.connect(
        f'{path.absolute().as_uri()}?{options}',
        uri=True,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
    )
    db.execute('PRAGMA synchronous = FULL')  # an answer costs money, a robot is switched off hard
    return db


def _insert(db: sqlite3.Connection, question: Question, answer: Answer) -> None:
    db.execute(
        f'INSERT OR REPLACE INTO answers ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)',
        (*_row(question), answer.asked_at, answer.text, answer.parser),
    )


def _salvage(aside: Path, db: sqlite3.Connection) -> int:
    """Copy what can be read of a damaged store; return the number of answers."""
    saved = 0
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(aside, 'mode=ro')) as old:
        for row in old.execute(f'SELECT {COLUMNS} FROM answers'):
            kinds = (str, str, int, str, float, str, int)
            if all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)):
                with db:
                    _insert(db, Question(*row[:4]), Answer(row[5], row[4], row[6]))
                saved += 1
    return saved


def _row(question: Question) -> tuple[str, str, int, str]:
    return question.class_key, question.prompt, question.n, question.model
