"""Rows of keys, accounts and product switches: how they are read, and each change as one transaction.

Rules:
- Every change is a job of the thread that owns the database, `change(…, database)`; it runs over SQLite and PostgreSQL
  alike, answers what became of it, and counts up `changes` where something did (changes.py).
- A deleted key stays with its digest: neither its id nor its text can ever come back.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, bindparam, insert, null, or_, select, update
from sqlalchemy.exc import IntegrityError

from moonpool.state import changes, tables
from moonpool.state.base import SWITCH_S
from moonpool.state.thread import Database
from moonpool.words import Account, Key, Limits

_NO_LIMITS: Final[dict[str, Any]] = msgspec.to_builtins(Limits())

Made = Literal["made", "exists"]
Rotated = Literal["rotated", "exists", "unknown"]


class Kept(Struct, frozen=True):
    """A key that is not deleted. `old_digest` is good until `old_until`, None for a key that was never rotated."""

    key: Key
    digest: bytes
    old_digest: bytes | None = None
    old_until: float = 0.0


class Known(Struct):
    """What the keys' side takes over from a database: accounts, and the keys that are not deleted with digests."""

    accounts: list[Account]
    keys: list[Kept]


def load(connection: Connection) -> Known:
    off: dict[str, set[str]] = {}
    switches = tables.product_switches
    for row in connection.execute(select(switches.c.account, switches.c.product).where(switches.c.on.is_(False))):
        off.setdefault(row.account, set()).add(row.product)
    accounts = connection.execute(select(tables.accounts).order_by(tables.accounts.c.created_at, tables.accounts.c.id))
    alive = connection.execute(select(tables.keys).where(tables.keys.c.deleted_at.is_(None)))
    return Known([_account(row, off) for row in accounts], [_kept(row) for row in alive])


def _account(row: Any, off: dict[str, set[str]]) -> Account:
    return Account(
        row.id,
        row.name,
        row.post_paid,
        row.concurrency,
        row.credit_pico,
        row.disabled,
        row.requests_per_minute,
        row.tokens_per_minute,
        frozenset(off.get(row.id, ())),
    )


def _kept(row: Any) -> Kept:
    limits = None if row.limits is None else msgspec.convert(row.limits, Limits)
    key = Key(row.id, row.account, row.name, row.created_at, row.last_used_at, row.switches, limits)
    return Kept(key, row.digest, row.old_digest, row.old_until or 0.0)


def _settings(key: Key) -> dict[str, Any]:
    """The columns of a key that may be changed. Of its limits only those that are set are written."""
    limits: Any = null()
    if key.limits is not None:
        said = {name: value for name, value in msgspec.to_builtins(key.limits).items() if value != _NO_LIMITS[name]}
        limits = {name: sorted(value) if name == "models" else value for name, value in said.items()}
    return {"name": key.name, "switches": dict(key.switches), "limits": limits}


def _is_taken(connection: Connection, digest: bytes) -> bool:
    keys = tables.keys
    found = connection.execute(select(keys.c.id).where(or_(keys.c.digest == digest, keys.c.old_digest == digest)))
    return found.first() is not None


def insert_key(key: Key, digest: bytes, database: Database) -> Made:
    row = {
        "id": key.id,
        "digest": digest,
        "account": key.account,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        **_settings(key),
    }
    try:
        with database.engine.begin() as connection:
            if _is_taken(connection, digest):
                return "exists"
            connection.execute(insert(tables.keys).values(row))
            changes.count_up(connection, changes.KEYS)
    except IntegrityError:
        return "exists"
    return "made"


def change_key(key: Key, database: Database) -> bool:
    """Its name, switches and limits."""
    keys = tables.keys
    with database.engine.begin() as connection:
        statement = update(keys).where(keys.c.id == key.id, keys.c.deleted_at.is_(None)).values(_settings(key))
        if connection.execute(statement).rowcount != 1:
            return False
        changes.count_up(connection, changes.KEYS)
    return True


def rotate_key(key_id: str, digest: bytes, old_until: float, database: Database) -> Rotated:
    keys = tables.keys
    statement = (
        update(keys)
        .where(keys.c.id == key_id, keys.c.deleted_at.is_(None))
        .values(digest=digest, old_digest=keys.c.digest, old_until=old_until)
    )
    try:
        with database.engine.begin() as connection:
            if _is_taken(connection, digest):
                return "exists"
            if connection.execute(statement).rowcount != 1:
                return "unknown"
            changes.count_up(connection, changes.KEYS)
    except IntegrityError:
        return "exists"
    return "rotated"


def delete_key(key_id: str, now: float, database: Database) -> bool:
    keys = tables.keys
    with database.engine.begin() as connection:
        statement = update(keys).where(keys.c.id == key_id, keys.c.deleted_at.is_(None)).values(deleted_at=now)
        if connection.execute(statement).rowcount != 1:
            return False
        changes.count_up(connection, changes.KEYS)
    return True


def ever(account: str, database: Database) -> bool:
    with database.engine.connect() as connection:
        return connection.execute(select(tables.keys.c.id).where(tables.keys.c.account == account)).first() is not None


def save_account(account: Account, now: float, database: Database) -> Made:
    """Make it, or change the one with this id; its products are switched by `switch_product` alone. `exists`: there is
    another one with this name."""
    accounts = tables.accounts
    settings = {
        "name": account.name,
        "post_paid": account.post_paid,
        "concurrency": account.concurrency,
        "credit_pico": account.credit_pico,
        "disabled": account.disabled,
        "requests_per_minute": account.requests_per_minute,
        "tokens_per_minute": account.tokens_per_minute,
    }
    for _ in range(2):
        try:
            with database.engine.begin() as connection:
                changed = connection.execute(update(accounts).where(accounts.c.id == account.id).values(settings))
                if changed.rowcount == 0:
                    connection.execute(insert(accounts), {"id": account.id, "created_at": now, **settings})
                changes.count_up(connection, changes.ACCOUNTS)
        except IntegrityError:
            continue  # perhaps another process made this very account meanwhile: then there is something to change now
        return "made"
    return "exists"


def switch_product(account: str, product: str, on: bool, now: float, database: Database) -> float | None:
    """None: it is as wanted. Else the moment from which it may be switched again."""
    switches = tables.product_switches
    its = (switches.c.account == account, switches.c.product == product)
    turn = update(switches).where(*its, switches.c.on.is_(not on), switches.c.changed_at <= now - SWITCH_S)
    row = {"account": account, "product": product, "on": on, "changed_at": now}
    try:
        with database.engine.begin() as connection:
            if connection.execute(turn.values(on=on, changed_at=now)).rowcount != 1:
                there = connection.execute(select(switches).where(*its)).first()
                if on if there is None else there.on is on:
                    return None  # what was never switched is on
                if there is not None:
                    return float(there.changed_at) + SWITCH_S
                connection.execute(insert(switches).values(row))
            changes.count_up(connection, changes.ACCOUNTS)
    except IntegrityError:  # another process switched it for the first time, just now
        return now + SWITCH_S
    return None


def write_used(table: Table, used: dict[str, float], database: Database) -> None:
    """When keys, or tokens, were last used. Nobody's rights change with that."""
    statement = update(table).where(table.c.id == bindparam("row")).values(last_used_at=bindparam("at"))
    with database.engine.begin() as connection:
        connection.execute(statement, [{"row": row_id, "at": at} for row_id, at in used.items()])
