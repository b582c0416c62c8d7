"""What the books read from a database: packs, holds without a resolution, what was settled, what was booked before.

Core only: both databases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Row, Table, exists, func, select

from moonpool.ledger.funds import Funds, Holding, Pack, Spent
from moonpool.state import tables
from moonpool.state.base import Hold, Progress
from moonpool.state.rows import price_of
from moonpool.state.tally import TOTALS, Entry
from moonpool.state.thread import Database
from moonpool.words import Usage


class Memory(Struct):
    """What the books take over from a database: totals, balances and packs, what keys spent, and the holds without a
    resolution with all they set aside; and the hours that were settled."""

    totals: dict[str, int]
    funds: list[Funds]
    holdings: list[Holding]
    spent: list[Spent]
    unresolved: list[Entry]
    settled: dict[tuple[str, str], int]


def load(connection: Connection) -> Memory:
    """Read it. Looks for open holds only where they can be."""
    totals = dict(connection.execute(select(tables.totals)).mappings().one())
    funds = [Funds(*row) for row in connection.execute(select(tables.balances))]
    return Memory(
        {name: totals[name] for name in TOTALS},
        funds,
        holdings(connection),
        [Spent(*row) for row in connection.execute(select(tables.spent))],
        unresolved(connection, totals["first_open"]),
        settled(connection, funds),
    )


def holdings(connection: Connection) -> list[Holding]:
    """Packs that are not used up, or of which units are set aside."""
    packs, balances = tables.packs, tables.pack_balances
    wanted = (
        select(packs, balances.c.used, balances.c.held)
        .join(balances, balances.c.pack == packs.c.id)
        .where((balances.c.used < packs.c.units) | (balances.c.held > 0))
    )
    return [Holding(Pack(*row[1:-2]), row[-2], row[-1]) for row in connection.execute(wanted)]


def unresolved(connection: Connection, first_open: int, node: int | None = None) -> list[Entry]:
    """Open holds with a number from `first_open` on, of one node or of all, with what they set aside and how far they
    had come. In the order of their numbers."""
    holds, resolutions = tables.holds, tables.resolutions
    resolved = exists().where(resolutions.c.hold_seq == holds.c.seq)
    wanted = select(holds).where(holds.c.seq >= first_open, ~resolved).order_by(holds.c.seq)
    if node is not None:
        wanted = wanted.where(holds.c.node == node)
    found = [_entry(row) for row in connection.execute(wanted)]
    if not found:
        return []
    by_seq = {entry.seq: entry for entry in found}
    first = found[0].seq
    reservations, progress = tables.reservations, tables.progress
    for row in connection.execute(select(reservations).where(reservations.c.seq >= first)):
        entry = by_seq.get(row.seq)
        if entry is not None:
            kind, _, what = row.what.partition(":")
            if kind == "pack":
                entry.units += ((what, row.units),)
            else:
                entry.spans += ((kind, int(what)),)
    for row in connection.execute(select(progress).where(progress.c.hold_seq >= first)):
        if row.hold_seq in by_seq:
            by_seq[row.hold_seq].progress = _progress(row, by_seq[row.hold_seq].hold.id)
    return found


def _entry(row: Row[Any]) -> Entry:
    values: tuple[Any, ...] = tuple(row)
    hold = Hold(*values[1:10])
    return Entry(row.seq, hold, False, hold.amount_pico)


def _progress(row: Row[Any], hold_id: str) -> Progress:
    usage = Usage(row.prompt_miss, row.prompt_hit, row.completion, row.reasoning, estimated=True)
    price = price_of(row.price)
    return Progress(hold_id, usage, row.owed_pico, row.cost_pico, row.host, row.cost_currency, price, row.at)


def settled(connection: Connection, known: Iterable[Funds]) -> dict[tuple[str, str], int]:
    """(account, currency) -> the last hour that was settled, of those that use credit."""
    rows = tables.settlements
    found = {}
    for funds in known:
        wanted = select(func.max(rows.c.hour)).where(rows.c.account == funds.account, rows.c.currency == funds.currency)
        hour = connection.execute(wanted).scalar()
        if hour is not None:
            found[funds.account, funds.currency] = hour
    return found


def is_booked(table: Table, booking_id: str, database: Database) -> bool:
    """Is there a deposit, or a pack, with this id?"""
    with database.engine.connect() as connection:
        return connection.execute(select(table.c.seq).where(table.c.id == booking_id)).first() is not None
