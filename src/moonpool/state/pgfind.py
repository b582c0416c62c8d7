"""What the database knows already: asked where something went wrong, or is not of this node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from msgspec import Struct

from moonpool.state import pgtext, reading
from moonpool.state.pgask import ENDED, Decided
from moonpool.state.pglink import Link, PgDatabase
from moonpool.state.tally import Entry

_END_MS: Final = 1500
_END_BACKEND: Final = (
    "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity "
    "WHERE pid = %s AND application_name = %s AND pid <> pg_backend_pid()"
)
_TAKEN_BOOKED: Final = (
    "SELECT id FROM deposits WHERE id = ANY (%s::text[]) UNION ALL SELECT id FROM packs WHERE id = ANY (%s::text[])"
)
_HOLDS: Final = (
    "SELECT h.id, h.seq, r.hold_seq FROM holds h LEFT JOIN resolutions r ON r.hold_seq = h.seq WHERE h.id = ANY (%s)"
)


class Taken(Struct, frozen=True):
    """Ids of holds that exist, of holds that have their resolution, of deposits and packs that exist."""

    held: set[str]
    resolved: set[str]
    booked: set[str]


def taken(decided: Decided, names: Sequence[str], link: Link) -> Taken:
    """What of this exists already; `names` are the ids of deposits and packs."""
    ids = pgtext.texts([entry.hold.id for entry in decided.held])
    seqs = pgtext.numbers([entry.seq for entry in decided.resolved])
    held = {row[0] for row in link.execute(pgtext.TAKEN_HOLDS, (ids,))}
    ended = {row[0] for row in link.execute(pgtext.TAKEN_RESOLUTIONS, (seqs,))}
    booked = {row[0] for row in link.execute(_TAKEN_BOOKED, [pgtext.texts(names)] * 2)}
    link.rollback()
    return Taken(held, {entry.hold.id for entry in decided.resolved if entry.seq in ended}, booked)


def holds(ids: list[str], database: PgDatabase) -> dict[str, Entry]:
    """Holds by id, as they stand: ENDED, or all that an open one sets aside."""
    found = {}
    with database.engine.begin() as connection:
        known = connection.exec_driver_sql(_HOLDS, (ids,)).all()
        wanted = {row[1] for row in known if row[2] is None}
        found = {row[0]: ENDED for row in known if row[2] is not None}
        if wanted:
            for entry in reading.unresolved(connection, min(wanted)):
                if entry.seq in wanted:
                    found[entry.hold.id] = entry
    return found


def end_backend(pid: int, application: str, link: Link) -> None:
    """Make sure that this backend of ours does nothing any more. Raises psycopg.Error while that is not so."""
    ended = link.execute(_END_BACKEND, (_END_MS, pid, application)).fetchone()
    link.rollback()
    if ended is not None and not ended[0]:
        raise psycopg.OperationalError("what became of a transaction is not known yet: its backend does not end")


def landed(node: int, name: str, commit: int, held: list[int], link: Link) -> bool:
    """Was this transaction of a node committed? Its row of `totals` says so while it has it, else the holds do."""
    row = link.execute("SELECT commits, name FROM totals WHERE id = %s", (node,)).fetchone()
    if row is not None and row[1] == name:
        found = bool(row[0] == commit)
    else:
        found = link.execute("SELECT 1 FROM holds WHERE seq = ANY (%s)", (held,)).fetchone() is not None
    link.rollback()
    return found
