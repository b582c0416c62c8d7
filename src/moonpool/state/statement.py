"""The statement of a month: what an account had, what came and went, what it has. Made of sums by day and of what it
got; pure but for `movements`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, select

from moonpool.ledger.reports import Movement, PackUse, Standing, Statement, StatementLine, UsageRow
from moonpool.ledger.spans import DAY_S, day_of, month_of
from moonpool.state import tables

NEVER: Final = 2**53
"""Later than every day."""

Funds = tuple[int, int, int]
"""Pico-units of (granted, topped_up, post_paid)."""
_FUNDS: Final = ("granted", "topped_up", "post_paid")
_ORDER: Final = ("granted", "topped_up", "usage", "settled")


def month_after(month: int) -> int:
    return month_of(month + 32 * DAY_S)


def movements(account: str, start: float, end: float, connection: Connection) -> list[Movement]:
    """What an account got and settled within [start, end), in the order in which it was booked."""
    found = []
    deposits, packs, settlements = tables.deposits.c, tables.packs.c, tables.settlements.c
    wanted = select(tables.deposits).where(
        deposits.account == account, deposits.created_at >= start, deposits.created_at < end
    )
    for row in connection.execute(wanted):
        found.append(Movement(row.seq, row.fund, row.id, row.amount_pico, row.currency, row.created_at, row.note))
    wanted = select(tables.packs).where(packs.account == account, packs.bought_at >= start, packs.bought_at < end)
    for row in connection.execute(wanted):
        detail = f"{row.kind} {row.product}".strip()
        found.append(Movement(row.seq, "pack", row.id, row.units, row.unit, row.bought_at, row.note, detail))
    wanted = select(tables.settlements).where(
        settlements.account == account, settlements.created_at >= start, settlements.created_at < end
    )
    for row in connection.execute(wanted):
        found.append(Movement(row.seq, "settled", str(row.hour), row.amount_pico, row.currency, row.created_at))
    return sorted(found, key=lambda each: each.seq)


def make(
    account: str,
    start: int,
    end: int,
    before: Iterable[UsageRow],
    within: Sequence[UsageRow],
    got: Sequence[Movement],
) -> Statement:
    """`before` are sums of all usage until the month, `within` those of its days by model, `got` every movement until
    the end of the month."""
    opening: dict[str, list[int]] = {}
    for row in before:
        _move(opening, row.currency, _used(row))
    for each in got:
        if each.at < start and each.what != "pack":
            _move(opening, each.unit, _moved(each))
    closing = {currency: list(funds) for currency, funds in opening.items()}
    sums: dict[tuple[int, int, str, str, str], list[int]] = {}
    for row in within:
        _line(closing, sums, (row.at or 0, "usage", row.model or "", row.currency), _used(row), row.requests)
    for each in got:
        if each.at >= start and each.what != "pack":
            _line(closing, sums, (day_of(each.at), each.what, "", each.unit), _moved(each), 0)
    return Statement(
        account,
        start,
        end,
        _standings({**{currency: [0, 0, 0] for currency in closing}, **opening}),
        [
            StatementLine(day, _ORDER[order], fund, currency, amount, model, requests)
            for (day, order, model, fund, currency), (amount, requests) in sorted(sums.items())
        ],
        _standings(closing),
        [each for each in got if each.what == "pack" and each.at >= start],
        _pack_use(within),
    )


def _used(row: UsageRow) -> Funds:
    credit = row.owed_pico - row.granted_pico - row.topped_up_pico
    return -row.granted_pico, -row.topped_up_pico, -credit


def _moved(each: Movement) -> Funds:
    if each.what == "settled":
        return 0, -each.amount, each.amount
    return (each.amount, 0, 0) if each.what == "granted" else (0, each.amount, 0)


def _move(funds: dict[str, list[int]], currency: str, amounts: Funds) -> None:
    known = funds.setdefault(currency, [0, 0, 0])
    for at, amount in enumerate(amounts):
        known[at] += amount


def _line(
    closing: dict[str, list[int]],
    sums: dict[tuple[int, int, str, str, str], list[int]],
    place: tuple[int, str, str, str],
    amounts: Funds,
    requests: int,
) -> None:
    day, what, model, currency = place
    _move(closing, currency, amounts)
    for fund, amount in zip(_FUNDS, amounts, strict=True):
        if amount:
            line = sums.setdefault((day, _ORDER.index(what), model, fund, currency), [0, 0])
            line[0] += amount
            line[1] += requests


def _standings(funds: dict[str, list[int]]) -> list[Standing]:
    return [Standing(currency, *funds[currency]) for currency in sorted(funds)]


def _pack_use(rows: Iterable[UsageRow]) -> list[PackUse]:
    units: dict[tuple[int, str], int] = {}
    for row in rows:
        if row.pack_units:
            place = (row.at or 0, row.model or "")
            units[place] = units.get(place, 0) + row.pack_units
    return [PackUse(day, model, used) for (day, model), used in sorted(units.items())]
