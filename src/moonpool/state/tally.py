"""How the books stand, in memory: who has what, which holds are open, what was counted. Pure: no I/O, no clock.

Rules:
- Every change is made at once and can be undone exactly, because the transaction that should have written it may fail.
- A hold stays in `open` until its resolution is durable.
- What can be booked is bounded (ledger.entries): a resolution with an amount or a count beyond that is a fault of ours
  or of a host, and is booked as voided with the cause `platform.fault` rather than lost or allowed to stop the books.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from moonpool.later import Later
from moonpool.ledger import entries
from moonpool.ledger.entries import Transfer
from moonpool.state.base import Deposit, Held, Hold, Kind, Resolution, Resolved
from moonpool.words import Account, Usage

TOTALS: Final = (
    "commits",
    "last_seq",
    "first_open",
    "holds",
    "posted",
    "voided",
    "expired",
    "recovered",
    "prompt_miss",
    "prompt_hit",
    "completion",
    "reasoning",
)
"""What `snapshot` gives, in this order: the columns of the table of that name."""

_TOKEN_BITS: Final = entries.TOKENS_MAX.bit_length()
_NOTHING: Final = Usage()


class Funds(Struct, gc=False, eq=False):
    """The balance of an account in one currency, pico-units."""

    account: str
    currency: str
    granted: int = 0
    topped_up: int = 0
    held: int = 0
    post_paid: int = 0


class Entry(Struct, gc=False, eq=False):
    """A hold whose resolution is not durable yet. `mine`: made by this process. `answer` and `answered` are who waits
    for the hold and for the resolution to be durable."""

    seq: int
    hold: Hold
    mine: bool
    answer: Later[Held] | None = None
    resolution: Resolution | None = None
    answered: Later[Resolved] | None = None
    transfers: tuple[Transfer, ...] = ()


class Tally:
    """`dirty` are the funds that were changed since somebody last took that set away."""

    __slots__ = ("dirty", "funds", "holds", "kinds", "open", "seq", "tokens")

    def __init__(self, totals: dict[str, int], funds: Iterable[Funds], unresolved: Iterable[tuple[int, Hold]]) -> None:
        self.seq = totals["last_seq"]
        self.holds = totals["holds"]
        self.kinds: dict[Kind, int] = {
            "posted": totals["posted"],
            "voided": totals["voided"],
            "expired": totals["expired"],
            "recovered": totals["recovered"],
        }
        self.tokens = [totals["prompt_miss"], totals["prompt_hit"], totals["completion"], totals["reasoning"]]
        self.funds = {(each.account, each.currency): each for each in funds}
        self.open = {hold.id: Entry(seq, hold, False) for seq, hold in unresolved}
        self.dirty: set[Funds] = set()

    def of(self, account: str, currency: str) -> Funds:
        place = (account, currency)
        funds = self.funds.get(place)
        if funds is None:
            self.funds[place] = funds = Funds(account, currency)
        return funds

    def covers(self, hold: Hold, account: Account | None) -> bool:
        """May this be held? An account nobody knows has no money and no credit."""
        funds = self.of(hold.account, hold.currency)
        available = funds.granted + funds.topped_up - funds.held
        return entries.covers(available, hold.amount_pico, account is not None and account.post_paid)

    def hold(self, hold: Hold, answer: Later[Held]) -> Entry:
        self.seq = seq = self.seq + 1
        self.holds += 1
        if hold.amount_pico:
            funds = self.of(hold.account, hold.currency)
            funds.held += hold.amount_pico
            self.dirty.add(funds)
        self.open[hold.id] = entry = Entry(seq, hold, True, answer)
        return entry

    def undo_hold(self, entry: Entry) -> None:
        """Forget a hold that has no resolution (or none any more)."""
        del self.open[entry.hold.id]
        self.holds -= 1
        if entry.hold.amount_pico:
            funds = self.of(entry.hold.account, entry.hold.currency)
            funds.held -= entry.hold.amount_pico
            self.dirty.add(funds)

    def resolve(self, entry: Entry, resolution: Resolution) -> None:
        usage = resolution.usage
        if (usage.prompt_miss | usage.prompt_hit | usage.completion | usage.reasoning) >> _TOKEN_BITS:
            resolution = _void(resolution)
        if entry.hold.amount_pico or resolution.owed_pico or resolution.cost_pico or resolution.earlier:
            resolution = self._move(entry, resolution)
        entry.resolution = resolution
        self._count(resolution, 1)

    def undo_resolution(self, entry: Entry) -> None:
        """Forget a resolution that was not written: the hold is open again."""
        resolution, hold = entry.resolution, entry.hold
        assert resolution is not None
        self._count(resolution, -1)
        funds = self.of(hold.account, hold.currency)
        funds.held += hold.amount_pico
        for transfer in entry.transfers:
            if transfer.debit == entries.client(hold.account, "granted"):
                funds.granted += transfer.amount_pico
            elif transfer.debit == entries.client(hold.account, "topped_up"):
                funds.topped_up += transfer.amount_pico
        self.dirty.add(funds)
        entry.resolution, entry.transfers = None, ()

    def deposit(self, deposit: Deposit, sign: int = 1) -> None:
        """Add a deposit, or with -1 take it back."""
        funds = self.of(deposit.account, deposit.currency)
        if deposit.fund == "granted":
            funds.granted += sign * deposit.amount_pico
        else:
            funds.topped_up += sign * deposit.amount_pico
        self.dirty.add(funds)

    def snapshot(self, commit: int) -> tuple[int, ...]:
        """The values of TOTALS. Open holds are in the order of their numbers, so the first is the oldest."""
        kinds = self.kinds
        first_open = next(iter(self.open.values())).seq if self.open else self.seq + 1
        return (
            commit,
            self.seq,
            first_open,
            self.holds,
            kinds["posted"],
            kinds["voided"],
            kinds["expired"],
            kinds["recovered"],
            *self.tokens,
        )

    def _move(self, entry: Entry, resolution: Resolution) -> Resolution:
        """Release what was held and move what is owed; gives the resolution as it is to be booked."""
        hold = entry.hold
        bookable = entries.bookable(resolution.owed_pico) and entries.bookable(resolution.cost_pico)
        if resolution.earlier:
            bookable = bookable and all(entries.bookable(cost.amount_pico) for cost in resolution.earlier)
        if not bookable:
            resolution = _void(resolution)
        elif resolution.owed_pico and not entries.charges(resolution.kind):
            resolution = replace(resolution, owed_pico=0)
        funds = self.of(hold.account, hold.currency)
        if funds.topped_up - resolution.owed_pico < -entries.BALANCE_PICO_MAX:
            resolution = _void(resolution)
        drawn = entries.draw(resolution.owed_pico, funds.granted)
        funds.granted -= drawn[0]
        funds.topped_up -= drawn[1]
        funds.held -= hold.amount_pico
        self.dirty.add(funds)
        cost_currency = resolution.cost_currency or hold.currency
        entry.transfers = entries.legs(
            hold.account, drawn, hold.currency, resolution.host, resolution.cost_pico, cost_currency
        )
        if resolution.earlier:
            entry.transfers += tuple(
                entries.cost_leg(at, cost.host, cost.amount_pico, cost.currency or hold.currency)
                for at, cost in enumerate(resolution.earlier)
                if cost.amount_pico
            )
        return resolution

    def _count(self, resolution: Resolution, sign: int) -> None:
        self.kinds[resolution.kind] += sign
        usage, tokens = resolution.usage, self.tokens
        tokens[0] += sign * usage.prompt_miss
        tokens[1] += sign * usage.prompt_hit
        tokens[2] += sign * usage.completion
        tokens[3] += sign * usage.reasoning


def _void(resolution: Resolution) -> Resolution:
    return replace(
        resolution,
        kind="voided",
        usage=_NOTHING,
        owed_pico=0,
        cost_pico=0,
        cost_currency="",
        earlier=(),
        cause="platform.fault",
    )
