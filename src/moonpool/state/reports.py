"""What was used, call by call and in sum, read from the books; Core only, so both databases answer the same.

Rules:
- The id of the account is an argument of every question, first and without a default, and stands in every statement;
  None is an operator's question about all of them. Nothing here reads it from anywhere else.
- Sums come from the table `usage` only, never from calls: as days where whole days are asked for, else as hours.
- No read holds up a commit: the thread that writes reads too (thread.py says why), so every question is cut into jobs
  of a few milliseconds each, between which commits go on. A piece is as large as the one before it was quick. Of the
  current hour a long question sees what there was when that hour was read; each call counts once all the same.
- Calls are found without an index by account or time, which would cost every request: their numbers (`seq`) grow with
  time, so a span of time is a range of numbers, found by halving, and read from its newest end.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from msgspec.structs import replace
from sqlalchemy import Connection, Row, Select, func, select
from sqlalchemy.sql.elements import ColumnElement

from moonpool.ledger.reports import (
    GROUPS,
    SUMS,
    CallRow,
    CallsAsk,
    CallsPage,
    Leg,
    Movement,
    Segment,
    Statement,
    UsageAsk,
    UsagePage,
    UsageRow,
    mark,
    place_of,
    segments,
)
from moonpool.ledger.spans import DAY_S, HOUR_S
from moonpool.state import statement, tables
from moonpool.state.base import Balance

T = TypeVar("T")

QUICK_S: Final = 0.004
SLOW_S: Final = 0.015
"""A job that took less than QUICK_S is followed by one twice as large, one of more than SLOW_S by one half as large."""
STRIDE: Final = 4096
SCAN_MAX: Final = 200_000
"""So many numbers of calls are looked at for one page, and STRIDE of them in the first job."""
SLACK_S: Final = 600.0
"""How far the order of numbers may differ from that of time: clocks of several machines, and one that was put back."""

_COLUMNS: Final = {"account": "account", "key": "key_id", "model": "model", "host": "host"}


class Jobs(Protocol):
    """Runs work on the database, one after another: thread.WriterThread, or what stands for it elsewhere."""

    def call(self, work: Callable[[Any], T]) -> Awaitable[T]: ...


class SqlReports:
    """Reports. `monotonic` measures how long jobs take."""

    def __init__(self, jobs: Jobs, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self._jobs = jobs
        self._monotonic = monotonic

    async def usage(self, account: str | None, ask: UsageAsk, limit: int, after: str | None = None) -> UsagePage:
        timed = "hour" in ask.group_by or "day" in ask.group_by
        names = [name for name in GROUPS if name in ask.group_by and name in _COLUMNS] + ["currency"]
        if ask.costs:
            names.append("cost_currency")
        if timed:
            names.insert(0, "at")
        place = place_of(after, len(names))
        rows: list[UsageRow] = []
        sums: dict[tuple[Any, ...], list[int]] = {}
        for segment in segments(ask.start, ask.end, "hour" in ask.group_by, "day" in ask.group_by):
            own = segment.at if timed else 0
            if timed and place is not None and own is not None and own < place[0]:
                continue
            begin = max(segment.start, place[0]) if timed and place is not None and own is None else segment.start
            step = HOUR_S if segment.span == "hour" else DAY_S
            wanted = partial(_sums, account, ask, segment, names)
            while begin < segment.end:
                end = min(begin + step, segment.end)
                found, step = await self._read(wanted(begin, end), step)
                _add(sums, found, segment.at if timed else None, len(names) - (timed and own is not None))
                begin = end
                if own is None:
                    rows += _sorted(sums, names, place)
                    if len(rows) > limit:
                        break
            if timed and own is not None:
                rows += _sorted(sums, names, place)
            if len(rows) > limit:
                break
        rows += _sorted(sums, names, place)
        if len(rows) <= limit:
            return UsagePage(rows, None)
        return UsagePage(rows[:limit], mark(*(getattr(rows[limit - 1], name) for name in names)))

    async def calls(self, account: str | None, ask: CallsAsk, limit: int, after: str | None = None) -> CallsPage:
        place = place_of(after, 1)
        low, high = await self._jobs.call(partial(_numbers, ask.start, ask.end))
        if place is not None:
            high = min(high, int(place[0] or 0))
        rows: list[CallRow] = []
        step, floor = STRIDE, max(low, high - SCAN_MAX)
        while high > floor and len(rows) < limit:
            begin = max(floor, high - step)
            wanted = _calls(account, ask, begin, high).limit(limit - len(rows))
            found, step = await self._read(wanted, step)
            rows += (CallRow(*tuple(row)) for row in found)
            high = rows[-1].seq if len(rows) == limit else begin
        if rows:
            paid = await self._jobs.call(partial(_paid, [row.seq for row in rows]))
            rows = [_with(row, paid.get(row.seq)) for row in rows]
        return CallsPage(rows, mark(high) if high > low else None)

    async def movements(self, account: str, start: float, end: float) -> list[Movement]:
        return await self._jobs.call(partial(_connected, partial(statement.movements, account, start, end)))

    async def statement(self, account: str, month: int) -> Statement:
        before = await self._by_day(account, await self._jobs.call(partial(_first_day, account)), month, by_day=False)
        end = statement.month_after(month)
        within = await self._by_day(account, month, end, by_day=True)
        got = await self.movements(account, 0.0, float(end))
        return statement.make(account, month, end, before, within, got)

    async def balances(self, account: str) -> Sequence[Balance]:
        return await self._jobs.call(partial(_connected, partial(_balances, account)))

    async def _by_day(self, account: str, start: int, end: int, *, by_day: bool) -> list[UsageRow]:
        """Sums of the days [start, end): by day and model, or of all in one."""
        if start >= end:
            return []
        ask = UsageAsk(start, end, ("day", "model") if by_day else ())
        return (await self.usage(account, ask, limit=1 << 62)).rows

    async def _read(self, wanted: Select[Any], step: int) -> tuple[Sequence[Row[Any]], int]:
        """Rows, and how large the next piece is to be."""
        found, took_s = await self._jobs.call(partial(_timed, wanted, self._monotonic))
        return found, max(1, step // 2) if took_s > SLOW_S else step * 2 if took_s < QUICK_S else step


def _connected(work: Callable[[Connection], T], database: Any) -> T:
    with database.engine.connect() as connection:
        return work(connection)


def _timed(wanted: Select[Any], monotonic: Callable[[], float], database: Any) -> tuple[Sequence[Row[Any]], float]:
    began = monotonic()
    with database.engine.connect() as connection:
        rows = connection.execute(wanted).all()
    return rows, monotonic() - began


# Sums


def _sums(
    account: str | None, ask: UsageAsk, segment: Segment, names: Sequence[str], start: int, end: int
) -> Select[Any]:
    """The columns of `names` (`at` where the rows themselves tell it) and the sums, of some hours or days."""
    table = tables.usage.c
    groups: list[ColumnElement[Any]] = []
    for name in names:
        if name != "at":
            groups.append(table[_COLUMNS.get(name, name)])
        elif segment.at is None:
            groups.append(table.start)
    wanted = (
        select(*groups, *(func.sum(table[name]) for name in (SUMS if ask.costs else SUMS[:-1])))
        .where(table.span == segment.span, table.start >= start, table.start < end)
        .group_by(*groups)
    )
    return _filtered(wanted, account, ask, table)


def _filtered(wanted: Select[Any], account: str | None, ask: UsageAsk | CallsAsk, table: Any) -> Select[Any]:
    if account is not None:
        wanted = wanted.where(table.account == account)
    if ask.key is not None:
        wanted = wanted.where(table.key_id == ask.key)
    if ask.model is not None:
        wanted = wanted.where(table.model == ask.model)
    return wanted if ask.host is None else wanted.where(table.host == ask.host)


def _add(sums: dict[tuple[Any, ...], list[int]], rows: Sequence[Row[Any]], at: int | None, groups: int) -> None:
    for row in rows:
        place = row[:groups] if at is None else (at, *row[:groups])
        counts = [int(value) for value in row[groups:]]  # PostgreSQL sums to decimals
        known = sums.get(place)
        sums[place] = counts if known is None else [a + b for a, b in zip(known, counts, strict=True)]


def _sorted(
    sums: dict[tuple[Any, ...], list[int]], names: Sequence[str], place: Sequence[Any] | None
) -> list[UsageRow]:
    """What was summed so far, in order, without what stands on earlier pages; forgets it."""
    if not sums:
        return []
    after = () if place is None else tuple(place)
    # A row without calls is what an earlier dispatch cost us: of interest only where costs are.
    fields = (*names, *SUMS)
    values = [
        dict(zip(fields, (*key, *sums[key]), strict=False))
        for key in sorted(sums)
        if key > after and (sums[key][0] or names[-1] == "cost_currency")
    ]
    rows = [UsageRow(**row) for row in values]
    sums.clear()
    return rows


def _first_day(account: str, database: Any) -> int:
    table = tables.usage.c
    wanted = select(func.min(table.start)).where(table.account == account, table.span == "day")
    with database.engine.connect() as connection:
        found = connection.execute(wanted).scalar()
    return statement.NEVER if found is None else int(found)


def _balances(account: str, connection: Connection) -> list[Balance]:
    known, table = tables.accounts.c, tables.balances.c
    post_paid = connection.execute(select(known.post_paid).where(known.id == account)).scalar()
    wanted = select(tables.balances).where(table.account == account).order_by(table.currency)
    return [
        Balance(row.currency, row.granted_pico, row.topped_up_pico, row.held_pico, bool(post_paid), row.post_paid_pico)
        for row in connection.execute(wanted)
    ]


# Calls


def _numbers(start: float, end: float, database: Any) -> tuple[int, int]:
    """The numbers [low, high) that calls may have which arrived within [start, end)."""
    with database.engine.connect() as connection:
        last = connection.execute(select(func.max(tables.holds.c.seq))).scalar() or 0
        low = _first_since(start - SLACK_S, last, connection)
        return low, max(low, _first_since(end + SLACK_S, last, connection))


def _first_since(at: float, last: int, connection: Connection) -> int:
    """The number of the first call that arrived at `at` or later; one beyond the last where there is none."""
    table = tables.holds.c
    low, high = 0, last + 1
    while low < high:
        middle = (low + high) // 2
        probe = select(table.seq, table.created_at).where(table.seq >= middle).order_by(table.seq).limit(1)
        found = connection.execute(probe).first()
        if found is None or found.created_at >= at:
            high = middle
        else:
            low = found.seq + 1
    return low


def _calls(account: str | None, ask: CallsAsk, low: int, high: int) -> Select[Any]:
    """Calls with a number in [low, high), newest first, in the order of CallRow's fields."""
    hold, end = tables.holds.c, tables.resolutions.c
    wanted = (
        select(
            hold.seq,
            hold.id,
            hold.account,
            hold.key_id,
            hold.model,
            end.host,
            hold.created_at,
            end.resolved_at,
            end.kind,
            end.cause,
            end.attempts,
            end.prompt_miss,
            end.prompt_hit,
            end.completion,
            end.reasoning,
            end.searches,
            end.estimated,
            hold.currency,
            end.owed_pico,
            end.cost_pico,
            end.price,
        )
        .join_from(tables.holds, tables.resolutions, end.hold_seq == hold.seq)
        .where(hold.seq >= low, hold.seq < high, hold.created_at >= ask.start, hold.created_at < ask.end)
        .order_by(hold.seq.desc())
    )
    if ask.host is not None:
        wanted = wanted.where(end.host == ask.host)
    return _filtered(wanted, account, CallsAsk(ask.start, ask.end, ask.key, ask.model), hold)


def _paid(seqs: list[int], database: Any) -> dict[int, dict[tuple[str, str], int]]:
    """What clients paid for these calls: number -> (source, unit) -> amount."""
    table = tables.transfers.c
    wanted = select(table.seq, table.debit, table.amount_pico, table.currency).where(table.seq.in_(seqs))
    paid: dict[int, dict[tuple[str, str], int]] = {}
    with database.engine.connect() as connection:
        for seq, debit, amount, unit in connection.execute(wanted.order_by(table.seq, table.leg)):
            if debit.startswith(("client:", "pack:")):
                source = debit if debit.startswith("pack:") else debit.rpartition(":")[2]
                sources = paid.setdefault(seq, {})
                sources[source, unit] = sources.get((source, unit), 0) + amount
    return paid


def _with(row: CallRow, paid: dict[tuple[str, str], int] | None) -> CallRow:
    if paid is None:
        return row
    return replace(row, paid=tuple(Leg(source, amount, unit) for (source, unit), amount in paid.items()))
