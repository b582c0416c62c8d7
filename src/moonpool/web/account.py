"""What a key may read of its account: the balance in DeepSeek's and in New API's shapes, and what was used.

Rules:
- Whose account it is says the key that was shown, never the request; the account's id stands in every question.
- A key reads its own usage. With the switch `sees=account` it reads that of all keys of its account: a key lies in
  programs and on other people's machines, and what colleagues use is none of their business unless the account's owner
  says so. What hosts cost us, and which host answered, no key reads.
- The balance is the account's: that is what DeepSeek's route means, and what a program has to know before it asks.
- New API's three numbers agree: left = hard_limit_usd - total_usage/100. `used` is what the key used in this month of
  Beijing; as there, the dates of a question change nothing, or that difference would be wrong.
- The reports of an account are made one after another, so that nobody's questions fill the thread that writes.

Shapes: PROVIDERS 1.2 (balance), 4.3 (New API); amounts are in the account's currency, nothing is converted.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final
from urllib.parse import parse_qsl

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger.funds import in_arrears
from moonpool.ledger.money import UNIT_PICO, decimal
from moonpool.ledger.reports import LIMIT_MAX, Group, UsageAsk
from moonpool.ledger.spans import day_of, month_of
from moonpool.relay.path import authenticate
from moonpool.relay.platform import Platform
from moonpool.state.base import Balance
from moonpool.web import csv, sums
from moonpool.words import Account, Arrival, Key

QUOTA_A_UNIT: Final = 500_000
"""New API counts in these: so many are one unit of the currency."""
_UNLIMITED: Final = 100_000_000
_MICRO_PICO: Final = UNIT_PICO // 1_000_000
_GROUPS: Final[tuple[Group, ...]] = ("hour", "day", "key", "model")
_PARAMETERS: Final = frozenset({"start", "end", "group_by", "key", "model", "limit", "after", "format"})

_WAITING_MAX: Final = 16
_lines: dict[tuple[int, str], deque[Later[None]]] = {}
"""(which store, account) -> who waits for the report that is being made."""


async def balance(platform: Platform, arrival: Arrival) -> object:
    """GET /user/balance in DeepSeek's shape: amounts are strings with two decimals. What was used on credit and is not
    settled yet has left the topped-up money here; what running requests set aside has left the total."""
    _, account = await authenticate(platform, arrival)
    found = await _balances(platform, account)
    packs = await platform.books.packs(account.id, platform.clock())
    return {
        "is_available": _available(account, found, bool(packs)),
        "balance_infos": [
            {
                "currency": each.currency,
                "total_balance": decimal(_left(each)),
                "granted_balance": decimal(each.granted_pico),
                "topped_up_balance": decimal(each.topped_up_pico + each.post_paid_pico),
            }
            for each in found
        ],
    }


async def _balances(platform: Platform, account: Account) -> list[Balance]:
    """In every currency of the account, the one it uses first; as the books know it now, not as it is on disk."""
    first = await platform.books.balance(account.id)
    if first is None:
        return []
    others = [each.currency for each in await platform.reports.balances(account.id) if each.currency != first.currency]
    found = [await platform.books.balance(account.id, currency) for currency in others]
    return [first, *(each for each in found if each is not None)]


def _left(balance: Balance) -> int:
    return balance.granted_pico + balance.topped_up_pico + balance.post_paid_pico - balance.held_pico


def _available(account: Account, found: list[Balance], packs: bool) -> bool:
    """Would a request that costs something be served?"""
    if account.disabled:
        return False
    if account.post_paid:
        return not any(in_arrears(each.topped_up_pico, account) for each in found)
    return packs or any(_left(each) > 0 for each in found)


class Purse(Struct, frozen=True):
    """What a key can still spend (None: no limit) and what it spent this month, pico-units of one currency."""

    left_pico: int | None
    used_pico: int


async def _purse(platform: Platform, key: Key, account: Account) -> Purse:
    """The tightest of the key's own limits and the account's funds."""
    now = platform.clock()
    found = await platform.books.balance(account.id)
    currency = "" if found is None else found.currency

    async def used(start: int) -> int:
        page = await platform.reports.usage(account.id, UsageAsk(start, now + 1, key=key.id), LIMIT_MAX)
        return sum(row.owed_pico for row in page.rows if row.currency == currency)

    of_month = await used(month_of(now))
    left = []
    if key.limits is not None and key.limits.month_pico is not None:
        left.append(key.limits.month_pico - of_month)
    if key.limits is not None and key.limits.day_pico is not None:
        left.append(key.limits.day_pico - await used(day_of(now)))
    if found is not None and not account.post_paid:
        left.append(_left(found))
    elif found is not None and account.credit_pico is not None:
        left.append(_left(found) + account.credit_pico)
    return Purse(max(0, min(left)) if left else None, of_month)


async def subscription(platform: Platform, arrival: Arrival) -> object:
    """GET /dashboard/billing/subscription in New API's shape."""
    key, account = await authenticate(platform, arrival)
    purse = await _purse(platform, key, account)
    hard: float = _UNLIMITED
    if purse.left_pico is not None:
        hard = (purse.left_pico // _MICRO_PICO + purse.used_pico // _MICRO_PICO) / 1e6
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": hard,
        "hard_limit_usd": hard,
        "system_hard_limit_usd": hard,
        "access_until": _expiry(key),
    }


async def billing_usage(platform: Platform, arrival: Arrival) -> object:
    """GET /dashboard/billing/usage in New API's shape: hundredths of the currency."""
    key, account = await authenticate(platform, arrival)
    purse = await _purse(platform, key, account)
    return {"object": "list", "total_usage": purse.used_pico // _MICRO_PICO / 1e4}


async def token_usage(platform: Platform, arrival: Arrival) -> object:
    """GET /api/usage/token in New API's shape: QUOTA_A_UNIT for each unit of the currency."""
    key, account = await authenticate(platform, arrival)
    purse = await _purse(platform, key, account)
    used = purse.used_pico * QUOTA_A_UNIT // UNIT_PICO
    left = 0 if purse.left_pico is None else purse.left_pico * QUOTA_A_UNIT // UNIT_PICO
    models = sorted(key.limits.models) if key.limits is not None else []
    return {
        "code": True,
        "message": "ok",
        "data": {
            "object": "token_usage",
            "name": key.name,
            "total_granted": used + left,
            "total_used": used,
            "total_available": left,
            "unlimited_quota": purse.left_pico is None,
            "model_limits": dict.fromkeys(models, True),
            "model_limits_enabled": bool(models),
            "expires_at": _expiry(key),
        },
    }


def _expiry(key: Key) -> int:
    """Unix seconds; 0 for a key that does not expire."""
    expires_at = key.limits.expires_at if key.limits is not None else None
    return 0 if expires_at is None else int(expires_at)


async def usage(platform: Platform, arrival: Arrival) -> object:
    """GET /usage?start=&end=&group_by=key,model,day&key=&model=: sums of what was used, as pages of JSON or as CSV."""
    key, account = await authenticate(platform, arrival)
    query = dict(parse_qsl(arrival.query, keep_blank_values=True))
    for name in query:
        if name not in _PARAMETERS:
            raise Problem("caller.invalid_value", f"There is no parameter {name!r} here.", param=name)
    wanted = query.get("key")
    if key.switches.get("sees") != "account":
        if wanted not in {None, key.id}:
            raise Problem("account.forbidden", "This key reads its own usage only.", param="key")
        wanted = key.id
    start, end = sums.span_of(query, platform.clock())
    groups = sums.groups_of(query.get("group_by", ""), _GROUPS)
    ask = UsageAsk(start, end, groups, wanted, query.get("model"))
    if csv.wanted(query.get("format"), arrival.headers.get("accept", "")):

        async def page(after: str | None) -> csv.Page:
            rows, following = await _rows(platform, account, ask, LIMIT_MAX, after)
            return [sums.flat(row) for row in rows], following

        return csv.Csv("usage", sums.usage_heads(groups), page)
    rows, following = await _rows(platform, account, ask, sums.limit_of(query), query.get("after"))
    return {"object": "list", "start": start, "end": end, "group_by": groups, "data": rows, "next": following}


async def _rows(
    platform: Platform, account: Account, ask: UsageAsk, limit: int, after: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    place = (id(platform.reports), account.id)
    line = _lines.get(place)
    if line is None:
        _lines[place] = deque()
    elif len(line) >= _WAITING_MAX:
        raise Problem("account.rate", "Other reports of this account are being made.", retry_after_s=1)
    else:
        turn: Later[None] = Later()
        line.append(turn)
        await turn
    try:
        page = await platform.reports.usage(account.id, ask, limit, after)
    finally:
        line = _lines[place]
        if line:
            line.popleft().set(None)
        else:
            del _lines[place]
    return [sums.usage_row(row, ask.group_by) for row in page.rows], page.next
