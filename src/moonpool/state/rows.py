"""What the books write, as rows of values in the order of the columns in tables_books.py; flat, as drivers bind them.

Pure. Both databases write these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from moonpool.ledger import spans
from moonpool.ledger.entries import Transfer
from moonpool.state.base import Hold, Progress, Resolution
from moonpool.state.tally import Changed, Entry
from moonpool.words import Price, Usage

DAY = "day"
HOUR = "hour"
_NO_COUNTS = (0,) * 12
_NOTHING = Usage()


def holds(entries: Iterable[Entry], node: int, reservations: list[Any]) -> list[Any]:
    """Rows of `holds`; those of `reservations` are added to the list given."""
    rows: list[Any] = []
    for entry in entries:
        hold = entry.hold
        rows += (
            entry.seq,
            hold.id,
            hold.account,
            hold.key,
            hold.model,
            hold.host,
            entry.money_pico,
            hold.currency,
            hold.created_at,
            hold.expires_at,
            node,
        )
        if entry.units:
            for pack, units in entry.units:
                reservations += (entry.seq, f"pack:{pack}", units)
        if entry.spans:
            for span, start in entry.spans:
                reservations += (entry.seq, f"{span}:{start}", entry.money_pico)
    return rows


def resolutions(entries: Iterable[Entry], transfers: list[Any]) -> list[Any]:
    """Rows of `resolutions`; those of `transfers` are added to the list given."""
    rows: list[Any] = []
    for entry in entries:
        resolution: Any = entry.resolution
        usage = resolution.usage
        rows += (
            entry.seq,
            resolution.kind,
            usage.prompt_miss,
            usage.prompt_hit,
            usage.completion,
            usage.reasoning,
            usage.estimated,
            resolution.owed_pico,
            resolution.cost_pico,
            resolution.host,
            resolution.cause,
            resolution.attempts,
            resolution.resolved_at,
            usage.searches,
            "" if resolution.price is None else resolution.price.version,
        )
        for each in entry.transfers:
            transfers += transfer(entry.seq, each)
    return rows


def transfer(seq: int, moved: Transfer) -> tuple[Any, ...]:
    return seq, moved.leg, moved.debit, moved.credit, moved.amount_pico, moved.currency


def usage(entries: Iterable[Entry]) -> list[Any]:
    """Rows of `usage` to be added to what is there: for each hour and day one for each key, model and host."""
    counted: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}
    for entry in entries:
        hold = entry.hold
        resolution: Any = entry.resolution
        used, drawn = resolution.usage, entry.drawn
        hour = int(resolution.resolved_at // spans.HOUR_S)
        currency = hold.currency
        cost_currency = resolution.cost_currency or currency
        place = (hour, hold.account, hold.key, hold.model, resolution.host, currency, cost_currency)
        # A row each, added up by column below: this runs for every request.
        row = (
            1,
            resolution.kind == "posted",
            used.estimated,
            used.prompt_miss,
            used.prompt_hit,
            used.completion,
            used.reasoning,
            used.searches,
            sum(some for _, some in drawn.units) if drawn.units else 0,
            resolution.owed_pico,
            drawn.money[0] + drawn.fee[0],
            drawn.money[1] + drawn.fee[1],
            resolution.cost_pico,
        )
        if place in counted:
            counted[place].append(row)
        else:
            counted[place] = [row]
        if resolution.earlier:
            for cost in resolution.earlier:
                place = (*place[:4], cost.host, currency, cost.currency or currency)
                counted.setdefault(place, []).append((*_NO_COUNTS, cost.amount_pico))
    sums = {place: [sum(column) for column in zip(*counts, strict=True)] for place, counts in counted.items()}
    rows: list[Any] = []
    days: dict[tuple[Any, ...], list[int]] = {}
    for (hour, *rest), counts in sums.items():
        start = hour * spans.HOUR_S
        rows += (HOUR, start, *rest, *counts)
        place = (spans.day_of(start), *rest)
        before = days.get(place)
        days[place] = counts if before is None else [a + b for a, b in zip(before, counts, strict=True)]
    for place, counts in days.items():
        rows += (DAY, *place, *counts)
    return rows


def progress(known: Iterable[tuple[int, Progress]]) -> list[Any]:
    """Rows of `progress`, of (number of the hold, how far it has come)."""
    rows: list[Any] = []
    for seq, each in known:
        used = each.usage
        rows += (
            seq,
            each.host,
            used.prompt_miss,
            used.prompt_hit,
            used.completion,
            used.reasoning,
            each.owed_pico,
            each.cost_pico,
            each.cost_currency,
            msgspec.json.encode(each.price).decode(),
            each.at,
        )
    return rows


def derived(dirty: Changed) -> tuple[list[Any], list[Any], list[Any]]:
    """Rows of `balances`, `pack_balances` and `spent` as they are now."""
    balances: list[Any] = []
    for funds in dirty.funds:
        balances += (
            funds.account,
            funds.currency,
            funds.granted,
            funds.topped_up,
            funds.held,
            funds.post_paid,
        )
    packs: list[Any] = []
    for holding in dirty.holdings:
        packs += (holding.pack.id, holding.used, holding.held)
    spent: list[Any] = []
    for each in dirty.spent:
        spent += (each.key, each.currency, each.span, each.start, each.spent, each.held)
    return balances, packs, spent


def recovered(hold: Hold, known: Progress | None, kind: Any, now: float) -> Resolution:
    """How the hold of a process that is gone ends: with what it was last known to have come to, or with nothing."""
    if known is None:
        return Resolution(hold.id, kind, _NOTHING, 0, 0, hold.host, kind, 0, now)
    return Resolution(
        hold.id,
        "recovered",
        known.usage,
        known.owed_pico,
        known.cost_pico,
        known.host,
        kind,
        1,
        now,
        known.cost_currency,
        (),
        known.price,
    )


def price_of(text: str | dict[str, Any]) -> Price:
    """The price in a row of `progress`, as its driver gives it."""
    return msgspec.json.decode(text, type=Price) if isinstance(text, str) else msgspec.convert(text, Price)
