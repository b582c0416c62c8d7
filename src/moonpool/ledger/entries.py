"""Double entry: which amounts move between which ledger accounts, and when.

Rules, each at most once for a hold:
- A hold moves nothing; it lowers what is available. It ends with exactly one resolution.
- `posted`: what the client owes goes from the client's funds to `revenue`, granted money first, then topped-up money,
  which may fall below zero: the truth is booked whatever was held.
- `voided`, `expired`, `recovered`: the client owes nothing.
- Whatever we owe a host for its dispatches goes from `cost` to that host, for every kind of resolution.
- A deposit goes from where it came (`cash` for what was paid, `grants` for what was given) to the client's fund.

A transfer names both its legs, so the legs of all transfers sum to zero in each currency by construction, and the
balance of a ledger account is what it was credited less what it was debited.

Amounts are integers of 10^-12 of the currency. Source: RELIABILITY rules on money (double entry, two books, truth
even below zero), which follow TigerBeetle's two-phase transfers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

Fund = Literal["granted", "topped_up"]

REVENUE: Final = "revenue"
COST: Final = "cost"
CASH: Final = "cash"
GRANTS: Final = "grants"

AMOUNT_PICO_MAX: Final = 10**17
"""The most one hold, resolution or deposit may move (100,000 units of a currency): more is a fault, not a price."""
BALANCE_PICO_MAX: Final = 2**63 - 1
TOKENS_MAX: Final = 2**31 - 1


class Transfer(Struct, frozen=True, gc=False):
    """`amount_pico` (above zero) of `currency` leaves `debit` and arrives at `credit`; `leg` numbers the transfers of
    one operation."""

    leg: int
    debit: str
    credit: str
    amount_pico: int
    currency: str


_LEG: Final[dict[Fund, int]] = {"granted": 0, "topped_up": 1}
_COST_LEG: Final = 2


def client(account: str, fund: Fund) -> str:
    """The ledger account of one of a client's funds."""
    return f"client:{account}:{fund}"


def payable(host: str) -> str:
    """The ledger account of what we owe a host."""
    return f"host:{host}"


def draw(owed_pico: int, granted_pico: int) -> tuple[int, int]:
    """What of `owed_pico` is taken from (granted, topped-up) money: granted first, as far as it goes."""
    if granted_pico <= 0:
        return 0, owed_pico
    return (owed_pico, 0) if owed_pico <= granted_pico else (granted_pico, owed_pico - granted_pico)


def charges(kind: str) -> bool:
    """Does a resolution of this kind make the client owe anything?"""
    return kind == "posted"


def legs(
    account: str, drawn: tuple[int, int], currency: str, host: str, cost_pico: int, cost_currency: str
) -> tuple[Transfer, ...]:
    """The transfers of a resolution: `drawn` is what the client pays from (granted, topped-up) money, see `draw`."""
    granted, topped_up = drawn
    found = []
    if granted:
        found.append(Transfer(_LEG["granted"], client(account, "granted"), REVENUE, granted, currency))
    if topped_up:
        found.append(Transfer(_LEG["topped_up"], client(account, "topped_up"), REVENUE, topped_up, currency))
    if cost_pico:
        found.append(Transfer(_COST_LEG, COST, payable(host), cost_pico, cost_currency))
    return tuple(found)


def cost_leg(earlier: int, host: str, cost_pico: int, currency: str) -> Transfer:
    """What we owe for the dispatch number `earlier` of a request that went on to another."""
    return Transfer(_COST_LEG + 1 + earlier, COST, payable(host), cost_pico, currency)


def deposited(account: str, fund: Fund, amount_pico: int, currency: str) -> Transfer:
    """The transfer of a deposit."""
    source = CASH if fund == "topped_up" else GRANTS
    return Transfer(0, source, client(account, fund), amount_pico, currency)


def covers(available_pico: int, amount_pico: int, post_paid: bool) -> bool:
    """May this much more be held? Who is in arrears holds nothing, not even nothing."""
    return post_paid or available_pico >= amount_pico


def bookable(amount_pico: int) -> bool:
    return 0 <= amount_pico <= AMOUNT_PICO_MAX


def balances(transfers: Iterable[Transfer]) -> dict[tuple[str, str], int]:
    """(ledger account, currency) -> credits less debits. Summed over the accounts of a currency it is zero."""
    found: dict[tuple[str, str], int] = {}
    for transfer in transfers:
        for account, amount in ((transfer.debit, -transfer.amount_pico), (transfer.credit, transfer.amount_pico)):
            place = (account, transfer.currency)
            found[place] = found.get(place, 0) + amount
    return found
