"""How other processes over the same database learn that something they go by changed: a number for each kind of change.

Rule: whoever changes rows of what is counted here counts up in the same transaction, so that a process which reads a
number it does not know has read after the change.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, text

from moonpool.state import tables

KEYS: Final = "keys"
ACCOUNTS: Final = "accounts"
PEOPLE: Final = "people"
OVERRIDES: Final = "overrides"
CATALOGUE: Final = "catalogue"

# The row is there or not: one statement for both, in words that SQLite and PostgreSQL share.
_COUNT_UP: Final = text(
    "INSERT INTO changes (what, revision) VALUES (:what, 1) "
    "ON CONFLICT (what) DO UPDATE SET revision = changes.revision + 1"
)


def count_up(connection: Connection, what: str) -> None:
    """Last in a transaction: on PostgreSQL it holds the row's lock until the end."""
    connection.execute(_COUNT_UP, {"what": what})


def revisions(connection: Connection) -> dict[str, int]:
    """What is not there never changed."""
    return {row.what: row.revision for row in connection.execute(select(tables.changes))}
