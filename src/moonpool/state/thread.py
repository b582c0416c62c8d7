"""The one thread that owns a connection to a database.

Rules:
- Everything that touches the connection is a job for its thread, done in the order of `submit`. The event loop never
  waits: what a job gave, or how it failed, comes back as one callback on the loop.
- A job finds the connection outside a transaction, and leaves it so. After one that failed its transaction is ended; a
  connection where that cannot be done is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from moonpool.errors import Problem
from moonpool.later import Later

T = TypeVar("T")

Done = Callable[[Any, Exception | None], None]


class Database:
    """What a job works with, inside the thread only; file.py and postgres.py have the kinds. Jobs that speak to both
    use `engine` and nothing else."""

    @property
    def engine(self) -> Engine:
        """SQLAlchemy over this connection; each transaction of its begins as a writer."""
        raise NotImplementedError

    @property
    def idle_s(self) -> float | None:
        """After how long without a job `tend` is to be called; None: it need not be."""
        return None

    def tend(self, idle: bool) -> None:
        """Called after each job, and when there was none for `idle_s`."""

    def patient(self) -> AbstractContextManager[None]:
        """Within this no statement is cut off, however long it takes."""
        return nullcontext()

    skip_locked = ""
    """What a SELECT of rows that are to be deleted ends with, so that two processes do not wait for each other."""

    def execute(self, text: str, values: Sequence[Any] = ()) -> Any:
        """Run SQL that every database understands, with `?` for each value; gives a cursor. Within `transaction`."""
        raise NotImplementedError

    def transaction(self, *, durable: bool = True, rows: int = 1) -> AbstractContextManager[None]:
        """What is executed within is written whole or not at all. One that is not `durable` outlives this process, but
        may be lost with the power; `rows` is about how many it writes."""
        raise NotImplementedError

    def rest(self) -> bool:
        """After a job that failed: end its transaction. False if that cannot be done: this connection is of no use."""
        raise NotImplementedError

    def close(self) -> None:
        """What is committed is safe, so a fault here is nobody's concern."""
        self.discard()

    def discard(self) -> None:
        raise NotImplementedError


class Jobs(Protocol):
    """Does jobs one after another and tells their results in that order."""

    def call(self, work: Callable[[Database], T]) -> Later[T]: ...


class WriterThread:
    """Runs jobs (`work(database)`) one after another. Use it on one event loop, between `start` and `stop`."""

    def __init__(self, connect: Callable[[], Database], name: str = "moonpool-store") -> None:
        self._connect = connect
        self._name = name
        self._queue: queue.SimpleQueue[tuple[Callable[[Any], Any], Done] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._database: Database | None = None

    async def start(self) -> None:
        """Open the database. Raises Problem("platform.storage")."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a program that ends without `stop` must not hang, and what was committed is safe anyway.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        opened: Later[None] = Later()
        self._queue.put((self._open, _into(opened)))
        await opened

    def submit(self, work: Callable[[Any], Any], done: Done) -> None:
        """Have `work` done in its turn; then `done(result, error)` is called on the loop."""
        if self._thread is None:
            self._loop.call_soon(done, None, Problem("platform.storage", detail="the store is closed"))
        else:
            self._queue.put((work, done))

    def call(self, work: Callable[[Any], T]) -> Later[T]:
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
        self._database = self._connect()

    def _close(self, database: Database | None) -> None:
        if database is not None:
            database.close()

    def _reopen(self, broken: Database) -> None:
        """A new connection for one that broke, if there can be one now; else the next job that fails tries again."""
        broken.discard()
        with contextlib.suppress(*_FAULTS):
            self._database = self._connect()
            self._database.tend(True)

    def _run(self) -> None:
        while True:
            database: Any = self._database
            try:
                job = self._queue.get(timeout=None if database is None else database.idle_s)
            except queue.Empty:
                database.tend(True)
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
            if database is not None:
                database.tend(False)


_FAULTS: Final = (sqlite3.Error, SQLAlchemyError, OSError)


def storage_problem(error: Exception) -> Exception:
    """What a request is told when the database said `error`; other faults stay what they are. Its detail begins with
    the kind of fault as every driver calls it: IntegrityError where a row exists already, OperationalError, ..."""
    if not isinstance(error, _FAULTS):
        psycopg = sys.modules.get("psycopg")  # only those who use it have it
        if psycopg is None or not isinstance(error, psycopg.Error):
            return error
    said = error.orig if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else error
    return Problem("platform.storage", detail=f"{type(error).__name__}: {said}")


def _into(later: Later[Any]) -> Done:
    def done(result: Any, error: Exception | None) -> None:
        if error is None:
            later.set(result)
        else:
            later.fail(storage_problem(error))

    return done
