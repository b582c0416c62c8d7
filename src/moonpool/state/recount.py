"""Do the books add up? Everything that is derived is computed anew from entries and compared (`moonpool ledger audit`).

Rules:
- One pass over all tables in the order of numbers, so memory is bounded by accounts, packs, keys with limits and the
  hours that are under way, not by calls.
- What is read is one moment: a transaction that only reads. Over a SQLite file it has a connection of its own, opened
  read-only, also while a server runs: the bug of old SQLite for which the server keeps to one connection (thread.py)
  takes two that write or checkpoint, and this one can do neither. While it reads, the log beside the file grows.
- Checked are the invariants of RELIABILITY 4.2 that a ledger shows: I1 (legs sum to zero, balances are sums), I2 (one
  resolution for each hold that is not open), I4 (nothing is left over of what ended), I5 (no debt without credit beyond
  what calls used above their holds), I6 (no hold outlives its time).
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, event, select
from sqlalchemy.pool import StaticPool

from moonpool.errors import Problem
from moonpool.state import tables
from moonpool.state.recount_operations import Operations
from moonpool.state.recount_sums import check_days
from moonpool.state.schema import revision

TELL_EVERY: Final = 200_000
SHOWN: Final = 20
"""So many differences of a kind are told, and how many there are of it."""
_BATCH: Final = 2000

_STREAMS: Final[tuple[tuple[str, Table, str], ...]] = tuple(
    (table.name, table, key)
    for table, key in (
        (tables.holds, "seq"),
        (tables.reservations, "seq"),
        (tables.resolutions, "hold_seq"),
        (tables.progress, "hold_seq"),
        (tables.transfers, "seq"),
        (tables.deposits, "seq"),
        (tables.packs, "seq"),
        (tables.settlements, "seq"),
    )
)


class Differences:
    """What does not add up: sentences, and how many there are in all."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.count = 0
        self._kinds: dict[str, int] = {}

    def __call__(self, kind: str, sentence: str) -> None:
        self.count += 1
        self._kinds[kind] = seen = self._kinds.get(kind, 0) + 1
        if seen <= SHOWN:
            self.said.append(sentence)

    def sentences(self) -> list[str]:
        more = [
            f"There are {seen - SHOWN:,} more differences of this kind: {kind}."
            for kind, seen in self._kinds.items()
            if seen > SHOWN
        ]
        return self.said + more


def sqlite_engine(path: Path) -> Engine:
    """A read-only look at a database file, also at one that is in use. Raises Problem("platform.storage")."""
    if not path.is_file():
        raise Problem("platform.storage", f"There is no database {path}.")

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
        return connection

    engine = create_engine("sqlite://", creator=opened, poolclass=StaticPool, hide_parameters=True)
    # All that is read after this is of one moment.
    event.listen(engine, "begin", lambda transaction: transaction.exec_driver_sql("BEGIN"))
    return engine


def postgres_engine(address: str) -> Engine:
    """The same of a PostgreSQL database; `address` is a URL as libpq reads it."""
    import psycopg  # comes with the extra `many`

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(address), poolclass=StaticPool, hide_parameters=True
    )
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def recount(connection: Connection, now: float, tell: Callable[[str], object]) -> Differences:
    """Compare everything; `tell` hears how far it has come. Raises Problem("platform.storage") for another schema."""
    found = revision(connection)
    if found != tables.REVISION:
        raise Problem(
            "platform.storage",
            f"The database has schema {found}, this program reads {tables.REVISION}: let it start on it once.",
        )
    differ = Differences()
    if connection.dialect.name == "sqlite":
        for row in connection.exec_driver_sql("PRAGMA quick_check").all():
            if row[0] != "ok":
                differ("file", f"The database file is damaged: {row[0]}.")
    books = Operations(connection, now, differ)
    numbers = 0
    for seq, rows in groupby(_merged(connection), itemgetter(0)):
        operation: dict[str, list[Any]] = {}
        for _, name, row in rows:
            operation.setdefault(name, []).append(row)
        books.check(seq, operation)
        numbers += 1
        if numbers % TELL_EVERY == 0:
            tell(f"{numbers:,} operations read")
    books.close()
    tell(f"{numbers:,} operations read; sums of days")
    check_days(connection, differ)
    return differ


def _merged(connection: Connection) -> Iterator[tuple[int, str, Any]]:
    """(number, table, row) of every table, in the order of numbers."""
    return heapq.merge(*(_rows(connection, *each) for each in _STREAMS), key=itemgetter(0))


def _rows(connection: Connection, name: str, table: Table, key: str) -> Iterator[tuple[int, str, Any]]:
    wanted = select(table).order_by(*table.primary_key.columns)
    at = list(table.columns.keys()).index(key)
    for row in connection.execution_options(yield_per=_BATCH).execute(wanted):
        yield row[at], name, row
