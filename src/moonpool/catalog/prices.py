"""What does a token cost now? Dated prices with peak hours, made once; asking for the price of a moment makes nothing.

A `Schedule` remembers the price that it found last, with since when and until when it holds: a request costs one
comparison, and only the first one after a change looks at dates and calendars. Every price is made when rows are read,
so what the books name (`Price.version`) is one record: "flash@2026-09-10", "flash@2026-09-10/peak".
"""

from __future__ import annotations

import datetime
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from moonpool.catalog.calendars import Calendar, midnight, shown
from moonpool.catalog.rows import AgreedRow, PeakRow, PriceRow
from moonpool.ledger.money import exact, factor_of, fee_of, price_of
from moonpool.settings import ConfigError, nearest
from moonpool.words import Price

PEAK: Final = "/peak"
_AMOUNTS: Final = ("prompt_miss", "prompt_hit", "completion")
_encode: Final = msgspec.json.Encoder().encode
_CHANGES_MAX: Final = 4_000
"""How many spans are looked at for the next change: more than five years of days with two peaks each."""


class Step(Struct, frozen=True):
    """What holds from `start` (Unix seconds) on: `price`, and `peak` in the hours of `calendar`. Or, of what was agreed
    with one account, `factor` times the list's price, and then `price` only names it."""

    start: float
    price: Price
    peak: Price | None = None
    calendar: Calendar | None = None
    factor: Fraction | None = None


class Schedule:
    """Prices over time, `steps` by their start, at least one. Before the first one `beneath` holds; without that, the
    first one itself."""

    __slots__ = ("_made", "_starts", "beneath", "price", "since", "steps", "until")

    def __init__(self, steps: Sequence[Step], beneath: Schedule | None = None) -> None:
        self.steps = tuple(steps)
        self.beneath = beneath
        self._starts = [step.start for step in steps]
        self._made: dict[str, Price] = {}
        self.since = self.until = 0.0
        self.price = steps[0].price

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and (self.steps, self.beneath) == (other.steps, other.beneath)

    __hash__ = None  # type: ignore[assignment]

    def at(self, at: float) -> Price:
        """What holds at this moment (Unix seconds)."""
        return self.price if self.since <= at < self.until else self.find(at)

    def find(self, at: float) -> Price:
        """The same, looked up, and remembered for the next who asks."""
        self.price, self.since, self.until = self.look(at)
        return self.price

    def look(self, at: float) -> tuple[Price, float, float]:
        """(price, since when, until when): what comes then may be the same price again."""
        place = bisect_right(self._starts, at) - 1
        beneath = self.beneath
        if place < 0:
            if beneath is not None:
                price, since, until = beneath.look(at)
                return price, since, min(until, self._starts[0])
            place = 0
        step = self.steps[place]
        since = -math.inf if place == 0 and beneath is None else step.start
        until = self._starts[place + 1] if place + 1 < len(self.steps) else math.inf
        price = step.price
        if step.factor is not None:
            assert beneath is not None, "a factor is of something"
            price, first, last = beneath.look(at)
            return self._times(price, step), max(since, first), min(until, last)
        if step.calendar is not None:
            is_peak, first, last = step.calendar.span(at)
            if is_peak and step.peak is not None:
                price = step.peak
            return price, max(since, first), min(until, last)
        return price, since, until

    def changes_at(self, at: float) -> float | None:
        """When there will be another price than at this moment; None if that is not in sight."""
        now, _, until = self.look(at)
        for _ in range(_CHANGES_MAX):
            if until == math.inf:
                return None
            price, since, following = self.look(until)
            if price != now:
                return since
            until = following
        return None

    def calendars(self) -> Iterator[Calendar]:
        """Those that its prices go by."""
        for step in self.steps:
            if step.calendar is not None:
                yield step.calendar
        if self.beneath is not None:
            yield from self.beneath.calendars()

    def _times(self, price: Price, step: Step) -> Price:
        """`factor` times a price, made once for each."""
        found = self._made.get(price.version)
        if found is None:
            assert step.factor is not None
            found = self._made[price.version] = _scaled(
                price, step.factor, f"{step.price.version}*{price.version}", step.price.valid_from
            )
        return found


FREE: Final = Schedule((Step(0.0, Price(version="free")),))
"""What costs nothing."""


def _scaled(price: Price, factor: Fraction, version: str, valid_from: str) -> Price:
    """Rounded down: never more than was agreed."""
    amounts = {name: int(getattr(price, name) * factor) for name in (*_AMOUNTS, "searches")}
    return replace(price, version=version, valid_from=valid_from, **amounts)


def schedule(
    rows: Sequence[PriceRow], name: str, key: str, file: str, known: Mapping[str, Calendar], *, marked: bool = False
) -> tuple[Step, ...]:
    """The steps of dated rows, named `name` in the books; () for no rows. `marked`: they can be said anew at any time,
    so the name tells what each says ("models.flash#5d41402a@2026-12-01"). Raises ConfigError."""
    found: list[Step] = []
    for at, row in enumerate(rows):
        start = float(midnight(row.valid_from))
        if found and start <= found[-1].start:
            raise ConfigError(file, f"{key}[{at}]", "prices stand in the order of their dates.")
        named = f"{name}#{_mark(row)}" if marked else name
        found.append(_step(row, row.valid_from.isoformat(), start, named, f"{key}[{at}]", file, known))
    return tuple(found)


def _mark(row: PriceRow) -> str:
    """The same for who says the same, on every node."""
    return blake2b(_encode(row), digest_size=4).hexdigest()


def agreed(
    rows: Mapping[str, AgreedRow], list_price: Schedule, name: str, key: str, known: Mapping[str, Calendar]
) -> Schedule:
    """What one account pays for one model: `rows` by their first day (ISO), over the list's price. Raises
    ConfigError."""
    steps = []
    for day, row in sorted(rows.items()):
        start = float(midnight(_date(day, key)))
        if not row.factor:
            steps.append(_step(row, day, start, name, f"{key}.{day}", "", known))
            continue
        if row.peak is not None or any(getattr(row, field) for field in _AMOUNTS):
            raise ConfigError("", f"{key}.{day}", "has a factor or amounts, not both.")
        try:
            factor = factor_of(row.factor)
        except ValueError as error:
            raise ConfigError("", f"{key}.{day}.factor", f"{error}.") from None
        steps.append(Step(start, Price(version=f"{name}@{day}", valid_from=day), factor=factor))
    return Schedule(steps, list_price)


def _date(text: str, key: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ConfigError("", key, f"{text!r} is no date, like 2026-11-01.")
    return day


def _step(
    row: PriceRow | AgreedRow,
    day: str,
    start: float,
    name: str,
    key: str,
    file: str,
    known: Mapping[str, Calendar],
) -> Step:
    try:
        price = Price(
            price_of(row.prompt_miss),
            price_of(row.prompt_hit),
            price_of(row.completion),
            row.currency,
            day,
            fee_of(row.searches),
            f"{name}@{day}",
        )
    except ValueError as error:
        raise ConfigError(file, key, f"{error}.") from None
    if row.peak is None:
        return Step(start, price)
    if row.peak.calendar not in known:
        sentence = f"there is no calendar {row.peak.calendar!r}{nearest(row.peak.calendar, known)}"
        raise ConfigError(file, f"{key}.peak.calendar", sentence)
    try:
        peak = _peak(row.peak, price)
    except ValueError as error:
        raise ConfigError(file, f"{key}.peak", f"{error}.") from None
    return Step(start, price, peak, known[row.peak.calendar])


def _peak(row: PeakRow, price: Price) -> Price:
    """Raises ValueError with a sentence."""
    given = [field for field in _AMOUNTS if getattr(row, field)]
    if bool(row.factor) is bool(given) or (given and len(given) < len(_AMOUNTS)):
        raise ValueError(f"has either a factor or all of {', '.join(_AMOUNTS)}")
    amounts: dict[str, int] = {}
    for field in _AMOUNTS:
        if given:
            amounts[field] = price_of(getattr(row, field))
            continue
        amount = getattr(price, field) * factor_of(row.factor)
        if amount.denominator != 1:
            raise ValueError(f"{row.factor} times {field} has more than 6 decimals")
        amounts[field] = int(amount)
    return replace(price, version=price.version + PEAK, **amounts)


# For people


def table(price: Price) -> dict[str, str]:
    """Amounts per million tokens, and per thousand searches."""
    amounts = {name: exact(getattr(price, name) * 10**6) for name in _AMOUNTS}
    if price.searches:
        amounts["searches"] = exact(price.searches * 10**3)
    return {"valid_from": price.valid_from, "currency": price.currency, **amounts, "version": price.version}


def step_table(step: Step) -> dict[str, Any]:
    """One dated price with its peak."""
    if step.factor is not None:
        return {"valid_from": step.price.valid_from, "factor": _decimal(step.factor), "version": step.price.version}
    page: dict[str, Any] = table(step.price)
    if step.peak is not None and step.calendar is not None:
        page["peak"] = {**{name: exact(getattr(step.peak, name) * 10**6) for name in _AMOUNTS}}
        page["peak"]["calendar"] = shown(step.calendar)
    return page


def now_table(prices: Schedule, at: float) -> dict[str, Any]:
    """What holds at `at`: the price, whether it is peak, and until when (Unix seconds; None: no change in sight)."""
    price = prices.look(at)[0]
    changes_at = prices.changes_at(at)
    return {
        **table(price),
        "peak": price.version.endswith(PEAK),
        "until": None if changes_at is None else int(changes_at),
    }


def _decimal(factor: Fraction) -> str:
    """As it was written: a factor has a finite number of decimals."""
    return f"{float(factor):g}"
