"""SQL texts of the books over PostgreSQL, and rows as they are bound to them: one array for each column.

A statement writes any number of rows, so there are few of them and each is planned once for a connection. Arrays are
written here as the text of their literals, because psycopg's dumping of Python lists costs ten times as much (measured:
bench/ledger.py --store postgresql://...). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Boolean, Float, Integer, Table

from moonpool.state import tables
from moonpool.state.tally import TOTALS

_NUL: Final = "\x00"
_REPLACED: Final = "\ufffd"
_FEW: Final = 3
"""So many rows are bound value by value: an array for each column costs PostgreSQL more than what it holds then."""


def numbers(values: Sequence[Any]) -> str:
    """The literal of an array of whole numbers (truths count 1 and 0)."""
    joined = ",".join(map(str, values))
    if "e" in joined:
        joined = ",".join(str(int(value)) for value in values)
    return f"{{{joined}}}"


def plain(values: Sequence[Any]) -> str:
    """The literal of an array of floats or truths."""
    return f"{{{','.join(map(str, values))}}}"


def texts(values: Sequence[str]) -> str:
    """The literal of an array of texts. What PostgreSQL cannot keep (U+0000, halves of surrogates) is replaced."""
    if not values:
        return "{}"
    joined = '","'.join(values)
    if joined.count('"') != 2 * len(values) - 2 or "\\" in joined or _NUL in joined or not joined.isascii():
        joined = '","'.join(map(_quoted, values))
    return f'{{"{joined}"}}'


def scalar(value: Any) -> Any:
    """What is bound by itself, as it is in an array."""
    if type(value) is not str:
        return int(value) if value is True or value is False else value
    if value.isascii() and _NUL not in value:
        return value
    return value.replace(_NUL, _REPLACED).encode("utf-8", "replace").decode()


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace(_NUL, _REPLACED)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _kind(column: Any) -> str:
    if isinstance(column.type, Boolean):
        return "bool"
    if isinstance(column.type, Float):
        return "float8"
    if isinstance(column.type, JSON):
        return "json"
    if isinstance(column.type, BigInteger):
        return "int8"
    return "int4" if isinstance(column.type, Integer) else "text"


_LITERALS: Final[dict[str, Callable[[Sequence[Any]], str]]] = {
    "text": texts,
    "json": texts,
    "int8": numbers,
    "int4": numbers,
    "float8": plain,
    "bool": plain,
}


class Rows:
    """Writes rows of one table; `values` are flat, in the order of the table's columns."""

    def __init__(self, table: Table, ending: str = "") -> None:
        kinds = [_kind(column) for column in table.columns]
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
        into = f'INSERT INTO "{table.name}" ({names}) SELECT * FROM'
        self._text = f"{into} unnest({arrays}){ending}"
        row = f"({', '.join(f'%s::{kind}' for kind in kinds)})"
        self._few = [f"{into} (VALUES {', '.join([row] * count)}) w{ending}" for count in range(1, _FEW + 1)]
        self._literals = [_LITERALS[kind] for kind in kinds]

    def statement(self, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """SQL that writes these, at least one, and what is bound to it."""
        columns = len(self._literals)
        few = len(values) // columns
        if few <= _FEW:
            return self._few[few - 1], list(map(scalar, values))
        return self._text, [literal(values[at::columns]) for at, literal in enumerate(self._literals)]


def _upsert(table: Table, adding: bool = False) -> str:
    key = ", ".join(f'"{column.name}"' for column in table.primary_key)
    before = f'"{table.name}".' if adding else ""
    sets = ", ".join(
        f'"{c.name}" = {before}"{c.name}" + excluded."{c.name}"' if adding else f'"{c.name}" = excluded."{c.name}"'
        for c in table.columns
        if not c.primary_key
    )
    # In the order of the key, so that two nodes never wait for each other.
    order = ", ".join(str(at) for at, c in enumerate(table.columns, 1) if c.primary_key)
    return f" ORDER BY {order} ON CONFLICT ({key}) DO UPDATE SET {sets}"


HOLDS: Final = Rows(tables.holds)
RESERVATIONS: Final = Rows(tables.reservations)
RESOLUTIONS: Final = Rows(tables.resolutions)
TRANSFERS: Final = Rows(tables.transfers)
BALANCES: Final = Rows(tables.balances, _upsert(tables.balances))
PACK_BALANCES: Final = Rows(tables.pack_balances, _upsert(tables.pack_balances))
SPENT: Final = Rows(tables.spent, _upsert(tables.spent))
USAGE: Final = Rows(tables.usage, _upsert(tables.usage, adding=True))
PROGRESS: Final = Rows(tables.progress, _upsert(tables.progress))
BOOKED: Final = {
    "deposits": Rows(tables.deposits),
    "packs": Rows(tables.packs),
    "settlements": Rows(tables.settlements),
}

# Rows are locked in the order of their keys, so that two nodes never wait for each other.
NEW_BALANCES: Final = (
    "INSERT INTO balances (account, currency, granted_pico, topped_up_pico, held_pico) "
    "SELECT a, c, 0, 0, 0 FROM unnest(%s::text[], %s::text[]) AS w(a, c) ORDER BY a, c ON CONFLICT DO NOTHING"
)
LOCKED_BALANCES: Final = (
    "SELECT account, currency, granted_pico, topped_up_pico, held_pico, post_paid_pico FROM balances "
    "WHERE (account, currency) IN (SELECT * FROM unnest(%s::text[], %s::text[])) ORDER BY account, currency FOR UPDATE"
)
LOCKED_PACKS: Final = (
    "SELECT p.id, p.account, p.kind, p.product, p.unit, p.units, p.note, p.bought_at, p.expires_at, b.used, b.held "
    "FROM packs p JOIN pack_balances b ON b.pack = p.id "
    "WHERE p.account = ANY (%s::text[]) AND (b.used < p.units OR b.held > 0) ORDER BY p.id FOR UPDATE OF b"
)
NEW_SPENT: Final = (
    "INSERT INTO spent (key_id, currency, span, start, spent_pico, held_pico) "
    "SELECT k, c, s, f, 0, 0 FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[]) AS w(k, c, s, f) "
    "ORDER BY k, c, s, f ON CONFLICT DO NOTHING"
)
LOCKED_SPENT: Final = (
    "SELECT key_id, currency, span, start, spent_pico, held_pico FROM spent WHERE (key_id, currency, span, start) "
    "IN (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[])) "
    "ORDER BY key_id, currency, span, start FOR UPDATE"
)
OWING: Final = (
    "SELECT account, currency, granted_pico, topped_up_pico, held_pico, post_paid_pico FROM balances "
    "WHERE post_paid_pico < 0 AND (account, currency) > (%s, %s) ORDER BY account, currency LIMIT %s FOR UPDATE"
)
SETTLED: Final = (
    "SELECT account, currency, max(hour) FROM settlements WHERE account = ANY (%s::text[]) GROUP BY account, currency"
)
FORGET: Final = "DELETE FROM progress WHERE hold_seq = ANY (%s::int8[])"
TAKEN_HOLDS: Final = "SELECT id FROM holds WHERE id = ANY (%s::text[])"
TAKEN_RESOLUTIONS: Final = "SELECT hold_seq FROM resolutions WHERE hold_seq = ANY (%s::int8[])"
BLOCK: Final = "SELECT nextval('blocks')"

_COUNTS: Final = TOTALS[3:]
MINE: Final = "SELECT 1 FROM totals WHERE id = %s AND name = %s FOR UPDATE"
COUNT: Final = (
    "UPDATE totals SET commits = %s, last_seq = greatest(last_seq, %s), first_open = %s, "
    + ", ".join(f"{name} = {name} + %s" for name in _COUNTS)
    + ", seen_at = extract(epoch FROM clock_timestamp()) WHERE id = %s"
)
"""`commits` is what tells whether a transaction landed whose end nobody saw."""
SUMS: Final = f"SELECT {', '.join(f'sum({name})::int8' for name in _COUNTS)} FROM totals"
COUNTS: Final = _COUNTS
