"""What one transaction of the books writes, and the writing of it: rows bound in multi-row INSERTs.

Each step of SQLite drops the interpreter's lock and takes it back, which costs more than the row itself; so rows are
bound 64 at a time, the rest in powers of two, and the SQL texts (few) stay compiled in the connection's cache.
Measured: bench/ledger.py. `write` runs in the writer thread; it only reads the batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Table

from moonpool.later import Later
from moonpool.ledger.entries import Transfer
from moonpool.state import tables
from moonpool.state.base import Deposit
from moonpool.state.tally import TOTALS, Entry, Funds
from moonpool.state.thread import Database

_CHUNK: Final = 64


class Booked(Struct, gc=False, eq=False):
    """A deposit that is not durable yet, and who waits for it."""

    seq: int
    deposit: Deposit
    transfer: Transfer
    answer: Later[None]


class Batch:
    """What was collected while the transaction before it ran. `funds` are the balances it changes; `rows` (of the table
    `balances`, flat) and `totals` are how things stand with it, filled in when it is handed over."""

    __slots__ = ("commit", "deposits", "funds", "held", "resolved", "rows", "totals")

    def __init__(self) -> None:
        self.held: list[Entry] = []
        self.resolved: list[Entry] = []
        self.deposits: list[Booked] = []
        self.funds: set[Funds] = set()
        self.rows: list[Any] = []
        self.totals: tuple[int, ...] = ()
        self.commit = 0

    def empty(self) -> bool:
        return not (self.held or self.resolved or self.deposits)


class Conflict(Exception):
    """Some holds of a batch have ids that the database knows already. Nothing was written."""

    def __init__(self, ids: set[str]) -> None:
        super().__init__(f"{len(ids)} ids are taken")
        self.ids = ids


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
            rows = _CHUNK if left >= _CHUNK else 1 << (left.bit_length() - 1)
            end = start + rows * columns
            cursor.execute(texts[rows], values[start:end])
            start = end
            left -= rows


_HOLDS: Final = _Insert(tables.holds, tables.insert_text)
_RESOLUTIONS: Final = _Insert(tables.resolutions, tables.insert_text)
_TRANSFERS: Final = _Insert(tables.transfers, tables.insert_text)
_DEPOSITS: Final = _Insert(tables.deposits, tables.insert_text)
_BALANCES: Final = _Insert(tables.balances, tables.upsert_text)

_TOTALS: Final = f"UPDATE totals SET {', '.join(f'{name} = ?' for name in TOTALS)} WHERE id = 1"


def write(database: Database, batch: Batch) -> None:
    """Make a batch durable, whole or not at all. Raises Conflict, or what SQLite raises."""
    cursor = database.cursor
    try:
        cursor.execute("BEGIN IMMEDIATE")
        transfers: list[Any] = []
        if batch.held:
            _HOLDS.run(cursor, _hold_rows(batch.held))
        if batch.resolved:
            _RESOLUTIONS.run(cursor, _resolution_rows(batch.resolved, transfers))
        if batch.deposits:
            _DEPOSITS.run(cursor, _deposit_rows(batch.deposits, transfers))
        if transfers:
            _TRANSFERS.run(cursor, transfers)
        if batch.rows:
            _BALANCES.run(cursor, batch.rows)
        cursor.execute(_TOTALS, batch.totals)
        cursor.execute("COMMIT")
    except sqlite3.Error as error:
        database.rest()
        if isinstance(error, sqlite3.IntegrityError):
            taken = _taken(cursor, [entry.hold.id for entry in batch.held])
            if taken:
                raise Conflict(taken) from None
        elif _landed(cursor, batch.commit):
            return
        raise
    database.commits += 1
    database.rows += len(batch.held) + len(batch.resolved)


def _hold_rows(entries: list[Entry]) -> list[Any]:
    rows: list[Any] = []
    for entry in entries:
        hold = entry.hold
        rows += (
            entry.seq,
            hold.id,
            hold.account,
            hold.key,
            hold.model,
            hold.host,
            hold.amount_pico,
            hold.currency,
            hold.created_at,
            hold.expires_at,
            1,
        )
    return rows


def _resolution_rows(entries: list[Entry], transfers: list[Any]) -> list[Any]:
    rows: list[Any] = []
    for entry in entries:
        resolution: Any = entry.resolution
        usage = resolution.usage
        rows += (
            entry.seq,
            resolution.kind,
            usage.prompt_miss,
            usage.prompt_hit,
            usage.completion,
            usage.reasoning,
            usage.estimated,
            resolution.owed_pico,
            resolution.cost_pico,
            resolution.host,
            resolution.cause,
            resolution.attempts,
            resolution.resolved_at,
            usage.searches,
            "" if resolution.price is None else resolution.price.version,
        )
        for transfer in entry.transfers:
            transfers += _transfer_row(entry.seq, transfer)
    return rows


def _deposit_rows(booked: list[Booked], transfers: list[Any]) -> list[Any]:
    rows: list[Any] = []
    for each in booked:
        deposit = each.deposit
        rows += (
            each.seq,
            deposit.id,
            deposit.account,
            deposit.fund,
            deposit.amount_pico,
            deposit.currency,
            deposit.note,
            deposit.created_at,
        )
        transfers += _transfer_row(each.seq, each.transfer)
    return rows


def _transfer_row(seq: int, transfer: Transfer) -> tuple[Any, ...]:
    return (seq, transfer.leg, transfer.debit, transfer.credit, transfer.amount_pico, transfer.currency)


def _taken(cursor: sqlite3.Cursor, ids: list[str]) -> set[str]:
    """Which of these ids have a hold. Only asked when the unique constraint struck, which costs nothing otherwise."""
    found = (cursor.execute("SELECT id FROM holds WHERE id = ?", (each,)).fetchone() for each in ids)
    return {row[0] for row in found if row is not None}


def _landed(cursor: sqlite3.Cursor, commit: int) -> bool:
    """Is a commit that reported an error durable all the same? The database itself is asked, where it still answers."""
    try:
        row = cursor.execute("SELECT commits FROM totals WHERE id = 1").fetchone()
    except sqlite3.Error:
        return False
    return row is not None and row[0] == commit
