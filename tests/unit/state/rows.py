"""Rows of a ledger made by hand, through plain sqlite3: for tests of what reads them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HOUR = 3600
DAY = 86_400
NOVEMBER = 1_793_462_400
"""2026-11-01 00:00 in Beijing."""

_USAGE = {
    "account": "acme",
    "key_id": "k1",
    "model": "m1",
    "host": "h1",
    "currency": "CNY",
    "cost_currency": "CNY",
    "requests": 1,
    "posted": 1,
    "estimated": 0,
    "prompt_miss": 10,
    "prompt_hit": 5,
    "completion": 7,
    "reasoning": 2,
    "searches": 0,
    "pack_units": 0,
    "owed_pico": 100,
    "granted_pico": 0,
    "topped_up_pico": 100,
    "cost_pico": 60,
}


def insert(path: Path, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for row in rows:
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
    connection.close()


def used(at: int, **more: Any) -> list[dict[str, Any]]:
    """What the books write for a call that ended at `at`: its hour and its day in Beijing, added to nothing."""
    hour, day = at // HOUR * HOUR, (at + 8 * HOUR) // DAY * DAY - 8 * HOUR
    return [{"span": span, "start": start, **_USAGE, **more} for span, start in (("hour", hour), ("day", day))]


def summed(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `usage`, those with one key added up."""
    keys = ("span", "start", "account", "key_id", "model", "host", "currency", "cost_currency")
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        place = tuple(row[name] for name in keys)
        known = sums.get(place)
        sums[place] = dict(row) if known is None else {n: v if n in keys else v + row[n] for n, v in known.items()}
    return list(sums.values())


def call(seq: int, at: float, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A hold and its resolution, two seconds later."""
    hold = {
        "seq": seq,
        "id": f"id-{seq}",
        "account": "acme",
        "key_id": "k1",
        "model": "m1",
        "host": "h1",
        "amount_pico": 500,
        "currency": "CNY",
        "created_at": at,
        "expires_at": at + 60,
    }
    end = {
        "hold_seq": seq,
        "kind": "posted",
        "prompt_miss": 10,
        "prompt_hit": 5,
        "completion": 7,
        "reasoning": 2,
        "estimated": False,
        "owed_pico": 100,
        "cost_pico": 60,
        "host": "h1",
        "cause": "stop",
        "attempts": 1,
        "resolved_at": at + 2,
    }
    for name, value in more.items():
        (hold if name in hold else end)[name] = value
    return hold, end
