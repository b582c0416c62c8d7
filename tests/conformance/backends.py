"""Every implementation of the store and of the limiter, and what suites over them share.

A store is opened on a folder; opening the same folder again, after `stop`, is the next start of the same platform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from moonpool.state.base import Deposit, Hold, Kind, Limiter, Resolution, Store
from moonpool.state.memory import MemoryLimiter
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Account, Usage

STORES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SqliteStore(folder / "moonpool.db")}
LIMITERS: dict[str, Callable[[], Limiter]] = {"memory": MemoryLimiter}

PREPAID = Account("acme", "Acme")
POSTPAID = Account("credit", "Credit", post_paid=True)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; what has not ended after half a minute hangs."""
    asyncio.run(asyncio.wait_for(work, 30))


async def opened(backend: str, folder: Path) -> Store:
    """A started store with the accounts PREPAID (no money yet) and POSTPAID."""
    store = STORES[backend](folder)
    await store.start()
    for account in (PREPAID, POSTPAID):
        await store.keys.save_account(account)
    return store


def a_hold(
    hold_id: str, amount_pico: int = 0, account: str = "credit", currency: str = "CNY", expires_at: float = 100.0
) -> Hold:
    return Hold(hold_id, account, "AbCdEfGhIjKl", "a-model", "a-host", amount_pico, currency, 1.0, expires_at)


def a_resolution(
    hold_id: str, kind: Kind = "posted", owed_pico: int = 0, cost_pico: int = 0, usage: Usage | None = None
) -> Resolution:
    return Resolution(hold_id, kind, usage or Usage(3, 2, 5, 1), owed_pico, cost_pico, "a-host", "", 1, 2.0)


def a_deposit(
    deposit_id: str, amount_pico: int, fund: str = "topped_up", account: str = "acme", currency: str = "CNY"
) -> Deposit:
    return Deposit(deposit_id, account, fund, amount_pico, currency, "a test", 1.0)  # type: ignore[arg-type]
