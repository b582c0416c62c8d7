"""The store of one process: a SQLite file, the books and the keys over it.

Rules:
- Exactly one process has a database open: a lock of the operating system on a file beside it (`<database>.lock`), which
  ends with the process, however that ends. Two processes would each decide about the same money.
- A file whose log is gone or that is damaged is not opened: nobody would miss what is not there (wholeness.py).
- A first start makes the account `default`, which may owe (post-paid), so that a single user is never stopped.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from moonpool.errors import Problem
from moonpool.state import reading
from moonpool.state.base import StoreInUse
from moonpool.state.books import SqliteBooks
from moonpool.state.file import SqliteDatabase
from moonpool.state.keystore import SqliteKeys
from moonpool.state.people import SqlPeople
from moonpool.state.store import Loaded, SqlStore
from moonpool.state.thread import WriterThread
from moonpool.state.wholeness import damage, needs_log
from moonpool.words import Account

CHECK_S: Final = 2.0
CHECK_BYTES_MAX: Final = 1 << 28
"""How long a start checks the file, and up to which size: old versions of SQLite cannot be stopped within a table."""

_LOST: Final = (
    "{path} was in use when it was copied or when its log was removed, and {name}-wal is not beside it: the requests,"
    " deposits and keys that were committed last stood there. Put back that file, or both from one moment, or a backup;"
    " where there is none, `moonpool ledger accept-loss` goes on without what is missing."
)
_DAMAGED: Final = (
    "{path} cannot be opened: it is damaged ({found}). Keep it and {name}-wal aside, and put the newest backup in their"
    " place that `moonpool ledger audit --database FILE` finds nothing wrong with."
)


class SqliteStore(SqlStore):
    """Store over the database at `path`, made at the first start; its folder must be there.

    `clock` gives Unix seconds. `accept_loss`: start although the log is gone; `lost` says whether it was.
    `connection_class` is for tests that make the disk fail.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] | None = None,
        accept_loss: bool = False,
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        accounts: dict[str, Account] = {}
        clock = clock or time.time
        thread = WriterThread(self._connect)
        super().__init__(
            thread, thread, accounts, SqliteKeys(thread, accounts, clock), SqlPeople(thread, accounts), clock
        )
        self._path = Path(path)
        self._connection_class = connection_class
        self._accept_loss = accept_loss
        self._looked = False
        self._lock: int | None = None
        self._books = SqliteBooks(thread, accounts)

    @property
    def books(self) -> SqliteBooks:
        return self._books

    async def start(self) -> None:
        try:
            self._lock = _lock(self._path)
            self._looked = False
            await self._thread.start()
            memory, loaded = await self._thread.call(self._load)
        except BaseException as error:
            await self._thread.stop()
            self._unlock()
            if isinstance(error, Problem) and error.detail:
                raise Problem("platform.storage", f"{self._path} cannot be opened ({error.detail}).") from error
            if isinstance(error, OSError):
                raise Problem("platform.storage", f"{self._path} cannot be opened ({error}).") from error
            raise
        self._take(loaded)
        self._books.start(memory)  # whose open holds may use credit, the accounts say

    async def stop(self) -> None:
        try:
            await self._note_uses()
            await self._books.stop()
        finally:
            try:
                await self._end()
            finally:
                self._unlock()

    def trouble(self) -> str | None:
        return self._books.trouble

    def _connect(self) -> SqliteDatabase:
        if not self._looked:
            self._look()
            self._looked = True
        return SqliteDatabase(str(self._path), self._connection_class)

    def _look(self) -> None:
        """Is the file whole? Raises Problem("platform.storage") if not, OSError or sqlite3.Error where that cannot be
        seen."""
        path = self._path
        self.lost = needs_log(path)
        if self.lost and not self._accept_loss:
            raise Problem("platform.storage", _LOST.format(path=path, name=path.name))
        found = damage(path, CHECK_S) if path.stat().st_size <= CHECK_BYTES_MAX else None
        if found:
            raise Problem("platform.storage", _DAMAGED.format(path=path, name=path.name, found=found))
        if found is None:
            self.notice = f"{path} is large and was not checked to its end; moonpool doctor checks all of it"

    def _load(self, database: SqliteDatabase) -> tuple[reading.Memory, Loaded]:
        self._prepare(database)
        database.guard()
        with database.engine.begin() as connection:
            return reading.load(connection), self._read(connection)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    """The lock, held while the descriptor is open. Raises StoreInUse or OSError."""
    file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        raise StoreInUse(
            f"Another Moonpool (process {holder}) has {path} open; one database serves one process."
        ) from None
    try:
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        # SQLite gives its own files the mode of the database: keys and amounts are for the owner only. Not before the
        # lock is ours: closing a file drops the locks that SQLite in this process may hold on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        os.close(file)
        raise
    return file
