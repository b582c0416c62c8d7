"""The store of one process: a SQLite file, the books and the keys over it.

Rules:
- Exactly one process has a database open: a lock of the operating system on a file beside it (`<database>.lock`), which
  ends with the process, however that ends. Two processes would each decide about the same money.
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
from moonpool.state import keyrows, people, reading
from moonpool.state.base import OnceBounds, StoreInUse, VaultBounds
from moonpool.state.base_admin import Office
from moonpool.state.books import SqliteBooks
from moonpool.state.keyrows import Known
from moonpool.state.keystore import SqliteKeys
from moonpool.state.office import office
from moonpool.state.once import SqlOnce
from moonpool.state.overrides import StoredOverrides
from moonpool.state.people import Everybody, SqlPeople
from moonpool.state.reports import SqlReports
from moonpool.state.schema import migrate
from moonpool.state.sealing import Sealer
from moonpool.state.thread import Database, WriterThread
from moonpool.state.vault import SqliteVault
from moonpool.words import Account

DEFAULT_ACCOUNT: Final = Account("default", "default", post_paid=True)


class SqliteStore:
    """Store over the database at `path`, made at the first start; its folder must be there.

    `clock` gives Unix seconds. `connection_class` is for tests that make the disk fail.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] | None = None,
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self._path = Path(path)
        self._clock = clock or time.time
        self._lock: int | None = None
        self._accounts: dict[str, Account] = {}
        self._thread = WriterThread(str(path), connection_class)
        self._books = SqliteBooks(self._thread, self._accounts)
        self._keys = SqliteKeys(self._thread, self._accounts, self._clock)
        self._office = office(self._thread)
        self._people = SqlPeople(self._thread, self._accounts)
        self._reports = SqlReports(self._thread)
        self._overrides = StoredOverrides(self._thread)
        self._vault: SqliteVault | None = None
        self._once: SqlOnce | None = None

    @property
    def books(self) -> SqliteBooks:
        return self._books

    @property
    def keys(self) -> SqliteKeys:
        return self._keys

    @property
    def office(self) -> Office:
        return self._office

    @property
    def people(self) -> SqlPeople:
        return self._people

    @property
    def reports(self) -> SqlReports:
        return self._reports

    @property
    def overrides(self) -> StoredOverrides:
        return self._overrides

    @property
    def vault(self) -> SqliteVault | None:
        return self._vault

    def seal_with(self, secret: str, bounds: VaultBounds) -> None:
        """Have a vault, its thoughts sealed with this secret. Before `start`."""
        self._vault = SqliteVault(self._thread, Sealer(secret), bounds)

    @property
    def once(self) -> SqlOnce | None:
        return self._once

    def remember_with(self, secret: str, bounds: OnceBounds) -> None:
        """Keep the answers to requests with an `Idempotency-Key`, sealed with this secret. Before `start`."""
        self._once = SqlOnce(self._thread, secret, bounds)

    async def start(self) -> None:
        try:
            self._lock = _lock(self._path)
            await self._thread.start()
            memory, known, everybody = await self._thread.call(self._load)
        except BaseException as error:
            await self._thread.stop()
            self._unlock()
            if isinstance(error, Problem) and error.detail:
                raise Problem("platform.storage", f"{self._path} cannot be opened ({error.detail}).") from error
            if isinstance(error, OSError):
                raise Problem("platform.storage", f"{self._path} cannot be opened ({error}).") from error
            raise
        self._keys.start(known)
        self._people.start(everybody)
        self._books.start(memory)
        if self._vault is not None:
            self._vault.start()
        if self._once is not None:
            self._once.start()

    async def stop(self) -> None:
        try:
            await self._keys.stop()
            await self._people.stop()
            await self._books.stop()
        finally:
            try:
                if self._once is not None:
                    await self._once.stop()
                if self._vault is not None:
                    await self._vault.stop()
                await self._thread.stop()
            finally:
                self._unlock()

    def trouble(self) -> str | None:
        return self._books.trouble

    def _load(self, database: Database) -> tuple[reading.Memory, Known, Everybody]:
        with database.engine.connect() as connection:
            migrate(connection)
        with database.engine.begin() as connection:
            known = keyrows.load(connection)
            everybody = people.load(connection)
            memory = reading.load(connection)
            self._overrides.load(connection)
            if self._vault is not None:
                self._vault.load(connection)
            if self._once is not None:
                self._once.load(connection)
        if not known.accounts:
            keyrows.save_account(DEFAULT_ACCOUNT, self._clock(), database)
            known.accounts.append(DEFAULT_ACCOUNT)
        return memory, known, everybody

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
