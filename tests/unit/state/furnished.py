"""A ledger with a little of everything in it, written by the books."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from moonpool.state.base import Cost, Deposit, Hold, Pack, Progress, Resolution
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Account, Limits, Price, Usage
from unit.state.rows import DAY, HOUR, NOVEMBER

NOW = NOVEMBER + 5 * DAY
PRICE = Price(2, 1, 3, searches=50, version="v1")
USED = Usage(10, 5, 7, 2, searches=1)


def a_hold(hold_id: str, at: float, amount: int, account: str = "acme", **more: Any) -> Hold:
    return Hold(hold_id, account, f"key-{account}", "m1", "h1", amount, "CNY", at, at + 600, **more)


def an_end(hold_id: str, at: float, owed: int, **more: Any) -> Resolution:
    return Resolution(hold_id, "posted", USED, owed, 60, "h1", "stop", 1, at, price=PRICE, **more)


def furnish(path: Path) -> Path:
    """The database of `write`, closed."""

    async def run() -> None:
        store = SqliteStore(path)
        await store.start()
        await write(store)
        await store.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
    return path


async def write(store: SqliteStore) -> None:
    """A little of everything: every fund, packs of both kinds, limits of a key, settlements, two currencies of costs, a
    dispatch that failed before another one, calls without money, one that was voided, one that is open."""
    books = store.books
    for account in (Account("acme", "Acme"), Account("credit", "Credit", post_paid=True)):
        await store.keys.save_account(account)
    await books.deposit(Deposit("d1", "acme", "granted", 120, "CNY", "", NOVEMBER))
    await books.deposit(Deposit("d2", "acme", "topped_up", 100_000, "CNY", "", NOVEMBER + 1))
    await books.deposit(Deposit("d3", "credit", "topped_up", 30, "CNY", "", NOVEMBER + 1))
    await books.add_pack(Pack("p1", "acme", "trial", "chat", "tokens", 30, "", NOVEMBER, NOVEMBER + 300 * DAY))
    await books.add_pack(Pack("p2", "acme", "paid", "search", "calls", 2, "", NOVEMBER, NOVEMBER + 300 * DAY))
    limits = Limits(day_pico=10**6, month_pico=10**7)
    at = NOVEMBER + 10.0
    for number in range(12):
        at += 7 * HOUR
        account = "credit" if number % 3 == 2 else "acme"
        more: dict[str, Any] = {"product": "chat", "tokens": 40, "token_pico": 3, "searches": 1, "search_pico": 50}
        if account == "acme":
            more["limits"] = limits
        assert await books.hold(a_hold(f"c{number}", at, 200, account, **more)) == "held"
        earlier = (Cost("h0", 9, "USD"),) if number == 4 else ()
        currency = "USD" if number == 5 else ""
        await books.resolve(an_end(f"c{number}", at + 3, 96, earlier=earlier, cost_currency=currency))
        if number == 6:
            await books.settle_hours(at + HOUR)
    assert await books.hold(a_hold("void", at, 50)) == "held"
    await books.resolve(Resolution("void", "voided", Usage(), 0, 0, "", "caller.gone", 0, at + 1))
    assert await books.hold(a_hold("open", NOW - 5, 70, limits=limits)) == "held"
    books.progress([Progress("open", USED, 50, 60, "h1", "CNY", PRICE, NOW - 4)])
    # In one go with the progress, which nobody waits for.
    assert await books.hold(a_hold("open too", NOW - 3, 20)) == "held"
