"""What was used, as people's programs read it: how a question is written in a query, how rows look in JSON and CSV.

Times: `start` and `end` (exclusive) are Unix seconds, a day ("2026-11-01", its first moment in Beijing) or an ISO time
(in Beijing where it names no zone). Without `end` it is now; without `start` the first moment of that month. Amounts
are texts with every digit there is.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

from moonpool.errors import Problem
from moonpool.ledger.money import exact
from moonpool.ledger.reports import GROUPS, LIMIT_MAX, CallRow, Group, UsageRow
from moonpool.ledger.spans import ZONE, month_of

_YEAR_9999_S: Final = 253_370_736_000
_DIGITS_MAX: Final = 12
LIMIT: Final = 100
STATEMENT_HEADS: Final = ("day", "what", "fund", "model", "requests", "currency", "amount")


def span_of(query: Mapping[str, str], now: float) -> tuple[float, float]:
    """`start` and `end` of a question. Raises caller.invalid_value."""
    end = _moment(query, "end") if "end" in query else now
    # The month of the last moment that is asked for: `end=2026-12-01` means November.
    start = _moment(query, "start") if "start" in query else float(month_of(max(end - 1, 0)))
    if start > end:
        raise Problem("caller.invalid_value", "start is after end.", param="start")
    return start, end


def _moment(query: Mapping[str, str], name: str) -> float:
    text = query[name]
    try:
        if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX:
            at = float(text)
        else:
            found = datetime.datetime.fromisoformat(text)
            at = (found if found.tzinfo else found.replace(tzinfo=ZONE)).timestamp()
        if 0 <= at <= _YEAR_9999_S:
            return at
    except (ValueError, OverflowError):
        pass
    raise Problem("caller.invalid_value", f"{name} is a day like 2026-11-01, a time, or Unix seconds.", param=name)


def month(text: str) -> int:
    """The first second of a month like 2026-11. Raises caller.invalid_value."""
    try:
        year, dash, number = text.partition("-")
        if dash and len(text) == 7 and text.isascii() and year.isdecimal() and number.isdecimal() and int(year) >= 1970:
            return int(datetime.datetime(int(year), int(number), 1, tzinfo=ZONE).timestamp())
    except ValueError:
        pass
    raise Problem("caller.invalid_value", "month is written like 2026-11.", param="month")


def groups_of(text: str, allowed: Sequence[Group]) -> tuple[Group, ...]:
    """`group_by` of a question: names with commas between them, in any order. Raises caller.invalid_value."""
    names = {name.strip() for name in text.split(",")} - {""}
    if not names <= set(allowed):
        raise Problem("caller.invalid_value", f"group_by takes {', '.join(allowed)}.", param="group_by")
    if {"hour", "day"} <= names:
        raise Problem("caller.invalid_value", "group_by takes hour or day, not both.", param="group_by")
    return tuple(name for name in GROUPS if name in names)


def limit_of(query: Mapping[str, str], default: int = LIMIT) -> int:
    """How many rows a page may have. Raises caller.invalid_value."""
    text = query.get("limit", str(default))
    if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX and 1 <= int(text) <= LIMIT_MAX:
        return int(text)
    raise Problem("caller.invalid_value", f"limit is a number from 1 to {LIMIT_MAX}.", param="limit")


def day(at: int) -> str:
    return datetime.datetime.fromtimestamp(at, ZONE).strftime("%Y-%m-%d")


def hour(at: int) -> str:
    return datetime.datetime.fromtimestamp(at, ZONE).isoformat(timespec="minutes")


def usage_row(
    row: UsageRow, groups: Sequence[Group], names: Mapping[str, str] | None = None, *, costs: bool = False
) -> dict[str, Any]:
    """A row of sums: what it is grouped by first. `names` are those of accounts by id; `costs` adds what we owe."""
    page: dict[str, Any] = {}
    for group in groups:
        if group == "day":
            page["day"] = day(row.at or 0)
        elif group == "hour":
            page["hour"] = hour(row.at or 0)
        elif group == "account":
            page["account"] = (names or {}).get(row.account or "", row.account)
        else:
            page[group] = getattr(row, group)
    page |= {
        "requests": row.requests,
        "posted": row.posted,
        "estimated": row.estimated,
        "prompt_tokens": row.prompt_hit + row.prompt_miss,
        "prompt_cache_hit_tokens": row.prompt_hit,
        "prompt_cache_miss_tokens": row.prompt_miss,
        "completion_tokens": row.completion,
        "reasoning_tokens": row.reasoning,
        "searches": row.searches,
        "pack_units": row.pack_units,
        "currency": row.currency,
        "amount": exact(row.owed_pico),
        "granted": exact(row.granted_pico),
        "topped_up": exact(row.topped_up_pico),
        "on_credit": exact(row.owed_pico - row.granted_pico - row.topped_up_pico),
    }
    if costs:
        page |= {"cost_currency": row.cost_currency, "cost": exact(row.cost_pico)}
    return page


def usage_heads(groups: Sequence[Group], *, costs: bool = False) -> list[str]:
    return list(usage_row(UsageRow(""), groups, costs=costs))


def call_row(row: CallRow, names: Mapping[str, str]) -> dict[str, Any]:
    """A call for operators. `paid` is empty for one that cost nothing."""
    return {
        "id": row.id,
        "at": row.created_at,
        "ended_at": row.resolved_at,
        "account": names.get(row.account, row.account),
        "key": row.key,
        "model": row.model,
        "host": row.host,
        "kind": row.kind,
        "cause": row.cause,
        "attempts": row.attempts,
        "prompt_cache_hit_tokens": row.prompt_hit,
        "prompt_cache_miss_tokens": row.prompt_miss,
        "completion_tokens": row.completion,
        "reasoning_tokens": row.reasoning,
        "searches": row.searches,
        "estimated": row.estimated,
        "currency": row.currency,
        "amount": exact(row.owed_pico),
        "cost": exact(row.cost_pico),
        "price": row.price,
        "paid": [{"source": leg.source, "unit": leg.unit, "amount": _of(leg.amount, leg.unit)} for leg in row.paid],
    }


def _of(amount: int, unit: str) -> str:
    """Packs count whole units, everything else pico-units of a currency."""
    return str(amount) if unit in {"tokens", "calls"} else exact(amount)


_NO_CALL: Any = (0, "", "", "", "", "", 0.0, 0.0, "", "", 0, 0, 0, 0, 0, 0, False, "", 0, 0, "")
CALL_HEADS: Final = tuple(call_row(CallRow(*_NO_CALL), {}))
"""Of a table of calls; what paid for one is a text there."""


def flat(page: Mapping[str, Any]) -> list[Any]:
    """A row of JSON as cells."""
    return [
        " ".join(f"{each['source']}={each['amount']}" for each in value) if isinstance(value, list) else value
        for value in page.values()
    ]
