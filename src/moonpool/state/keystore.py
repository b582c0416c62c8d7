"""API keys and accounts of one process: all of them in memory, every change durable before it counts.

Rules:
- Memory is the authority while the process lives (no other process may open the database). `find` never asks the
  database: a digest is known or it is not, so guesses cost no look-up and no memory, and no late look-up can bring
  back a key that was deleted meanwhile.
- A key enters memory after its creation is durable and leaves it after its deletion is, before either is answered.
- A deleted key stays in the table with its digest: neither its id nor its text can ever come back.
- The last use of a key is a note in memory, written every USED_S seconds and at `stop`.
"""

from __future__ import annotations

import asyncio
import builtins
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, insert, select, update

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.state import tables
from moonpool.state.thread import Database, WriterThread
from moonpool.words import Account, Key

USED_S: Final = 60.0

Found = tuple[Key, Account] | None

_NOBODY: Final[Later[Found]] = Later()
_NOBODY.set(None)


class Known(Struct):
    """What the keys' side takes over from a database: accounts, and the keys that are not deleted with digests."""

    accounts: list[Account]
    keys: list[tuple[Key, bytes]]


def load(connection: Connection) -> Known:
    accounts = connection.execute(select(tables.accounts).order_by(tables.accounts.c.created_at))
    alive = connection.execute(select(tables.keys).where(tables.keys.c.deleted_at.is_(None)))
    return Known(
        [Account(row.id, row.name, row.post_paid, row.concurrency) for row in accounts],
        [
            (Key(row.id, row.account, row.name, row.created_at, row.last_used_at, row.switches), row.digest)
            for row in alive
        ],
    )


class SqliteKeys:
    """Keys. All methods are called on the event loop; none blocks it."""

    def __init__(self, thread: WriterThread, accounts: dict[str, Account], clock: Callable[[], float]) -> None:
        self._thread = thread
        self._accounts = accounts
        self._clock = clock
        self._keys: dict[str, tuple[Key, bytes]] = {}
        self._ready: dict[bytes, Later[Found]] = {}
        self._used: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def start(self, known: Known) -> None:
        """Take over what `load` read."""
        for remembered in (self._accounts, self._keys, self._ready):
            remembered.clear()
        self._accounts.update((account.id, account) for account in known.accounts)
        for key, digest in known.keys:
            self._remember(key, digest)
        self._timer = asyncio.get_running_loop().call_later(USED_S, self._write_used)

    async def stop(self) -> None:
        """Write the last uses."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            await self.write_used()

    def find(self, digest: bytes) -> Later[Found]:
        """Already there: the answer is made when a key changes, not when it is asked for."""
        return self._ready.get(digest, _NOBODY)

    def used(self, key_id: str, at: float) -> None:
        self._used[key_id] = at

    async def create(self, key: Key, digest: bytes) -> None:
        if key.account not in self._accounts:
            raise Problem("caller.invalid_value", "There is no such account.", param="account")
        await self._change(
            partial(_insert_key, key, digest), "This key exists, or did and was deleted for good.", "key"
        )
        self._remember(key, digest)

    async def list(self, account: str | None = None) -> builtins.list[Key]:
        """Oldest first, with their last use as it is known now."""
        found = [
            replace(key, last_used_at=self._used.get(key.id, key.last_used_at))
            for key, _ in self._keys.values()
            if account is None or key.account == account
        ]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def ever(self, account: str) -> bool:
        return await self._thread.call(partial(_ever, account))

    async def delete(self, key_id: str, now: float) -> bool:
        if key_id not in self._keys or not await self._thread.call(partial(_delete_key, key_id, now)):
            return False
        _, digest = self._keys.pop(key_id)
        del self._ready[digest]
        return True

    async def account(self, name: str) -> Account | None:
        return next((account for account in self._accounts.values() if account.name == name), None)

    async def accounts(self) -> builtins.list[Account]:
        return list(self._accounts.values())

    async def save_account(self, account: Account) -> None:
        work = partial(save_account, account, self._clock())
        await self._change(work, f"There is another account with the name {account.name!r}.", "name")
        self._accounts[account.id] = account
        for key, digest in list(self._keys.values()):
            if key.account == account.id:
                self._remember(key, digest)

    async def write_used(self) -> None:
        """Make the last uses durable. What cannot be written now is kept for the next time."""
        used = dict(self._used)
        if not used:
            return
        try:
            await self._thread.call(partial(_write_used, used))
        except Problem:
            return
        for key_id, at in used.items():
            if key_id in self._keys:
                key, digest = self._keys[key_id]
                self._keys[key_id] = (replace(key, last_used_at=at), digest)
            if self._used.get(key_id) == at:
                del self._used[key_id]

    def _write_used(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(USED_S, self._write_used)
        self._writing = loop.create_task(self.write_used())

    def _remember(self, key: Key, digest: bytes) -> None:
        self._keys[key.id] = (key, digest)
        ready: Later[Found] = Later()
        ready.set((key, self._accounts[key.account]))
        self._ready[digest] = ready

    async def _change(self, work: Callable[[Database], None], taken: str, param: str) -> None:
        try:
            await self._thread.call(work)
        except Problem as problem:
            if problem.detail.startswith(sqlite3.IntegrityError.__name__):
                raise Problem("caller.invalid_value", taken, param=param) from None
            raise


def _insert_key(key: Key, digest: bytes, database: Database) -> None:
    row: dict[str, Any] = {
        "id": key.id,
        "digest": digest,
        "account": key.account,
        "name": key.name,
        "switches": dict(key.switches),
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
    }
    with database.engine.begin() as connection:
        connection.execute(insert(tables.keys), row)


def _delete_key(key_id: str, now: float, database: Database) -> bool:
    keys = tables.keys
    with database.engine.begin() as connection:
        done = connection.execute(
            update(keys).where(keys.c.id == key_id, keys.c.deleted_at.is_(None)).values(deleted_at=now)
        )
    return done.rowcount == 1


def _ever(account: str, database: Database) -> bool:
    with database.engine.connect() as connection:
        return connection.execute(select(tables.keys.c.id).where(tables.keys.c.account == account)).first() is not None


def save_account(account: Account, now: float, database: Database) -> None:
    accounts = tables.accounts
    settings = {
        "name": account.name,
        "post_paid": account.post_paid,
        "concurrency": account.concurrency,
        "credit_pico": account.credit_pico,
        "disabled": account.disabled,
        "requests_per_minute": account.requests_per_minute,
        "tokens_per_minute": account.tokens_per_minute,
    }
    with database.engine.begin() as connection:
        changed = connection.execute(update(accounts).where(accounts.c.id == account.id).values(settings))
        if changed.rowcount == 0:
            connection.execute(insert(accounts), {"id": account.id, "created_at": now, **settings})


def _write_used(used: dict[str, float], database: Database) -> None:
    keys = tables.keys
    statement = update(keys).where(keys.c.id == bindparam("key")).values(last_used_at=bindparam("at"))
    with database.engine.begin() as connection:
        connection.execute(statement, [{"key": key_id, "at": at} for key_id, at in used.items()])
