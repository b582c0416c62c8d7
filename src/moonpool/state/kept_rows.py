"""Rows of the catalogue that were said at run time: all of them in memory, every change durable before it counts.

What a row means is the catalogue's; here it is only kept. Each change counts up `changes`, so that other processes over
the same database look again (`refresh`). It is made only where nobody else made one since its maker looked: two rows
that are right each by itself may be wrong together, and all that is kept was checked as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sqlalchemy import Connection, delete, insert, select, update

from moonpool.state import changes, tables
from moonpool.state.base_catalogue import KeptRow
from moonpool.state.thread import Database, WriterThread

Rows = Mapping[tuple[str, str], KeptRow]


def _nobody() -> None:
    pass


class StoredRows:
    """KeptRows over the writer thread. All methods are called on the event loop; none blocks it."""

    def __init__(self, thread: WriterThread) -> None:
        self._thread = thread
        self._rows: Rows = {}
        self._revision = 0
        self._tell: Callable[[], None] = _nobody

    def load(self, connection: Connection) -> None:
        """Take over what the database has; before anything else is called."""
        self._revision, self._rows = _read(connection)

    @property
    def revision(self) -> int:
        return self._revision

    def listen(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def list(self) -> tuple[KeptRow, ...]:
        return tuple(row for _, row in sorted(self._rows.items()))

    async def set(self, row: KeptRow, seen: int) -> bool:
        return self._take(await self._thread.call(partial(_set, row, seen)))

    async def delete(self, section: str, name: str, seen: int) -> bool:
        return self._take(await self._thread.call(partial(_delete, section, name, seen)))

    async def refresh(self) -> None:
        """Another process has changed something, or may have."""
        self._take(await self._thread.call(_refresh))

    def _take(self, found: tuple[int, Rows] | None) -> bool:
        """What the database has now; None where a change was not made."""
        if found is None:
            return False
        before, (self._revision, self._rows) = self._rows, found
        if self._rows != before:
            self._tell()
        return True


def _read(connection: Connection) -> tuple[int, Rows]:
    # First the number: rows that are newer than it are looked at once more, older ones never would be.
    revision = changes.revisions(connection).get(changes.CATALOGUE, 0)
    found = connection.execute(select(tables.catalogue_rows))
    return revision, {(row.section, row.name): KeptRow(row.section, row.name, row.row, row.created_at) for row in found}


def _refresh(database: Database) -> tuple[int, Rows]:
    with database.engine.begin() as connection:
        return _read(connection)


def _set(row: KeptRow, seen: int, database: Database) -> tuple[int, Rows] | None:
    table = tables.catalogue_rows
    said = {"row": dict(row.row), "created_at": row.created_at}
    with database.engine.begin() as connection:
        if not _is_next(connection, seen):
            connection.rollback()
            return None
        at = (table.c.section == row.section, table.c.name == row.name)
        if connection.execute(update(table).where(*at).values(said)).rowcount == 0:
            connection.execute(insert(table), {"section": row.section, "name": row.name, **said})
        return _read(connection)


def _delete(section: str, name: str, seen: int, database: Database) -> tuple[int, Rows] | None:
    table = tables.catalogue_rows
    with database.engine.begin() as connection:
        if not _is_next(connection, seen):
            connection.rollback()
            return None
        connection.execute(delete(table).where(table.c.section == section, table.c.name == name))
        return _read(connection)


def _is_next(connection: Connection, seen: int) -> bool:
    """Count up, which makes others wait until we are done, and see that nobody did since."""
    changes.count_up(connection, changes.CATALOGUE)
    return changes.revisions(connection)[changes.CATALOGUE] == seen + 1
