"""Double entry: which amounts move between which ledger accounts, and when.

Rules, each at most once for a hold:
- A hold moves nothing; it lowers what is available. It ends with exactly one resolution.
- `posted`: what the client owes goes from the client's funds to `revenue` (funds.py says from which), what web searches
  cost to `fees`, and units from packs to `used`. `recovered`: the same with what was known when a process was killed.
- `voided`, `expired`: the client owes nothing.
- Whatever we owe a host for its dispatches goes from `cost` to that host, for every kind of resolution.
- A deposit goes from where it came (`cash` for what was paid, `grants` for what was given) to the client's fund; units
  of a pack come from `packs`.
- A settlement moves what was used on credit from the client's topped-up money to where it is owed.

A transfer names both its legs, so the legs of all transfers sum to zero in each currency by construction, and the
balance of a ledger account is what it was credited less what it was debited. Units of packs are
currencies of their own.

Amounts are integers of 10^-12 of the currency, or whole units. Source: RELIABILITY rules on money (double entry, two
books, truth even below zero), which follow TigerBeetle's two-phase transfers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

Fund = Literal["granted", "topped_up"]

REVENUE: Final = "revenue"
FEES: Final = "fees"
COST: Final = "cost"
CASH: Final = "cash"
GRANTS: Final = "grants"
PACKS: Final = "packs"
USED: Final = "used"

AMOUNT_PICO_MAX: Final = 10**17
"""The most one hold, resolution or deposit may move (100,000 units of a currency): more is a fault, not a price."""
BALANCE_PICO_MAX: Final = 2**63 - 1
TOKENS_MAX: Final = 2**31 - 1
UNITS_MAX: Final = 10**15

Drawn = tuple[int, int, int]
"""What a client pays from granted money, from topped-up money, on credit."""
NOTHING: Final[Drawn] = (0, 0, 0)


class Transfer(Struct, frozen=True, gc=False):
    """`amount_pico` (above zero) of `currency` leaves `debit` and arrives at `credit`; `leg` numbers the transfers of
    one operation."""

    leg: int
    debit: str
    credit: str
    amount_pico: int
    currency: str


_FUNDS: Final = ("granted", "topped_up", "post_paid")
_EACH: Final = (0, 1, 2)
# Numbers that do not meet: those of earlier dispatches begin at 3, and nobody makes a thousand of them.
_REVENUE_LEGS: Final = (0, 1, 1000)
_COST_LEG: Final = 2
_FEE_LEGS: Final = (1001, 1002, 1003)
_PACK_LEG: Final = 2000


def client(account: str, fund: str) -> str:
    """The ledger account of one of a client's funds: `granted`, `topped_up`, `post_paid`."""
    return f"client:{account}:{fund}"


def pack(pack_id: str) -> str:
    """The ledger account of a pack."""
    return f"pack:{pack_id}"


def payable(host: str) -> str:
    """The ledger account of what we owe a host."""
    return f"host:{host}"


def charges(kind: str) -> bool:
    """Does a resolution of this kind make the client owe anything?"""
    return kind in {"posted", "recovered"}


def paid(account: str, drawn: Drawn, currency: str, *, fee: bool = False) -> list[Transfer]:
    """The transfers of what a client pays for an answer, or as a fee."""
    to, numbers = (FEES, _FEE_LEGS) if fee else (REVENUE, _REVENUE_LEGS)
    found = []
    for at in _EACH:
        amount = drawn[at]
        if amount:
            found.append(Transfer(numbers[at], f"client:{account}:{_FUNDS[at]}", to, amount, currency))
    return found


def unpacked(at: int, pack_id: str, units: int, unit: str) -> Transfer:
    """The transfer of units of the pack number `at` of a resolution."""
    return Transfer(_PACK_LEG + at, pack(pack_id), USED, units, unit)


def owed(host: str, cost_pico: int, currency: str) -> Transfer:
    """What we owe for the last dispatch of a request."""
    return Transfer(_COST_LEG, COST, payable(host), cost_pico, currency)


def cost_leg(earlier: int, host: str, cost_pico: int, currency: str) -> Transfer:
    """What we owe for the dispatch number `earlier` of a request that went on to another."""
    return Transfer(_COST_LEG + 1 + earlier, COST, payable(host), cost_pico, currency)


def deposited(account: str, fund: Fund, amount_pico: int, currency: str) -> Transfer:
    """The transfer of a deposit."""
    source = CASH if fund == "topped_up" else GRANTS
    return Transfer(0, source, client(account, fund), amount_pico, currency)


def packed(pack_id: str, units: int, unit: str) -> Transfer:
    """The transfer of a new pack."""
    return Transfer(0, PACKS, pack(pack_id), units, unit)


def settled(account: str, amount_pico: int, currency: str) -> Transfer:
    """The transfer of a settlement."""
    return Transfer(0, client(account, "topped_up"), client(account, "post_paid"), amount_pico, currency)


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
