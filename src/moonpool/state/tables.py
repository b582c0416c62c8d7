"""What the database looks like: tables as SQLAlchemy Core metadata, and the SQL text of the busiest inserts.

Rules: rows of `holds`, `resolutions`, `transfers` and `deposits` are written once and never changed. `balances` and
`totals` are derived from them, written in the same transaction, and can be computed anew from them at any time.

A hold has a number, `seq`, besides its id: resolutions and transfers then hang on an integer, which is the cheapest
key SQLite has, and all that may still be open lies in one range of it (`totals.first_open`).

Amounts are pico-units (10^-12) of the row's currency, times Unix seconds.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

REVISION: Final = "0002"
"""The newest migration in migrations/versions: what this program reads and writes."""

_INTEGER = BigInteger().with_variant(Integer, "sqlite")

metadata: Final = MetaData()

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("post_paid", Boolean, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

keys: Final = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("switches", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("deleted_at", Float),
)

holds: Final = Table(
    "holds",
    metadata,
    Column("seq", _INTEGER, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("amount_pico", _INTEGER, nullable=False),
    Column("currency", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

resolutions: Final = Table(
    "resolutions",
    metadata,
    Column("hold_seq", _INTEGER, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("prompt_miss", _INTEGER, nullable=False),
    Column("prompt_hit", _INTEGER, nullable=False),
    Column("completion", _INTEGER, nullable=False),
    Column("reasoning", _INTEGER, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("owed_pico", _INTEGER, nullable=False),
    Column("cost_pico", _INTEGER, nullable=False),
    Column("host", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("resolved_at", Float, nullable=False),
)

transfers: Final = Table(
    "transfers",
    metadata,
    Column("seq", _INTEGER, primary_key=True, autoincrement=False),
    Column("leg", Integer, primary_key=True, autoincrement=False),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("amount_pico", _INTEGER, nullable=False),
    Column("currency", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""`seq` is that of the hold or deposit whose transfer it is."""

deposits: Final = Table(
    "deposits",
    metadata,
    Column("seq", _INTEGER, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("fund", Text, nullable=False),
    Column("amount_pico", _INTEGER, nullable=False),
    Column("currency", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

balances: Final = Table(
    "balances",
    metadata,
    Column("account", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("granted_pico", _INTEGER, nullable=False),
    Column("topped_up_pico", _INTEGER, nullable=False),
    Column("held_pico", _INTEGER, nullable=False),
    sqlite_with_rowid=False,
)

totals: Final = Table(
    "totals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("commits", _INTEGER, nullable=False),
    Column("last_seq", _INTEGER, nullable=False),
    Column("first_open", _INTEGER, nullable=False),
    Column("holds", _INTEGER, nullable=False),
    Column("posted", _INTEGER, nullable=False),
    Column("voided", _INTEGER, nullable=False),
    Column("expired", _INTEGER, nullable=False),
    Column("recovered", _INTEGER, nullable=False),
    Column("prompt_miss", _INTEGER, nullable=False),
    Column("prompt_hit", _INTEGER, nullable=False),
    Column("completion", _INTEGER, nullable=False),
    Column("reasoning", _INTEGER, nullable=False),
)
"""One row, id 1. `commits` counts transactions of the books; every open hold has a seq from `first_open` on, and no seq
beyond `last_seq` was given out."""

thoughts: Final = Table(
    "thoughts",
    metadata,
    Column("seq", _INTEGER, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("marks", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("thoughts_of_account", "account", "seq"),
    Index("thoughts_by_end", "expires_at"),
)
"""Sealed with a key that is not in here (sealing.py); `marks` are all of its marks, joined; `bytes` what it takes."""

thought_marks: Final = Table(
    "thought_marks",
    metadata,
    Column("mark", LargeBinary, primary_key=True),
    Column("seq", _INTEGER, nullable=False),
    Column("shared", Boolean, nullable=False),
    Index("thought_marks_of", "seq"),
    sqlite_with_rowid=False,
)
"""Which thought a mark finds; `shared`: several had it, so it finds none."""


def insert_text(table: Table, rows: int) -> str:
    """INSERT of so many rows as text for the driver: the request path binds plain lists to it, because a statement
    through SQLAlchemy costs three times as much. Made from the table, so it cannot differ from it."""
    one = f"({','.join('?' * len(table.columns))})"
    names = ", ".join(column.name for column in table.columns)
    return f"INSERT INTO {table.name} ({names}) VALUES {','.join([one] * rows)}"


def upsert_text(table: Table, rows: int) -> str:
    """As `insert_text`, but a row that is there already (by primary key) is replaced."""
    key = ", ".join(column.name for column in table.primary_key)
    sets = ", ".join(f"{c.name} = excluded.{c.name}" for c in table.columns if not c.primary_key)
    return f"{insert_text(table, rows)} ON CONFLICT ({key}) DO UPDATE SET {sets}"
