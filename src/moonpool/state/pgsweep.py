"""What any node does for all, once: ends the holds of nodes that are gone, settles the hours of accounts on credit.

Both are jobs of the books' thread, and lock what they find, so that of several nodes one acts.
"""

from __future__ import annotations

from typing import Any, Final

from moonpool.ledger.funds import Funds
from moonpool.state import booking, nodes, pgask, pgtext, reading, rows
from moonpool.state.pglink import Link, PgDatabase
from moonpool.state.pgwrite import PgWriter
from moonpool.state.tally import Entry

SETTLED_AT_ONCE: Final = 200
"""Accounts of one transaction: their balances are locked until its end."""


def recover(writer: PgWriter, kind: Any, now: float, until: float, database: PgDatabase) -> int:
    """End what nodes that are gone left open, as far as it was to expire by `until`; each node's holds in one
    transaction. Returns how many."""
    writer.settle_unknown(database)
    count = node = 0
    while True:
        with database.engine.begin() as connection:
            link = database.link
            dead = link.execute(nodes.DEAD, (node, writer.node)).fetchone()
            if dead is None:
                return count
            node = dead[0]
            left = reading.unresolved(connection, dead[1], node)
            late = [entry for entry in left if entry.hold.expires_at <= until]
            if late:
                _end(writer, late, kind, now, link)
                count += len(late)
            if len(late) == len(left):
                link.execute(nodes.BURY, (node,))


def _end(writer: PgWriter, late: list[Entry], kind: Any, now: float, link: Link) -> None:
    places: set[pgask.Place] = set()
    wanted: set[pgask.Span] = set()
    for entry in late:
        writer.credit(entry)
        pgask.touch(entry, places, wanted)
    decided = pgask.new(writer.read(places, wanted, 0, link))
    for entry in late:
        decided.tally.resolve(entry, rows.recovered(entry.hold, entry.progress, kind, now))
    decided.resolved = late
    writer.write(decided, (), link)


def settle(writer: PgWriter, now: float, database: PgDatabase) -> int:
    """Take what was used on credit before this hour from what was topped up. Returns for how many accounts."""
    writer.settle_unknown(database)
    count, place = 0, ("", "")
    while True:
        with database.engine.begin():
            link = database.link
            owing = [Funds(*row) for row in link.execute(pgtext.OWING, (*place, SETTLED_AT_ONCE)).fetchall()]
            if not owing:
                return count
            place = (owing[-1].account, owing[-1].currency)
            accounts = pgtext.texts([funds.account for funds in owing])
            settled = {(row[0], row[1]): row[2] for row in link.execute(pgtext.SETTLED, (accounts,)).fetchall()}
            decided = pgask.new(writer.read(set(), set(), len(owing), link))
            decided.tally.funds = {(funds.account, funds.currency): funds for funds in owing}
            decided.booked = [each for _, each in booking.settlements(decided.tally, settled, now)]
            if decided.booked:
                writer.write(decided, (), link)
            count += len(decided.booked)
