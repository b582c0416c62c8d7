"""The one connection to a SQLite file, as jobs of the writer thread see it.

Rules:
- One connection writes, reads and checkpoints. SQLite before 3.51.3 (3.44.6, 3.50.7) can lose committed pages when two
  connections write and checkpoint at the wrong moment ("WAL-reset"); with one connection that cannot be. Reads go
  through it as well: they are rare, and so they see every commit before them.
- A checkpoint never happens inside a commit somebody waits for: it is made after the answers of a commit went out, when
  enough has been written, or when there was nothing to do for a while.
- After a checkpoint the file says that it needs the log, and the log says that both are whole (wholeness.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from moonpool.state.thread import Database

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


class SqliteDatabase(Database):
    """`cursor` is outside a transaction between jobs; `engine` speaks over the same connection, and each of its
    transactions begins as a writer."""

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
        self._guarded = 0  # so many rows had this connection changed when it was

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

    @property
    def idle_s(self) -> float | None:
        return _IDLE_S if self.commits else None

    def tend(self, idle: bool) -> None:
        if idle or self.commits >= _COMMITS_MAX or self.rows >= _ROWS_MAX:
            self.checkpoint()

    def execute(self, text: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self.cursor.execute(text, values)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True, rows: int = 1) -> Iterator[None]:
        if not durable:
            self._wait_for_disk(False)
        try:
            self.cursor.execute("BEGIN IMMEDIATE")
            yield
            self.cursor.execute("COMMIT")
        except BaseException:
            self.rest()
            raise
        finally:
            if not durable:
                self._wait_for_disk(True)
        self.commits += 1
        self.rows += rows

    def rest(self) -> bool:
        try:
            if self.connection.in_transaction:
                self.connection.rollback()
        except sqlite3.Error:
            return False
        return True

    def _wait_for_disk(self, wait: bool) -> None:
        """Whether a commit waits for the disk. A connection that cannot be told so again is closed: the thread then
        opens another, and so the books never write over one that does not wait."""
        try:
            self.cursor.execute(f"PRAGMA synchronous = {'FULL' if wait else 'NORMAL'}")
        except sqlite3.Error:
            self.discard()
            raise

    def checkpoint(self) -> None:
        """As `guard`; what fails is tried again later: the log keeps it."""
        with contextlib.suppress(sqlite3.Error):
            self.guard()

    def guard(self) -> None:
        """Move what the log holds into the database file, with a mark there that it needs its log from now on.

        A checkpoint that a reader holds up leaves out pages that are newer than what is read, and so the mark that is
        in the file already stays."""
        self.commits = self.rows = 0
        changes = self.connection.total_changes
        self.cursor.execute("PRAGMA busy_timeout = 0")  # a request may come meanwhile, and wait for the same lock
        try:
            (schema,) = self.cursor.execute("PRAGMA schema_version").fetchone()
            self.cursor.execute(f"PRAGMA user_version = {schema}")
            self.cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._guarded = changes
        finally:
            self.cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            self._unmark()

    def _unmark(self) -> None:
        if self.cursor.execute("PRAGMA user_version").fetchone()[0]:
            self.cursor.execute("PRAGMA user_version = 0")

    def close(self) -> None:
        """Whatever is committed is safe in the log, so a fault here is nobody's concern. The mark is taken from the
        file last, when all else is there."""
        with contextlib.suppress(sqlite3.Error):
            if self.connection.total_changes != self._guarded:
                self.guard()
        with contextlib.suppress(sqlite3.Error):
            self._unmark()
            self.cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.discard()

    def discard(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.cursor.close()
            self.connection.close()
