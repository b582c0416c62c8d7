"""What every store has besides its books: keys, people, the vault; over one thread, whatever database that owns.

What a store gets is added here, so that both kinds have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, select

from moonpool.state import keyrows, people, tables
from moonpool.state.base import OnceBounds, VaultBounds
from moonpool.state.base_admin import Office
from moonpool.state.kept_rows import StoredRows
from moonpool.state.keyrows import Known
from moonpool.state.keystore import SqliteKeys
from moonpool.state.office import office
from moonpool.state.once import GRACE_S, SqlOnce
from moonpool.state.overrides import StoredOverrides
from moonpool.state.people import Everybody, SqlPeople
from moonpool.state.reports import SqlReports
from moonpool.state.schema import migrate
from moonpool.state.sealing import Sealer
from moonpool.state.thread import Database, WriterThread
from moonpool.state.vault import DatabaseVault
from moonpool.words import Account

DEFAULT_ACCOUNT: Final = Account("default", "default", post_paid=True)


class Loaded(Struct):
    """What memory takes over from a database at the start."""

    known: Known
    everybody: Everybody


class SqlStore:
    """`slow` is the thread for what may take long; where there is one connection only it is `thread` itself.
    `shared`: over a database that other processes use too. `notice` is what an operator should read after the start.
    `lost`: was opened without a log that belongs to it."""

    notice = ""
    lost = False

    def __init__(
        self,
        thread: WriterThread,
        slow: WriterThread,
        accounts: dict[str, Account],
        keys: SqliteKeys,
        everybody: SqlPeople,
        clock: Callable[[], float],
        *,
        shared: bool = False,
    ) -> None:
        self._thread = thread
        self._slow = slow
        self._accounts = accounts
        self._keys = keys
        self._people = everybody
        self._clock = clock
        self._shared = shared
        self._office = office(thread)
        self._reports = SqlReports(slow)
        self._overrides = StoredOverrides(thread)
        self._kept_rows = StoredRows(thread)
        self._vault: DatabaseVault | None = None
        self._once: SqlOnce | None = None

    @property
    def keys(self) -> SqliteKeys:
        return self._keys

    @property
    def people(self) -> SqlPeople:
        return self._people

    @property
    def office(self) -> Office:
        return self._office

    @property
    def reports(self) -> SqlReports:
        return self._reports

    @property
    def overrides(self) -> StoredOverrides:
        return self._overrides

    @property
    def kept_rows(self) -> StoredRows:
        return self._kept_rows

    @property
    def once(self) -> SqlOnce | None:
        return self._once

    @property
    def vault(self) -> DatabaseVault | None:
        return self._vault

    def seal_with(self, secret: str, bounds: VaultBounds) -> None:
        """Have a vault, its thoughts sealed with this secret (every node's the same). Before `start`."""
        self._vault = DatabaseVault(self._thread, Sealer(secret), bounds, shared=self._shared)

    def remember_with(self, secret: str, bounds: OnceBounds) -> None:
        """Keep the answers to requests with an `Idempotency-Key`, sealed with this secret. Before `start`."""
        self._once = SqlOnce(self._thread, secret, bounds, grace_s=GRACE_S if self._shared else 0.0)

    def _prepare(self, database: Database) -> None:
        """A job: bring the schema up to date, and make what a first start makes."""
        with database.patient(), database.engine.connect() as connection:
            migrate(connection)
        with database.engine.begin() as connection:
            found = connection.execute(select(tables.accounts.c.id).limit(1)).first()
        if found is None:
            # Another process may do so at this moment; then it is there.
            keyrows.save_account(DEFAULT_ACCOUNT, self._clock(), database)

    def _read(self, connection: Connection) -> Loaded:
        """Part of a job."""
        self._overrides.load(connection)
        self._kept_rows.load(connection)
        if self._vault is not None:
            self._vault.load(connection)
        if self._once is not None:
            self._once.load(connection)
        return Loaded(keyrows.load(connection), people.load(connection))

    def _take(self, loaded: Loaded) -> None:
        self._keys.start(loaded.known)
        self._people.start(loaded.everybody)
        if self._vault is not None:
            self._vault.start()
        if self._once is not None:
            self._once.start()

    async def _note_uses(self) -> None:
        """Write when keys and tokens were last used."""
        await self._keys.stop()
        await self._people.stop()

    async def _end(self) -> None:
        """Write what else is pending, and close the thread."""
        try:
            if self._once is not None:
                await self._once.stop()
            if self._vault is not None:
                await self._vault.stop()
        finally:
            await self._slow.stop()
            await self._thread.stop()
