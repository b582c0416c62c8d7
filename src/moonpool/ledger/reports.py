"""What can be asked of the books, and what they answer: sums of usage, calls, movements, a month's statement. Pure.

Rules:
- Sums are counted by the hour: `start` of a question is taken back to the beginning of its hour and `end` forward to
  the end of its. Days and months are those of Beijing (spans.py), so no moment is in two of them (RELIABILITY 181).
- Amounts of different currencies are never added: each row has one.
- A page says where the next one begins. The mark is made of what the last row is sorted by, so a row that comes
  meanwhile moves nothing; it is opaque to whoever shows it.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from moonpool.errors import Problem
from moonpool.ledger.spans import DAY_S, HOUR_S, day_of, hour_of

Group = Literal["hour", "day", "account", "key", "model", "host"]
GROUPS: Final[tuple[Group, ...]] = ("hour", "day", "account", "key", "model", "host")
"""In the order in which rows are sorted; `hour` and `day` exclude each other."""
LIMIT_MAX: Final = 1000


class UsageAsk(Struct, frozen=True):
    """Sums over [start, end), one row for each value of `group_by` and each currency. `costs`: with what we owe hosts,
    which is for operators only."""

    start: float
    end: float
    group_by: tuple[Group, ...] = ()
    key: str | None = None
    model: str | None = None
    host: str | None = None
    costs: bool = False


class UsageRow(Struct, frozen=True):
    """Sums of calls by when they ended. `at` is the first second of the hour or day; what was not grouped by is None.
    `requests` counts every kind of end, `posted` those that were charged, `estimated` those whose tokens we counted.
    `owed_pico` is money of every fund; `granted_pico` and `topped_up_pico` are its parts from there, and what is left
    went on credit. `cost_pico` is what we owe hosts in `cost_currency`."""

    currency: str
    at: int | None = None
    account: str | None = None
    key: str | None = None
    model: str | None = None
    host: str | None = None
    cost_currency: str | None = None
    requests: int = 0
    posted: int = 0
    estimated: int = 0
    prompt_miss: int = 0
    prompt_hit: int = 0
    completion: int = 0
    reasoning: int = 0
    searches: int = 0
    pack_units: int = 0
    owed_pico: int = 0
    granted_pico: int = 0
    topped_up_pico: int = 0
    cost_pico: int = 0


SUMS: Final = UsageRow.__struct_fields__[UsageRow.__struct_fields__.index("requests") :]
"""The fields of UsageRow that are sums: columns of the table `usage`."""


class UsagePage(Struct, frozen=True):
    rows: list[UsageRow]
    next: str | None


class CallsAsk(Struct, frozen=True):
    """Calls that arrived within [start, end) and have ended."""

    start: float
    end: float
    key: str | None = None
    model: str | None = None
    host: str | None = None


class Leg(Struct, frozen=True):
    """A part of what a client paid for a call: `source` is `granted`, `topped_up`, `post_paid` or `pack:ID`; `amount`
    are pico-units of a currency, or units of a pack (`unit`: the currency, `tokens` or `calls`)."""

    source: str
    amount: int
    unit: str


class CallRow(Struct, frozen=True):
    """One call: its hold and how that ended. `price` names the price that was paid."""

    seq: int
    id: str
    account: str
    key: str
    model: str
    host: str
    created_at: float
    resolved_at: float
    kind: str
    cause: str
    attempts: int
    prompt_miss: int
    prompt_hit: int
    completion: int
    reasoning: int
    searches: int
    estimated: bool
    currency: str
    owed_pico: int
    cost_pico: int
    price: str
    paid: tuple[Leg, ...] = ()


class CallsPage(Struct, frozen=True):
    """Newest first. A page may have fewer rows than asked for, even none, and go on all the same: looking for the few
    calls of a small account among those of all is cut into pieces."""

    rows: list[CallRow]
    next: str | None


class Movement(Struct, frozen=True):
    """Something an account got or settled. `what` is `granted`, `topped_up`, `settled`, or `pack`; `unit` the currency,
    or what a pack counts."""

    seq: int
    what: str
    id: str
    amount: int
    unit: str
    at: float
    note: str = ""
    detail: str = ""


class Standing(Struct, frozen=True):
    """The funds of an account in one currency at one moment; `post_paid_pico` is zero or below."""

    currency: str
    granted_pico: int = 0
    topped_up_pico: int = 0
    post_paid_pico: int = 0

    def total_pico(self) -> int:
        return self.granted_pico + self.topped_up_pico + self.post_paid_pico


class StatementLine(Struct, frozen=True):
    """What one kind of movement added to one fund on one day, below zero for what was taken. `what` is `usage` (with
    its model and number of calls), `granted`, `topped_up` or `settled`."""

    day: int
    what: str
    fund: str
    currency: str
    amount_pico: int
    model: str = ""
    requests: int = 0


class PackUse(Struct, frozen=True):
    """Units of packs that calls of a model used on a day."""

    day: int
    model: str
    units: int


class Statement(Struct, frozen=True):
    """The month [start, end) of an account: for each currency `opening` + the amounts of `lines` = `closing`, exactly,
    fund by fund. `packs` are those it got in this month."""

    account: str
    start: int
    end: int
    opening: list[Standing]
    lines: list[StatementLine]
    closing: list[Standing]
    packs: list[Movement]
    pack_use: list[PackUse]


class Segment(Struct, frozen=True):
    """Rows of one `span` of the table `usage` with `start` <= their start < `end`. `at`: the day they belong to, where
    days are asked for and this segment is a part of one."""

    span: Literal["hour", "day"]
    start: int
    end: int
    at: int | None = None


def segments(start: float, end: float, by_hour: bool, by_day: bool) -> list[Segment]:
    """Which rows to add up for [start, end): whole days of Beijing as days, what is left at both ends as hours; every
    hour for itself only where hours are asked for."""
    first, last = hour_of(start), math.ceil(end / HOUR_S) * HOUR_S
    if first >= last:
        return []
    if by_hour:
        return [Segment("hour", first, last)]
    day, last_day = -(-(first - day_of(0)) // DAY_S) * DAY_S + day_of(0), day_of(last)
    # Where no whole day is in it, it may still touch two.
    edges = ((first, min(day, last)), (max(day, first, last_day), last))
    parts = [Segment("hour", a, b, day_of(a) if by_day else None) for a, b in edges if a < b]
    if day < last_day:
        parts.insert(1 if first < day else 0, Segment("day", day, last_day))
    return parts


def mark(*place: Any) -> str:
    """Where a page ended, as text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(text: str | None, length: int) -> list[Any] | None:
    """What `mark` was given; its parts are texts, numbers and None. Raises caller.invalid_value."""
    if text is None:
        return None
    try:
        found = msgspec.json.decode(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=list[str | int | None]
        )
    except (msgspec.DecodeError, msgspec.ValidationError, binascii.Error, ValueError):
        found = []
    if len(found) != length:
        raise Problem("caller.invalid_value", "This is not what `next` of a page said.", param="after")
    return found
