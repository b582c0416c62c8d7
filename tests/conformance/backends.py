"""Every implementation of the store and of the limiter, and what suites over them share.

A store is opened on a folder; opening the same folder again, after `stop`, is the next start of the same platform.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from faults.auditor import audit, audit_at
from moonpool.state.base import Deposit, Hold, Kind, Resolution, Store, Vault, VaultBounds
from moonpool.state.base_limits import Limiter
from moonpool.state.memory import MemoryLimiter
from moonpool.state.postgres import PostgresStore
from moonpool.state.sqlite import SqliteStore
from moonpool.state.thoughts import MemoryVault
from moonpool.state.valkey import ValkeyLimiter
from moonpool.state.valkey_link import Link
from moonpool.words import Account, Usage
from postgres import database_in

STORES: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(folder / "moonpool.db"),
    "postgres": lambda folder: PostgresStore(database_in(folder)),
}


class Limits:
    """A limiter that lives by the test's clock, and whose leases it said were lost."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lost: list[str] = []
        self.limiter: Limiter


def _memory_limits(url: str, limits: Limits) -> Limiter:
    return MemoryLimiter(limits.lost.append)


def _valkey_limits(url: str, limits: Limits) -> Limiter:
    """The time goes to the store with each call, which may be slow here: what then becomes of it is another suite's."""
    link = Link(url, store_clock=False, call_s=10.0)
    return ValkeyLimiter(link, limits.lost.append, node="node0", clock=lambda: limits.now)


LIMITERS: dict[str, Callable[[str, Limits], Limiter]] = {
    "memory": _memory_limits,
    "redis": _valkey_limits,
    "valkey": _valkey_limits,
}
"""The one over a store runs over both programs that it is made for (`valkey_server.PROGRAMS`)."""


@contextlib.asynccontextmanager
async def limits(backend: str, url: str) -> AsyncIterator[Limits]:
    """`url`: of an empty store, where the backend needs one."""
    made = Limits()
    made.limiter = LIMITERS[backend](url, made)
    await made.limiter.start(made.now)
    try:
        yield made
        assert made.limiter.trouble() is None
    finally:
        await made.limiter.stop()


def audited(backend: str, folder: Path) -> list[str]:
    """What the auditor finds wrong with the ledger that belongs to this folder."""
    return audit_at(database_in(folder)) if backend == "postgres" else audit(folder / "moonpool.db")


VAULT_SECRET = "a secret of a test, longer than a guess"


@contextlib.asynccontextmanager
async def _memory_vault(folder: Path, bounds: VaultBounds) -> AsyncIterator[Vault]:
    yield MemoryVault(bounds)


@contextlib.asynccontextmanager
async def _sqlite_vault(folder: Path, bounds: VaultBounds) -> AsyncIterator[Vault]:
    store = SqliteStore(folder / "moonpool.db")
    store.seal_with(VAULT_SECRET, bounds)
    await store.start()
    assert store.vault is not None
    yield store.vault
    await store.stop()


@contextlib.asynccontextmanager
async def _postgres_vault(folder: Path, bounds: VaultBounds) -> AsyncIterator[Vault]:
    store = PostgresStore(database_in(folder))
    store.seal_with(VAULT_SECRET, bounds)
    await store.start()
    assert store.vault is not None
    yield store.vault
    await store.stop()


@contextlib.asynccontextmanager
async def _forgetful_vault(folder: Path, bounds: VaultBounds) -> AsyncIterator[Vault]:
    """The one over the database without the memory before it."""
    async with _sqlite_vault(folder, replace(bounds, memory_bytes_max=0)) as vault:
        yield vault


VAULTS: dict[str, Callable[[Path, VaultBounds], AbstractAsyncContextManager[Vault]]] = {
    "memory": _memory_vault,
    "sqlite": _sqlite_vault,
    "postgres": _postgres_vault,
    "sqlite without memory": _forgetful_vault,
}

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
