"""Admin routes that read what was used: sums, calls, the statement of a month.

Rules: a route below /accounts/{name} is about that account alone, and tells nothing of hosts and costs, so that its
owner may read it; /usage and /calls are for operators. Each is pages of JSON, or with `format=csv` one table of all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from moonpool.ledger.money import exact
from moonpool.ledger.reports import GROUPS, LIMIT_MAX, CallsAsk, Group, Movement, Standing, UsageAsk
from moonpool.ledger.spans import month_of
from moonpool.web import csv, sums
from moonpool.web.admin.routing import Answer, Ask, Desk, Route

Rows = tuple[list[dict[str, Any]], str | None]

USAGE_QUERY: Final = ("account", "key", "model", "host", "start", "end", "group_by", "limit", "after", "format")
CALLS_QUERY: Final = ("account", "key", "model", "host", "start", "end", "limit", "after", "format")
OWN_USAGE_QUERY: Final = tuple(name for name in USAGE_QUERY if name not in {"account", "host"})
OWN_CALLS_QUERY: Final = tuple(name for name in CALLS_QUERY if name not in {"account", "host"})
_OWN_GROUPS: Final[tuple[Group, ...]] = ("hour", "day", "key", "model")
_OPERATORS_ONLY: Final = frozenset({"account", "host", "cost", "attempts"})


async def usage(desk: Desk, ask: Ask) -> Answer:
    """Sums of what was used: by `group_by` (account, key, model, host, day or hour, with commas), of `account`, `key`,
    `model`, `host`, within [`start`, `end`)."""
    account = None if ask.account is None else ask.account.id
    return await _usage(desk, ask, account, GROUPS, costs=True)


async def account_usage(desk: Desk, ask: Ask) -> Answer:
    """As /usage, of one account, without hosts and costs."""
    account = ask.about()
    return await _usage(desk, ask, account.id, _OWN_GROUPS, costs=False)


async def calls(desk: Desk, ask: Ask) -> Answer:
    """Every call that ended, newest first, with what paid for it."""
    account = None if ask.account is None else ask.account.id
    return await _calls(desk, ask, account, frozenset())


async def account_calls(desk: Desk, ask: Ask) -> Answer:
    """As /calls, of one account, without hosts and costs."""
    account = ask.about()
    return await _calls(desk, ask, account.id, _OPERATORS_ONLY)


async def statement(desk: Desk, ask: Ask) -> Answer:
    """What an account had at the beginning of `month` (2026-11, in Beijing; left out, this one), each kind of movement
    by day, model and fund, and what it had at the end: opening + lines = closing, exactly, in each currency and
    fund."""
    account = ask.about()
    month = sums.month(ask.query["month"]) if "month" in ask.query else month_of(desk.clock())
    found = await desk.reports.statement(account.id, month)
    lines = [
        {
            "day": sums.day(line.day),
            "what": line.what,
            "fund": line.fund,
            "model": line.model,
            "requests": line.requests,
            "currency": line.currency,
            "amount": exact(line.amount_pico),
        }
        for line in found.lines
    ]
    if csv.wanted(ask.query.get("format"), ""):
        cells = [list(line.values()) for line in lines]

        async def page(_: str | None) -> csv.Page:
            return cells, None

        return 200, csv.Csv("statement", sums.STATEMENT_HEADS, page)
    return 200, {
        "account": account.name,
        "month": sums.day(month)[:7],
        "start": found.start,
        "end": found.end,
        "opening": [_standing(each) for each in found.opening],
        "lines": lines,
        "closing": [_standing(each) for each in found.closing],
        "packs": [_pack(each) for each in found.packs],
        "pack_use": [{"day": sums.day(each.day), "model": each.model, "units": each.units} for each in found.pack_use],
    }


def _standing(each: Standing) -> dict[str, str]:
    return {
        "currency": each.currency,
        "granted": exact(each.granted_pico),
        "topped_up": exact(each.topped_up_pico),
        "post_paid": exact(each.post_paid_pico),
        "total": exact(each.total_pico()),
    }


def _pack(each: Movement) -> dict[str, object]:
    return {
        "id": each.id,
        "what": each.detail,
        "unit": each.unit,
        "units": each.amount,
        "at": each.at,
        "note": each.note,
    }


async def _usage(desk: Desk, ask: Ask, account: str | None, allowed: Sequence[Group], *, costs: bool) -> Answer:
    query = ask.query
    start, end = sums.span_of(query, desk.clock())
    groups = sums.groups_of(query.get("group_by", ""), allowed)
    wanted = UsageAsk(start, end, groups, query.get("key"), query.get("model"), query.get("host"), costs)
    names = await _names(desk) if "account" in groups else {}

    async def rows(limit: int, after: str | None) -> Rows:
        page = await desk.reports.usage(account, wanted, limit, after)
        return [sums.usage_row(row, groups, names, costs=costs) for row in page.rows], page.next

    heads = sums.usage_heads(groups, costs=costs)
    return await _answer(query, "usage", heads, rows, {"start": start, "end": end, "group_by": groups})


async def _calls(desk: Desk, ask: Ask, account: str | None, without: frozenset[str]) -> Answer:
    query = ask.query
    start, end = sums.span_of(query, desk.clock())
    wanted = CallsAsk(start, end, query.get("key"), query.get("model"), query.get("host"))
    names = await _names(desk)

    async def rows(limit: int, after: str | None) -> Rows:
        page = await desk.reports.calls(account, wanted, limit, after)
        found = (sums.call_row(row, names) for row in page.rows)
        return [{name: value for name, value in row.items() if name not in without} for row in found], page.next

    heads = [name for name in sums.CALL_HEADS if name not in without]
    return await _answer(query, "calls", heads, rows, {"start": start, "end": end})


async def _answer(
    query: Mapping[str, str],
    name: str,
    heads: Sequence[str],
    rows: Callable[[int, str | None], Awaitable[Rows]],
    about: Mapping[str, Any],
) -> Answer:
    """A page of JSON, or everything as CSV."""
    if csv.wanted(query.get("format"), ""):

        async def page(after: str | None) -> csv.Page:
            found, following = await rows(LIMIT_MAX, after)
            return [sums.flat(row) for row in found], following

        return 200, csv.Csv(name, heads, page)
    found, following = await rows(sums.limit_of(query), query.get("after"))
    return 200, {**about, "data": found, "next": following}


async def _names(desk: Desk) -> dict[str, str]:
    return {account.id: account.name for account in await desk.keys.accounts()}


ROUTES: Final = (
    Route("GET", "/usage", usage, "Sums of what was used.", None, about="query", query=USAGE_QUERY),
    Route("GET", "/calls", calls, "The calls one by one.", None, about="query", query=CALLS_QUERY),
    Route(
        "GET", "/accounts/{name}/usage", account_usage, "Sums of what an account used.", None,
        who="member", about="path", query=OWN_USAGE_QUERY,
    ),
    Route(
        "GET", "/accounts/{name}/calls", account_calls, "An account's calls.", None,
        who="member", about="path", query=OWN_CALLS_QUERY,
    ),
    Route(
        "GET", "/accounts/{name}/statement", statement, "What became of an account's money in a month.", None,
        who="member", about="path", query=("month", "format"),
    ),
)  # fmt: skip
