"""What one transaction of the books writes, and the writing of it: rows bound in multi-row INSERTs.

Each step of SQLite drops the interpreter's lock and takes it back, which costs more than the row itself; so rows are
bound 64 at a time, the rest in powers of two, and the SQL texts (few) stay compiled in the connection's cache.
Measured: bench/ledger.py. `write` runs in the writer thread; it only reads the batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Table

from moonpool.state import rows, tables
from moonpool.state.base import Progress
from moonpool.state.booking import Booked
from moonpool.state.file import SqliteDatabase
from moonpool.state.tally import TOTALS, Changed, Entry, changed

_CHUNK: Final = 64


class Batch:
    """What was collected while the transaction before it ran. `dirty` are the balances it changes; `changed` (rows of
    the derived tables, flat) and `totals` are how things stand with it, filled in when it is handed over."""

    __slots__ = ("booked", "changed", "commit", "dirty", "held", "progress", "resolved", "totals")

    def __init__(self) -> None:
        self.held: list[Entry] = []
        self.resolved: list[Entry] = []
        self.booked: list[Booked] = []
        self.progress: list[tuple[int, Progress]] = []
        self.dirty: Changed = changed()
        self.changed: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        self.totals: tuple[int, ...] = ()
        self.commit = 0

    def empty(self) -> bool:
        return not (self.held or self.resolved or self.booked or self.progress)


def tell(batch: Batch) -> None:
    """Answer whoever waited for a batch that is durable."""
    for booked in batch.booked:
        booked.landed()
    for entry in batch.held:
        if entry.answer is not None:
            entry.answer.set("held")
    for entry in batch.resolved:
        if entry.answered is not None:
            entry.answered.set("resolved")
    for booked in batch.booked:
        booked.answer.set(None)


def both(one: Batch, other: Batch) -> Changed:
    """What either of them changes."""
    return Changed(
        one.dirty.funds | other.dirty.funds,
        one.dirty.holdings | other.dirty.holdings,
        one.dirty.spent | other.dirty.spent,
    )


class Conflict(Exception):
    """Some holds of a batch have ids that the database knows already. Nothing was written."""

    def __init__(self, ids: set[str]) -> None:
        super().__init__(f"{len(ids)} ids are taken")
        self.ids = ids


class Doubt(Exception):
    """COMMIT reported `error`, and the database does not say whether the batch was written all the same."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Insert:
    """INSERT into one table in chunks; `columns` values a row."""

    def __init__(self, table: Table, text: Callable[[Table, int], str]) -> None:
        self.columns = len(table.columns)
        self._texts = {1 << power: text(table, 1 << power) for power in range(_CHUNK.bit_length())}

    def run(self, cursor: sqlite3.Cursor, values: list[Any]) -> None:
        columns, texts = self.columns, self._texts
        left = len(values) // columns
        start = 0
        while left:
            count = _CHUNK if left >= _CHUNK else 1 << (left.bit_length() - 1)
            end = start + count * columns
            cursor.execute(texts[count], values[start:end])
            start = end
            left -= count


_HOLDS: Final = _Insert(tables.holds, tables.insert_text)
_RESERVATIONS: Final = _Insert(tables.reservations, tables.insert_text)
_RESOLUTIONS: Final = _Insert(tables.resolutions, tables.insert_text)
_TRANSFERS: Final = _Insert(tables.transfers, tables.insert_text)
_BALANCES: Final = _Insert(tables.balances, tables.upsert_text)
_PACK_BALANCES: Final = _Insert(tables.pack_balances, tables.upsert_text)
_SPENT: Final = _Insert(tables.spent, tables.upsert_text)
_USAGE: Final = _Insert(tables.usage, tables.adding_text)
_PROGRESS: Final = _Insert(tables.progress, tables.upsert_text)
_BOOKED: Final = {
    table.name: tables.insert_text(table, 1) for table in (tables.deposits, tables.packs, tables.settlements)
}

_TOTALS: Final = f"UPDATE totals SET {', '.join(f'{name} = ?' for name in TOTALS)} WHERE id = 1"
_FORGET: Final = "DELETE FROM progress WHERE hold_seq = ?"


def write(database: SqliteDatabase, batch: Batch) -> None:
    """Make a batch durable, whole or not at all. Raises Conflict, Doubt, or what SQLite raises."""
    cursor, committing = database.cursor, False
    try:
        cursor.execute("BEGIN IMMEDIATE")
        _write(cursor, batch)
        cursor.execute(_TOTALS, batch.totals)
        committing = True
        cursor.execute("COMMIT")
    except sqlite3.Error as error:
        rests = database.rest()
        if committing:
            try:
                if not rests:
                    raise
                if has_landed(database, batch.commit):
                    return
            except sqlite3.Error:
                raise Doubt(error) from error
        elif isinstance(error, sqlite3.IntegrityError):
            taken = _taken(cursor, [entry.hold.id for entry in batch.held])
            if taken:
                raise Conflict(taken) from None
        raise
    database.commits += 1
    database.rows += len(batch.held) + len(batch.resolved)


def _write(cursor: sqlite3.Cursor, batch: Batch) -> None:
    transfers: list[Any] = []
    if batch.held:
        reservations: list[Any] = []
        _HOLDS.run(cursor, rows.holds(batch.held, 1, reservations))
        if reservations:
            _RESERVATIONS.run(cursor, reservations)
    if batch.progress:  # before resolutions, which make it void
        _PROGRESS.run(cursor, rows.progress(batch.progress))
    if batch.resolved:
        _RESOLUTIONS.run(cursor, rows.resolutions(batch.resolved, transfers))
        _USAGE.run(cursor, rows.usage(batch.resolved))
        for entry in batch.resolved:
            if entry.progress is not None:
                cursor.execute(_FORGET, (entry.seq,))
    for booked in batch.booked:
        cursor.execute(_BOOKED[booked.table], booked.values)
        transfers += rows.transfer(booked.values[0], booked.transfer)
    if transfers:
        _TRANSFERS.run(cursor, transfers)
    for insert, values in zip((_BALANCES, _PACK_BALANCES, _SPENT), batch.changed, strict=True):
        if values:
            insert.run(cursor, values)


def _taken(cursor: sqlite3.Cursor, ids: list[str]) -> set[str]:
    """Which of these ids have a hold. Only asked when the unique constraint struck, which costs nothing otherwise."""
    found = (cursor.execute("SELECT id FROM holds WHERE id = ?", (each,)).fetchone() for each in ids)
    return {row[0] for row in found if row is not None}


def has_landed(database: SqliteDatabase, commit: int) -> bool:
    """Is a commit that reported an error durable all the same? The database itself is asked; raises what SQLite raises
    where it does not answer."""
    row = database.cursor.execute("SELECT commits FROM totals WHERE id = 1").fetchone()
    return row is not None and row[0] == commit
