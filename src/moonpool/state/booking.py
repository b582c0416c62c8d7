"""What an account gets and pays besides requests: deposits, packs, settlements, as rows and transfers. Both databases.

Each function decides with a tally, changes it, and gives what is to be written, with the way to take it back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger import entries, spans
from moonpool.ledger.entries import Transfer
from moonpool.ledger.funds import Holding, Pack
from moonpool.state.base import Deposit
from moonpool.state.tally import Tally


def _nothing() -> None:
    pass


class Booked(Struct, gc=False, eq=False):
    """Something that is not durable yet: its row of `table`, its transfer, how to take it back in memory, who waits for
    it, and what happens in memory once it is durable."""

    table: str
    values: tuple[Any, ...]
    transfer: Transfer
    undo: Callable[[], None]
    answer: Later[None]
    landed: Callable[[], None] = _nothing


def deposit(tally: Tally, seq: int, wanted: Deposit) -> Booked:
    """Raises Problem("caller.invalid_value") for an amount that cannot be."""
    funds = tally.of(wanted.account, wanted.currency)
    after = funds.granted + funds.topped_up + wanted.amount_pico
    if not 0 < wanted.amount_pico <= entries.AMOUNT_PICO_MAX or after > entries.BALANCE_PICO_MAX:
        raise Problem("caller.invalid_value", "This amount cannot be booked.", param="amount_pico")
    tally.deposit(wanted)
    transfer = entries.deposited(wanted.account, wanted.fund, wanted.amount_pico, wanted.currency)
    return Booked("deposits", (seq, *astuple(wanted)), transfer, partial(tally.deposit, wanted, -1), Later())


def pack(tally: Tally, seq: int, wanted: Pack) -> tuple[Booked, Holding]:
    """Its units may be drawn (`Tally.own`) once it is durable: what is drawn could not be taken back. Raises
    Problem("caller.invalid_value") for a number of units that cannot be."""
    if not 0 < wanted.units <= entries.UNITS_MAX:
        raise Problem("caller.invalid_value", "A pack cannot have so many units.", param="units")
    holding = Holding(wanted)
    tally.dirty.holdings.add(holding)
    transfer = entries.packed(wanted.id, wanted.units, wanted.unit)

    def undo() -> None:
        tally.dirty.holdings.discard(holding)

    return Booked("packs", (seq, *astuple(wanted)), transfer, undo, Later(), partial(tally.own, holding)), holding


def settlements(tally: Tally, settled: dict[tuple[str, str], int], now: float) -> list[tuple[tuple[str, str], Booked]]:
    """One for each (account, currency) that used credit and was not `settled` in this hour; numbers are counted on in
    the tally."""
    hour = spans.hour_of(now) // spans.HOUR_S
    booked = []
    for funds in tally.funds.values():
        place, amount = (funds.account, funds.currency), -funds.post_paid
        if amount <= 0 or settled.get(place, -1) >= hour:
            continue
        tally.settle(funds, amount)
        tally.seq += 1
        values = (tally.seq, *place, hour, amount, now)
        transfer = entries.settled(funds.account, amount, funds.currency)
        undo, landed = partial(tally.settle, funds, -amount), partial(settled.__setitem__, place, hour)
        booked.append((place, Booked("settlements", values, transfer, undo, Later(), landed)))
    return booked
