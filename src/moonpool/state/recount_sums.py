"""The half of a recount that is about the table `usage`: hours against calls, days against hours.

Hours are compared as they go by. Calls come in the order of their numbers, which is nearly that of time: what they add
up to is set off against an hour's rows when calls are well beyond it, and what is not zero then waits for calls that
ended late. What waits at the end does not add up.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from moonpool.ledger.reports import SUMS
from moonpool.ledger.spans import DAY_S, HOUR_S, ZONE, day_of, hour_of
from moonpool.state import tables

Differ = Callable[[str, str], None]
BEYOND_S: Final = 2 * HOUR_S
_COUNTS: Final = SUMS[:-1]
_BATCH: Final = 2000

Place = tuple[Any, ...]
"""(hour, account, key, model, host, currency), and of costs the currency of the cost."""


class Hours:
    """What calls add up to less what the rows of hours say."""

    def __init__(self, connection: Connection, differ: Differ) -> None:
        self._connection = connection
        self._differ = differ
        self._counts: dict[Place, list[int]] = {}
        self._costs: dict[Place, int] = {}
        self._until: int | None = None  # rows of hours before this one are set off
        self._newest = 0.0

    def call(self, at: float, place: Place, counts: Iterable[int]) -> None:
        """A call that ended at `at`; `place` without the hour, `counts` in the order of SUMS, without costs."""
        _add(self._counts, (hour_of(at), *place), counts)
        if at > self._newest:
            self._newest = at
            self._set_off(hour_of(at - BEYOND_S))

    def cost(self, at: float, place: Place, cost_pico: int) -> None:
        key = (hour_of(at), *place)
        self._costs[key] = self._costs.get(key, 0) + cost_pico

    def close(self) -> None:
        self._set_off(None)
        for place, counts in self._counts.items():
            if any(counts):
                named = ", ".join(f"{name} by {-count:+}" for name, count in zip(_COUNTS, counts, strict=True) if count)
                self._differ("hours", f"The sums of {_told(place)} are not those of its calls: {named}.")
        for place, cost in self._costs.items():
            if cost:
                self._differ(
                    "hours", f"The cost of {_told(place)}, in {place[6]}, differs from the transfers by {-cost:+}."
                )

    def _set_off(self, until: int | None) -> None:
        """Take the rows of the hours before `until` (None: all) from what calls add up to."""
        table = tables.usage.c
        wanted = select(tables.usage).where(table.span == "hour")
        if self._until is not None:
            if until is not None and until <= self._until:
                return
            wanted = wanted.where(table.start >= self._until)
        if until is not None:
            wanted = wanted.where(table.start < until)
            self._until = until
        for row in self._connection.execution_options(yield_per=_BATCH).execute(wanted):
            place = (row.start, row.account, row.key_id, row.model, row.host, row.currency)
            _add(self._counts, place, (-getattr(row, name) for name in _COUNTS))
            if row.cost_pico:
                key = (*place, row.cost_currency)
                self._costs[key] = self._costs.get(key, 0) - row.cost_pico
        self._counts = {place: counts for place, counts in self._counts.items() if any(counts)}
        self._costs = {place: cost for place, cost in self._costs.items() if cost}


def _add(sums: dict[Place, list[int]], place: Place, counts: Iterable[int]) -> None:
    known = sums.get(place)
    sums[place] = list(counts) if known is None else [a + b for a, b in zip(known, counts, strict=True)]


def _told(place: Place) -> str:
    hour, account, key, model, host, currency = place[:6]
    return f"the hour {_moment(hour)} (account {account}, key {key}, model {model}, host {host or 'none'}, {currency})"


def _moment(at: int) -> str:
    return datetime.datetime.fromtimestamp(at, ZONE).strftime("%Y-%m-%d %H:%M")


def check_days(connection: Connection, differ: Differ) -> None:
    """Each day of Beijing is the sum of its hours."""
    hours = _by_day(connection, "hour")
    days = _by_day(connection, "day")
    hour, day = next(hours, None), next(days, None)
    while hour is not None or day is not None:
        start = min(each[0] for each in (hour, day) if each is not None)
        sums: dict[Place, list[int]] = {}
        if hour is not None and hour[0] == start:
            for row in hour[1]:
                _add(sums, tuple(row[2:8]), row[8:])
            hour = next(hours, None)
        if day is not None and day[0] == start:
            for row in day[1]:
                if row.start % DAY_S != day_of(0) % DAY_S:
                    differ("days", f"{_moment(row.start)} is not the first moment of a day in Beijing.")
                less: list[int] = [-int(value) for value in tuple(row)[8:]]
                _add(sums, tuple(row[2:8]), less)
            day = next(days, None)
        for place, counts in sums.items():
            if any(counts):
                named = ", ".join(f"{name} by {-count:+}" for name, count in zip(SUMS, counts, strict=True) if count)
                account, key, model, host = place[:4]
                where = f"account {account}, key {key}, model {model}, host {host or 'none'}"
                differ("days", f"The sums of the day {_moment(start)} ({where}) are not those of its hours: {named}.")


def _by_day(connection: Connection, span: str) -> Iterator[tuple[int, list[Row[Any]]]]:
    table = tables.usage.c
    wanted = select(tables.usage).where(table.span == span).order_by(table.start)
    rows = connection.execution_options(yield_per=_BATCH).execute(wanted)
    for start, some in groupby(rows, lambda row: day_of(row.start)):
        yield start, list(some)
