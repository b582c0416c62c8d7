"""What accounts pay instead of list prices: all of it in memory, every change durable before it counts.

The price itself is data that the catalogue reads; here it is only kept. Each change counts up `changes`, so that other
processes over the same database look again (`refresh`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from moonpool.state import changes, tables
from moonpool.state.base_prices import Override
from moonpool.state.thread import Database, WriterThread


def _nobody() -> None:
    pass


class StoredOverrides:
    """Overrides over the writer thread. All methods are called on the event loop; none blocks it."""

    def __init__(self, thread: WriterThread) -> None:
        self._thread = thread
        self._rows: dict[tuple[str, str, str], Override] = {}
        self._tell: Callable[[], None] = _nobody

    def load(self, connection: Connection) -> None:
        """Take over what the database has; before anything else is called."""
        self._rows = _read(connection)

    def listen(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after each change."""
        self._tell = tell

    def list(self, account: str | None = None) -> tuple[Override, ...]:
        """By account, model and day."""
        rows = sorted(self._rows.items())
        return tuple(row for _, row in rows if account is None or row.account == account)

    async def set(self, override: Override) -> None:
        await self._thread.call(partial(_set, override))
        self._rows[override.account, override.model, override.valid_from] = override
        self._tell()

    async def delete(self, account: str, model: str, valid_from: str | None = None) -> int:
        gone = await self._thread.call(partial(_delete, account, model, valid_from))
        for place in [place for place in self._rows if place[:2] == (account, model)]:
            if valid_from in {None, place[2]}:
                del self._rows[place]
        if gone:
            self._tell()
        return gone

    async def refresh(self) -> None:
        """Another process has changed something."""
        before, self._rows = self._rows, await self._thread.call(_refresh)
        if self._rows != before:
            self._tell()


def _read(connection: Connection) -> dict[tuple[str, str, str], Override]:
    table = tables.overrides
    return {
        (row.account, row.model, row.valid_from): Override(
            row.account, row.model, row.valid_from, row.price, row.created_at
        )
        for row in connection.execute(select(table))
    }


def _refresh(database: Database) -> dict[tuple[str, str, str], Override]:
    with database.engine.begin() as connection:
        return _read(connection)


def _set(override: Override, database: Database) -> None:
    table = tables.overrides
    place: Mapping[str, Any] = {
        "account": override.account,
        "model": override.model,
        "valid_from": override.valid_from,
    }
    said = {"price": dict(override.price), "created_at": override.created_at}
    with database.engine.begin() as connection:
        changed = connection.execute(update(table).where(*_is(place)).values(said))
        if changed.rowcount == 0:
            connection.execute(insert(table), {**place, **said})
        changes.count_up(connection, changes.OVERRIDES)


def _delete(account: str, model: str, valid_from: str | None, database: Database) -> int:
    place = {"account": account, "model": model, **({} if valid_from is None else {"valid_from": valid_from})}
    with database.engine.begin() as connection:
        gone = connection.execute(delete(tables.overrides).where(*_is(place))).rowcount
        if gone:
            changes.count_up(connection, changes.OVERRIDES)
    return gone


def _is(place: Mapping[str, Any]) -> list[Any]:
    return [tables.overrides.c[name] == value for name, value in place.items()]
