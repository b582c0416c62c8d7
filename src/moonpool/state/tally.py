"""How money stands, decided step by step: what may be held, what a resolution moves, and how to take either back.

Used by the books of both databases. Over SQLite one tally holds everything, for as long as the process lives; it runs
ahead of the database by what waits to be written. Over PostgreSQL each transaction fills one with the rows it
has locked.

Rules: nothing here waits, and no I/O. A resolution never fails: what could not be booked (amounts beyond any price) is
voided with the cause `platform.fault` rather than lost or allowed to stop the books.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from moonpool.later import Later
from moonpool.ledger import entries, funds, spans
from moonpool.ledger.entries import Transfer
from moonpool.ledger.funds import Funds, Holding, Spent, Units
from moonpool.state.base import Cost, Deposit, Held, Hold, Kind, Progress, Resolution, Resolved
from moonpool.words import Account, Limits, Price, Usage

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
    "searches",
)
"""What `snapshot` gives, in this order: the columns of the table of that name."""

_AMOUNT_MAX: Final = entries.AMOUNT_PICO_MAX
_TOKEN_BITS: Final = entries.TOKENS_MAX.bit_length()
_NOTHING: Final = Usage()
_FREE: Final = Price()
_KINDS: Final[tuple[Kind, ...]] = ("posted", "voided", "expired", "recovered")


class Drawn(Struct, frozen=True, gc=False):
    """What a resolution took: money for tokens, money for searches, units of packs."""

    money: entries.Drawn = entries.NOTHING
    fee: entries.Drawn = entries.NOTHING
    units: Units = ()


_UNDRAWN: Final = Drawn()


class Entry(Struct, gc=False, eq=False):
    """A hold whose resolution is not durable yet. `mine`: made by this process. `answer` and `answered` are who waits
    for the hold and for the resolution to be durable. `money_pico` and `units` are what is set aside, `spans` what of
    it counts for the limits of the key; `progress` is how far it was known to have come when that was last written."""

    seq: int
    hold: Hold
    mine: bool
    money_pico: int
    units: Units = ()
    spans: tuple[tuple[str, int], ...] = ()
    credit: bool = False
    answer: Later[Held] | None = None
    resolution: Resolution | None = None
    answered: Later[Resolved] | None = None
    drawn: Drawn = _UNDRAWN
    transfers: tuple[Transfer, ...] = ()
    progress: Progress | None = None


class Changed(Struct, gc=False, eq=False):
    """What was changed since somebody last took this record away."""

    funds: set[Funds]
    holdings: set[Holding]
    spent: set[Spent]


def changed() -> Changed:
    return Changed(set(), set(), set())


class Tally:
    """`dirty` is what was changed since somebody last put another record in its place. `holdings` are the packs of an
    account in the order they are drawn in; packs that are used up or over, and hold nothing, may be missing."""

    __slots__ = ("_packs", "dirty", "funds", "holdings", "holds", "kinds", "open", "seq", "spent", "tokens")

    def __init__(
        self,
        totals: dict[str, int],
        known: Iterable[Funds] = (),
        holdings: Iterable[Holding] = (),
        spent: Iterable[Spent] = (),
    ) -> None:
        self.seq = totals["last_seq"]
        self.holds = totals["holds"]
        self.kinds: dict[Kind, int] = {kind: totals[kind] for kind in _KINDS}
        self.tokens = [totals[name] for name in TOTALS[-5:]]
        self.funds = {(each.account, each.currency): each for each in known}
        self.holdings: dict[str, list[Holding]] = {}
        self._packs: dict[str, Holding] = {}
        self.spent = {(each.key, each.currency, each.span, each.start): each for each in spent}
        self.open: dict[str, Entry] = {}
        self.dirty = changed()
        for holding in holdings:
            self.own(holding)

    def of(self, account: str, currency: str) -> Funds:
        found = self.funds.get((account, currency))
        if found is None:
            self.funds[account, currency] = found = Funds(account, currency)
        return found

    def own(self, holding: Holding) -> None:
        """An account has this pack."""
        self._packs[holding.pack.id] = holding
        holdings = self.holdings.setdefault(holding.pack.account, [])
        holdings.append(holding)
        holdings.sort(key=funds.rank)

    def take_over(self, entry: Entry) -> None:
        """An open hold that is not of this process; what it sets aside is counted already."""
        self.open[entry.hold.id] = entry

    def hold(
        self, hold: Hold, account: Account | None, answer: Later[Held] | None
    ) -> Entry | Literal["short", "budget"]:
        """Set aside what a hold asks for, or say why not. An account nobody knows has no credit."""
        money = hold.amount_pico
        units: Units = ()
        holdings = self.holdings.get(hold.account)
        if holdings:
            units, tokens, searches = funds.reserve(holdings, hold.product, hold.tokens, hold.searches, hold.created_at)
            if units:
                money = min(money, tokens * hold.token_pico + searches * hold.search_pico)
        credit = account is not None and funds.on_credit(account, hold.product)
        if (money or not units) and not (credit and account.credit_pico is None):  # type: ignore[union-attr]
            found = self.of(hold.account, hold.currency)
            if funds.in_arrears(found.topped_up, account) if credit else found.available() < money:  # type: ignore[arg-type]
                return "short"
        spent: tuple[tuple[str, int], ...] = ()
        if hold.limits is not None:
            within = self._within(hold, hold.limits, money)
            if within is None:
                return "budget"
            spent = within
        self.seq = seq = self.seq + 1
        self.holds += 1
        self.open[hold.id] = entry = Entry(seq, hold, True, money, units, spent, credit, answer)
        if money or units:
            found = self.of(hold.account, hold.currency)
            self._set_aside(entry, found, 1)
            self.dirty.funds.add(found)
        return entry

    def undo_hold(self, entry: Entry) -> None:
        """Forget a hold that has no resolution (or none any more)."""
        del self.open[entry.hold.id]
        self.holds -= 1
        if entry.money_pico or entry.units:
            found = self.of(entry.hold.account, entry.hold.currency)
            self._set_aside(entry, found, -1)
            self.dirty.funds.add(found)

    def resolve(self, entry: Entry, resolution: Resolution) -> None:
        usage = resolution.usage
        if (usage.prompt_miss | usage.prompt_hit | usage.completion | usage.reasoning | usage.searches) >> _TOKEN_BITS:
            resolution = _void(resolution)
        if entry.money_pico or entry.units or resolution.owed_pico or resolution.cost_pico or resolution.earlier:
            resolution = self._move(entry, resolution)
        entry.resolution = resolution
        self._count(resolution, 1)

    def undo_resolution(self, entry: Entry) -> None:
        """Forget a resolution that was not written: the hold is open again."""
        resolution = entry.resolution
        assert resolution is not None
        self._count(resolution, -1)
        drawn, found = entry.drawn, self.of(entry.hold.account, entry.hold.currency)
        self.dirty.funds.add(found)
        if drawn is not _UNDRAWN:
            for money in (drawn.money, drawn.fee):
                self._take(entry, found, money, -1)
            self._use(drawn.units, -1)
        if entry.money_pico or entry.units:
            self._set_aside(entry, found, 1)
        entry.resolution, entry.transfers, entry.drawn = None, (), _UNDRAWN

    def deposit(self, deposit: Deposit, sign: int = 1) -> None:
        """Add a deposit, or with -1 take it back."""
        found = self.of(deposit.account, deposit.currency)
        if deposit.fund == "granted":
            found.granted += sign * deposit.amount_pico
        else:
            found.topped_up += sign * deposit.amount_pico
        self.dirty.funds.add(found)

    def settle(self, owing: Funds, amount_pico: int) -> None:
        """Take what was used on credit from what was topped up; with a negative amount take that back."""
        owing.post_paid += amount_pico
        owing.topped_up -= amount_pico
        self.dirty.funds.add(owing)

    def snapshot(self, commit: int) -> tuple[int, ...]:
        """The values of TOTALS. Open holds are in the order of their numbers, so the first is the oldest."""
        first_open = next(iter(self.open.values())).seq if self.open else self.seq + 1
        return (commit, self.seq, first_open, self.holds, *(self.kinds[kind] for kind in _KINDS), *self.tokens)

    def _within(self, hold: Hold, limits: Limits, money: int) -> tuple[tuple[str, int], ...] | None:
        """The spans of a key's limits that this hold counts in; None where one would be exceeded."""
        found = []
        for span, most, start in (
            ("day", limits.day_pico, spans.day_of),
            ("month", limits.month_pico, spans.month_of),
        ):
            if most is None:
                continue
            begun = start(hold.created_at)
            spent = self._spent(hold, span, begun)
            if spent.spent + spent.held + money > most:
                return None
            found.append((span, begun))
        return tuple(found)

    def _spent(self, hold: Hold, span: str, start: int) -> Spent:
        place = (hold.key, hold.currency, span, start)
        found = self.spent.get(place)
        if found is None:
            for before in [at for at in self.spent if at[:3] == place[:3] and not self.spent[at].held]:
                del self.spent[before]
            self.spent[place] = found = Spent(hold.key, hold.currency, span, start)
        return found

    def _set_aside(self, entry: Entry, found: Funds, sign: int) -> None:
        """Count what a hold sets aside, of its account's money too, or with -1 no longer."""
        hold, money = entry.hold, entry.money_pico
        if money:
            found.held += sign * money
        if entry.spans:
            for span, start in entry.spans:
                spent = self._spent(hold, span, start)
                spent.held += sign * money
                self.dirty.spent.add(spent)
        if entry.units:
            for pack, units in entry.units:
                holding = self._packs[pack]
                holding.held += sign * units
                self.dirty.holdings.add(holding)

    def _take(self, entry: Entry, found: Funds, money: entries.Drawn, sign: int) -> None:
        """Take from where it is what was drawn, or with -1 put it back."""
        granted, topped_up, post_paid = money
        # Nearly always only one of them is not zero.
        if granted:
            found.granted -= sign * granted
        if topped_up:
            found.topped_up -= sign * topped_up
        if post_paid:
            found.post_paid -= sign * post_paid
        if entry.spans:
            for span, start in entry.spans:
                spent = self._spent(entry.hold, span, start)
                spent.spent += sign * (granted + topped_up + post_paid)
                self.dirty.spent.add(spent)

    def _use(self, units: Units, sign: int) -> None:
        """Count units of packs as used, or with -1 no longer."""
        for pack, some in units:
            holding = self._packs[pack]
            holding.used += sign * some
            self.dirty.holdings.add(holding)

    def _move(self, entry: Entry, resolution: Resolution) -> Resolution:
        """Release what was held and move what is owed; gives the resolution as it is to be booked."""
        hold, owed, cost = entry.hold, resolution.owed_pico, resolution.cost_pico
        if not (0 <= owed <= _AMOUNT_MAX and 0 <= cost <= _AMOUNT_MAX and _bookable(resolution.earlier)):
            resolution = _void(resolution)
            owed = cost = 0
        elif owed and not entries.charges(resolution.kind):
            resolution = replace(resolution, owed_pico=0)
            owed = 0
        transfers: list[Transfer] = []
        if entry.money_pico or entry.units or owed:
            found = self.of(hold.account, hold.currency)
            self.dirty.funds.add(found)
            if entry.money_pico or entry.units:
                self._set_aside(entry, found, -1)
            if owed or entry.units:
                resolution = self._charge(entry, found, resolution, transfers)
                cost = resolution.cost_pico
        if cost:
            transfers.append(entries.owed(resolution.host, cost, resolution.cost_currency or hold.currency))
        if resolution.earlier:
            for at, each in enumerate(resolution.earlier):
                if each.amount_pico:
                    currency = each.currency or hold.currency
                    transfers.append(entries.cost_leg(at, each.host, each.amount_pico, currency))
        entry.transfers = tuple(transfers)
        return resolution

    def _charge(self, entry: Entry, found: Funds, resolution: Resolution, transfers: list[Transfer]) -> Resolution:
        """Draw what is owed: units of the packs that were set aside, then money, fees for searches by themselves."""
        hold, usage = entry.hold, resolution.usage
        owed, fee = resolution.owed_pico, 0
        units: Units = ()
        if usage.searches:
            fee = min(usage.searches * (resolution.price or _FREE).searches, owed)
        if entry.units and entries.charges(resolution.kind):
            price = resolution.price or _FREE
            calls = frozenset(pack for pack, _ in entry.units if self._packs[pack].pack.unit == "calls")
            units, tokens, searches = funds.split(entry.units, calls, usage)
            for_tokens, for_searches = funds.worth(usage, price, tokens, searches)
            owed = max(owed - for_tokens - for_searches, 0)
            fee = min(max(fee - for_searches, 0), owed)
        if found.topped_up + found.post_paid - owed < -entries.BALANCE_PICO_MAX:
            return self._charge(entry, found, _void(resolution), transfers)
        money, paid = funds.draw(owed - fee, found, entry.credit), entries.NOTHING
        self._take(entry, found, money, 1)
        transfers += entries.paid(hold.account, money, hold.currency)
        if fee:
            # Drawn after the tokens, from what they left.
            paid = funds.draw(fee, found, entry.credit)
            self._take(entry, found, paid, 1)
            transfers += entries.paid(hold.account, paid, hold.currency, fee=True)
        if units:
            self._use(units, 1)
            for at, (pack, some) in enumerate(units):
                transfers.append(entries.unpacked(at, pack, some, self._packs[pack].pack.unit))
        entry.drawn = Drawn(money, paid, units)
        return resolution if owed == resolution.owed_pico else replace(resolution, owed_pico=owed)

    def _count(self, resolution: Resolution, sign: int) -> None:
        self.kinds[resolution.kind] += sign
        usage, tokens = resolution.usage, self.tokens
        if usage is _NOTHING:
            return
        tokens[0] += sign * usage.prompt_miss
        tokens[1] += sign * usage.prompt_hit
        tokens[2] += sign * usage.completion
        tokens[3] += sign * usage.reasoning
        tokens[4] += sign * usage.searches


def _bookable(earlier: tuple[Cost, ...]) -> bool:
    return not earlier or all(entries.bookable(cost.amount_pico) for cost in earlier)


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
