"""What the books should say, in plain dictionaries: the rules of funds written down a second time, the slow way.

Nothing here is the product's: no order, no price, no split is computed with its code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Unit = tuple[str, int]


@dataclass
class Bundle:
    """A pack."""

    id: str
    account: str
    kind: str
    product: str
    unit: str
    units: int
    bought: float
    ends: float
    used: int = 0
    held: int = 0

    def order(self) -> tuple[int, float, float, str]:
        return {"trial": 0, "paid": 1}[self.kind], self.ends, self.bought, self.id


@dataclass
class Spending:
    """What was used, and what each costs: (miss, hit, completion), searches, and the same in pico-units."""

    miss: int = 0
    hit: int = 0
    completion: int = 0
    searches: int = 0
    prices: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def owed(self) -> int:
        counts = (self.miss, self.hit, self.completion, self.searches)
        return sum(count * price for count, price in zip(counts, self.prices, strict=True))


@dataclass
class Held:
    account: str
    money: int
    units: list[Unit]
    credit: bool
    spans: list[tuple[str, int]]
    expires: float
    mine: bool = True
    ended: str | None = None
    known: Spending | None = None


@dataclass
class Purse:
    """An account. `credit` is None for one that must pay first, else how far below zero it may be settled (-1: any)."""

    credit: int | None = None
    granted: int = 0
    topped_up: int = 0
    post_paid: int = 0
    off: set[str] = field(default_factory=set)
    switched: dict[str, float] = field(default_factory=dict)
    hour: int = -1


class Model:
    def __init__(self, purses: dict[str, Purse]) -> None:
        self.purses = purses
        self.bundles: dict[str, Bundle] = {}
        self.holds: dict[str, Held] = {}
        self.deposits: set[str] = set()
        self.spent: dict[tuple[str, str, int], int] = {}

    def held(self, account: str) -> int:
        return sum(hold.money for hold in self.holds.values() if hold.account == account and hold.ended is None)

    def _span_held(self, account: str, span: tuple[str, int]) -> int:
        return sum(
            hold.money
            for hold in self.holds.values()
            if hold.account == account and hold.ended is None and span in hold.spans
        )

    def deposit(self, name: str, account: str, fund: str, amount: int) -> str:
        if name in self.deposits:
            return "exists"
        self.deposits.add(name)
        purse = self.purses[account]
        if fund == "granted":
            purse.granted += amount
        else:
            purse.topped_up += amount
        return "deposited"

    def pack(self, bundle: Bundle) -> str:
        if bundle.id in self.bundles:
            return "exists"
        self.bundles[bundle.id] = bundle
        return "deposited"

    def packs(self, account: str, now: float) -> list[tuple[str, int, int]]:
        mine = [each for each in self.bundles.values() if each.account == account]
        return [
            (each.id, each.used, each.held)
            for each in sorted(mine, key=Bundle.order)
            if each.ends > now and each.used < each.units
        ]

    def hold(
        self,
        name: str,
        account: str,
        amount: int,
        product: str,
        tokens: int,
        token_pico: int,
        searches: int,
        search_pico: int,
        limits: list[tuple[str, int, int]],
        now: float,
        expires: float,
    ) -> set[str]:
        """The answers that are right; where several refusals fit, any of them. `limits`: (span, its start, most)."""
        purse = self.purses[account]
        refusals = {"exists"} if name in self.holds else set()
        units: list[Unit] = []
        for each in sorted((b for b in self.bundles.values() if b.account == account), key=Bundle.order):
            free = each.units - each.used - each.held
            if each.ends <= now or free <= 0:
                continue
            if each.unit == "calls" and searches:
                units.append((each.id, min(free, searches)))
                searches -= units[-1][1]
            elif each.unit == "tokens" and each.product == product and tokens:
                units.append((each.id, min(free, tokens)))
                tokens -= units[-1][1]
        money = min(amount, tokens * token_pico + searches * search_pico) if units else amount
        credit = purse.credit is not None and product not in purse.off
        if money or not units:
            if not credit:
                if purse.granted + purse.topped_up + purse.post_paid - self.held(account) < money:
                    refusals.add("short")
            elif purse.credit != -1 and purse.topped_up < -(purse.credit or 0):
                refusals.add("short")
        for span, start, most in limits:
            spent = self.spent.get((account, span, start), 0)
            if spent + self._span_held(account, (span, start)) + money > most:
                refusals.add("budget")
        if refusals:
            return refusals
        for pack, some in units:
            self.bundles[pack].held += some
        spans = [(span, start) for span, start, _ in limits]
        self.holds[name] = Held(account, money, units, credit, spans, expires)
        return {"held"}

    def resolve(self, name: str, kind: str, spending: Spending) -> str:
        hold = self.holds.get(name)
        if hold is None:
            return "unknown"
        if hold.ended is not None:
            return "exists"
        hold.ended = kind
        for pack, some in hold.units:
            self.bundles[pack].held -= some
        if kind in {"posted", "recovered"}:
            self._charge(hold, spending)
        return "resolved"

    def _charge(self, hold: Held, spending: Spending) -> None:
        """One token after another, the dearest first; then one search after another."""
        *each_pico, search_pico = spending.prices
        counts = (spending.miss, spending.hit, spending.completion)
        tokens = sorted((price for price, n in zip(each_pico, counts, strict=True) for _ in range(n)), reverse=True)
        searches = [search_pico] * spending.searches
        for pack, some in hold.units:
            pile = searches if self.bundles[pack].unit == "calls" else tokens
            taken = min(some, len(pile))
            self.bundles[pack].used += taken
            del pile[:taken]
        for amount in (sum(tokens), sum(searches)):
            self._draw(self.purses[hold.account], amount, hold.credit)
        for span, start in hold.spans:
            place = (hold.account, span, start)
            self.spent[place] = self.spent.get(place, 0) + sum(tokens) + sum(searches)

    def _draw(self, purse: Purse, amount: int, credit: bool) -> None:
        for _ in range(amount):
            if purse.granted > 0:
                purse.granted -= 1
            elif purse.topped_up > 0 or not credit:
                purse.topped_up -= 1
            else:
                purse.post_paid -= 1

    def switch(self, account: str, product: str, on: bool, now: float) -> str:
        """Once an hour at most; to leave a switch as it is is no change."""
        purse = self.purses[account]
        if on == (product not in purse.off):
            return "switched"
        if now < purse.switched.get(product, 0.0) + 3600.0:
            return "rate"
        purse.switched[product] = now
        purse.off ^= {product}
        return "switched"

    def settle(self, now: float) -> int:
        count = 0
        for purse in self.purses.values():
            if purse.post_paid < 0 and purse.hour < int(now // 3600):
                purse.topped_up += purse.post_paid
                purse.post_paid, purse.hour = 0, int(now // 3600)
                count += 1
        return count

    def restart(self) -> None:
        for hold in self.holds.values():
            hold.mine = False
            hold.credit = self.purses[hold.account].credit is not None

    def left(self, now: float) -> list[str]:
        """Holds that no living process works on and that are past their time."""
        return [
            name for name, each in self.holds.items() if each.ended is None and not each.mine and each.expires <= now
        ]

    def end(self, names: list[str], kind: str) -> int:
        """What is known of them is charged; where nothing is, they end as `kind`."""
        for name in names:
            known = self.holds[name].known
            self.resolve(name, kind if known is None else "recovered", known or Spending())
        return len(names)
