"""The one thread that owns the one connection to a SQLite file.

Rules:
- Everything that touches the database is a job for this thread, done in the order of `submit`. The event loop never
  waits: what a job gave, or how it failed, comes back as one callback on the loop.
- One connection writes, reads and checkpoints. SQLite before 3.51.3 (3.44.6, 3.50.7) can lose committed pages when two
  connections write and checkpoint at the wrong moment ("WAL-reset"); with one connection that cannot be. Reads go
  through it as well: they are rare, and so they see every commit before them.
- A checkpoint never happens inside a commit somebody waits for: it is made after the answers of a commit went out, when
  enough has been written, or when there was nothing to do for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from moonpool.errors import Problem
from moonpool.later import Later

T = TypeVar("T")

BUSY_MS: Final = 500
"""How long a foreign lock is waited for. With the longest back-off of `books` a request then waits a second at most."""
_IDLE_S: Final = 1.0
_COMMITS_MAX: Final = 400
_ROWS_MAX: Final = 8192
_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    "PRAGMA journal_size_limit = 67108864",
)

Done = Callable[[Any, Exception | None], None]


class Database:
    """What a job works with, inside the thread only. `cursor` is outside a transaction between jobs; `engine` speaks
    over the same connection, and each of its transactions begins as a writer."""

    def __init__(self, path: str, connection_class: type[sqlite3.Connection]) -> None:
        self.connection = sqlite3.connect(
            path, timeout=BUSY_MS / 1000, isolation_level=None, factory=connection_class, cached_statements=256
        )
        self.cursor = self.connection.cursor()
        try:
            self._prepare()
        except sqlite3.Error:
            self.discard()
            raise
        self._engine: Engine | None = None
        self.commits = 0
        self.rows = 0

    def _prepare(self) -> None:
        mode = self.cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"no write-ahead log on this file system (journal mode {mode!r})")
        for pragma in _PRAGMAS:
            self.cursor.execute(pragma).fetchall()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            engine = create_engine(
                "sqlite://", creator=lambda: self.connection, poolclass=StaticPool, hide_parameters=True
            )
            event.listen(engine, "begin", lambda transaction: transaction.exec_driver_sql("BEGIN IMMEDIATE"))
            self._engine = engine
        return self._engine

    def rest(self) -> bool:
        """After a job that failed: end its transaction. False if that cannot be done: this connection is of no use."""
        try:
            if self.connection.in_transaction:
                self.connection.rollback()
        except sqlite3.Error:
            return False
        return True

    def checkpoint(self, mode: str = "PASSIVE") -> None:
        """Move what the log holds into the database file. What fails is tried again later: the log keeps it."""
        self.commits = self.rows = 0
        with contextlib.suppress(sqlite3.Error):
            self.cursor.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    def close(self) -> None:
        """Whatever is committed is safe in the log, so a fault here is nobody's concern."""
        self.checkpoint("TRUNCATE")
        self.discard()

    def discard(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.cursor.close()
            self.connection.close()


class Jobs(Protocol):
    """Does jobs one after another and tells their results in that order."""

    def call(self, work: Callable[[Database], T]) -> Later[T]: ...


class WriterThread:
    """Runs jobs (`work(database)`) one after another. Use it on one event loop, between `start` and `stop`."""

    def __init__(self, path: str, connection_class: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self._path = path
        self._connection_class = connection_class
        self._queue: queue.SimpleQueue[tuple[Callable[[Database], Any], Done] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._database: Database | None = None

    async def start(self) -> None:
        """Open the database. Raises Problem("platform.storage")."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a program that ends without `stop` must not hang, and what was committed is safe anyway.
        self._thread = threading.Thread(target=self._run, name="moonpool-store", daemon=True)
        self._thread.start()
        opened: Later[None] = Later()
        self._queue.put((self._open, _into(opened)))
        await opened

    def submit(self, work: Callable[[Database], Any], done: Done) -> None:
        """Have `work` done in its turn; then `done(result, error)` is called on the loop."""
        if self._thread is None:
            self._loop.call_soon(done, None, Problem("platform.storage", detail="the store is closed"))
        else:
            self._queue.put((work, done))

    def call(self, work: Callable[[Database], T]) -> Later[T]:
        """As `submit`, as one value. What the database says against it becomes Problem("platform.storage")."""
        later: Later[T] = Later()
        self.submit(work, _into(later))
        return later

    async def stop(self) -> None:
        """Do what is queued, close the database, end the thread. May be called again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        closed: Later[None] = Later()
        self._queue.put((self._close, _into(closed)))
        self._queue.put(None)
        await closed
        thread.join()

    def _open(self, _: object) -> None:
        self._database = Database(self._path, self._connection_class)

    def _close(self, database: Database | None) -> None:
        if database is not None:
            database.close()

    def _reopen(self, broken: Database) -> None:
        """A new connection for one that broke, if there can be one now; else the next job that fails tries again."""
        broken.discard()
        with contextlib.suppress(sqlite3.Error):
            self._database = Database(self._path, self._connection_class)

    def _run(self) -> None:
        while True:
            database: Any = self._database
            unwritten = database is not None and database.commits > 0
            try:
                job = self._queue.get(timeout=_IDLE_S if unwritten else None)
            except queue.Empty:
                database.checkpoint()
                continue
            if job is None:
                return
            work, done = job
            result, error = None, None
            try:
                result = work(database)
            except Exception as caught:  # the edge: whatever a job does, its fault goes to who asked for it
                error = caught
                if database is not None and not database.rest():
                    self._reopen(database)
            try:
                self._loop.call_soon_threadsafe(done, result, error)
            except RuntimeError:  # the loop was closed without `stop`: nobody is there to be told
                return
            del job, work, done, result, error
            database = self._database
            if database is not None and (database.commits >= _COMMITS_MAX or database.rows >= _ROWS_MAX):
                database.checkpoint()


def storage_problem(error: Exception) -> Exception:
    """What a request is told when the database said `error`; other faults stay what they are."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    if isinstance(error, sqlite3.Error | SQLAlchemyError | OSError):
        return Problem("platform.storage", detail=f"{type(error).__name__}: {error}")
    return error


def _into(later: Later[Any]) -> Done:
    def done(result: Any, error: Exception | None) -> None:
        if error is None:
            later.set(result)
        else:
            later.fail(storage_problem(error))

    return done
