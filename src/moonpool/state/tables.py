"""What the database looks like: every table (in tables_*.py), and the SQL text of the busiest inserts."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Table

from moonpool.state.columns import metadata
from moonpool.state.tables_books import (
    balances,
    deposits,
    holds,
    pack_balances,
    packs,
    progress,
    reservations,
    resolutions,
    settlements,
    spent,
    totals,
    transfers,
    usage,
)
from moonpool.state.tables_kept import alerts, audit, codes, deliveries, once, thought_marks, thoughts
from moonpool.state.tables_people import (
    accounts,
    catalogue_rows,
    changes,
    keys,
    members,
    overrides,
    product_switches,
    tokens,
    users,
)

__all__ = [
    "REVISION",
    "accounts",
    "adding_text",
    "alerts",
    "audit",
    "balances",
    "catalogue_rows",
    "changes",
    "codes",
    "deliveries",
    "deposits",
    "holds",
    "insert_text",
    "keys",
    "members",
    "metadata",
    "once",
    "overrides",
    "pack_balances",
    "packs",
    "product_switches",
    "progress",
    "reservations",
    "resolutions",
    "settlements",
    "spent",
    "thought_marks",
    "thoughts",
    "tokens",
    "totals",
    "transfers",
    "upsert_text",
    "usage",
    "users",
]

REVISION: Final = "0004"
"""The newest migration in migrations/versions: what this program reads and writes."""


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


def adding_text(table: Table, rows: int) -> str:
    """As `insert_text`, but to a row that is there already the values are added."""
    key = ", ".join(column.name for column in table.primary_key)
    sets = ", ".join(
        f"{c.name} = {table.name}.{c.name} + excluded.{c.name}" for c in table.columns if not c.primary_key
    )
    return f"{insert_text(table, rows)} ON CONFLICT ({key}) DO UPDATE SET {sets}"
