"""Books against a dictionary: whatever is asked in whatever order, both say the same, and the auditor is content."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from conformance.backends import STORES, a_deposit, a_hold, a_resolution, audited, opened
from moonpool.state.base import Store

_IDS = st.sampled_from([f"id{each}" for each in range(8)])
_AMOUNTS = st.integers(0, 120)
_ACCOUNTS = st.sampled_from(["acme", "credit"])


class _Model:
    """What should be: funds by account, holds with what they are and how they ended."""

    def __init__(self) -> None:
        self.granted = {"acme": 0, "credit": 0}
        self.topped_up = {"acme": 0, "credit": 0}
        self.holds: dict[str, tuple[str, int, float]] = {}
        self.ended: dict[str, str] = {}
        self.mine: set[str] = set()
        self.deposits: set[str] = set()

    def held(self, account: str) -> int:
        return sum(amount for name, (who, amount, _) in self.holds.items() if who == account and name not in self.ended)

    def hold(self, name: str, account: str, amount: int, expires_at: float) -> set[str]:
        """The answers that are right. For a repetition that is not covered either, both refusals are."""
        free = self.granted[account] + self.topped_up[account] - self.held(account)
        refusals = {"exists"} if name in self.holds else set()
        if account == "acme" and free < amount:
            refusals.add("short")
        if not refusals:
            self.holds[name] = (account, amount, expires_at)
            self.mine.add(name)
        return refusals or {"held"}

    def resolve(self, name: str, kind: str, owed: int) -> str:
        if name not in self.holds:
            return "unknown"
        if name in self.ended:
            return "exists"
        self.ended[name] = kind
        account = self.holds[name][0]
        if kind == "posted":
            granted = min(owed, max(self.granted[account], 0))
            self.granted[account] -= granted
            self.topped_up[account] -= owed - granted
        return "resolved"

    def left(self, now: float) -> list[str]:
        """Holds that no living process works on and that are past their time."""
        return [
            name
            for name, (_, _, expires_at) in self.holds.items()
            if name not in self.ended and name not in self.mine and expires_at <= now
        ]


class _Machine(RuleBasedStateMachine):
    backend = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.model = _Model()
        self.store: Store = self.wait(opened(self.backend, self.folder))
        self.pending: list[tuple[Any, set[str]]] = []

    def wait(self, work: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(_awaited(work), 30)

        return self.loop.run_until_complete(bounded())

    def ask(self, later: Any, expected: set[str], at_once: bool) -> None:
        """Compare now, or later with others in one transaction."""
        self.pending.append((later, expected))
        if at_once:
            self.settle()

    def settle(self) -> None:
        pending, self.pending = self.pending, []
        for later, expected in pending:
            assert self.wait(later) in expected

    @initialize(amount=_AMOUNTS)
    def some_money(self, amount: int) -> None:
        if amount:
            self.deposit("first", "acme", "topped_up", amount)

    @rule(name=_IDS, account=_ACCOUNTS, fund=st.sampled_from(["granted", "topped_up"]), amount=st.integers(1, 120))
    def deposit(self, name: str, account: str, fund: str, amount: int) -> None:
        expected = "exists" if name in self.model.deposits else "deposited"
        assert self.wait(self.store.books.deposit(a_deposit(name, amount, fund, account))) == expected
        if expected == "deposited":
            self.model.deposits.add(name)
            (self.model.granted if fund == "granted" else self.model.topped_up)[account] += amount

    @rule(name=_IDS, account=_ACCOUNTS, amount=_AMOUNTS, expires_at=st.floats(1, 100), at_once=st.booleans())
    def hold(self, name: str, account: str, amount: int, expires_at: float, at_once: bool) -> None:
        expected = self.model.hold(name, account, amount, expires_at)

        async def ask() -> Any:
            return self.store.books.hold(a_hold(name, amount, account, expires_at=expires_at))

        self.ask(self.wait(ask()), expected, at_once or expected != {"held"})

    @rule(
        name=_IDS,
        kind=st.sampled_from(["posted", "posted", "voided"]),
        owed=_AMOUNTS,
        cost=_AMOUNTS,
        at_once=st.booleans(),
    )
    def resolve(self, name: str, kind: Any, owed: int, cost: int, at_once: bool) -> None:
        expected = {self.model.resolve(name, kind, owed)}

        async def ask() -> Any:
            return self.store.books.resolve(a_resolution(name, kind, owed, cost))

        self.ask(self.wait(ask()), expected, at_once)

    @rule(now=st.floats(1, 100))
    def expire(self, now: float) -> None:
        left = self.model.left(now)
        for name in left:
            self.model.resolve(name, "expired", 0)
        assert self.wait(self.store.books.expire(now)) == len(left)

    @rule()
    def recover(self) -> None:
        left = self.model.left(float("inf"))
        for name in left:
            self.model.resolve(name, "recovered", 0)
        assert self.wait(self.store.books.recover(50.0)) == len(left)

    @rule()
    def restart(self) -> None:
        self.wait(self.store.stop())
        self.settle()
        self.model.mine.clear()
        self.store = self.wait(opened(self.backend, self.folder))

    @invariant()
    def same(self) -> None:
        model = self.model
        for account in ("acme", "credit"):
            found = self.wait(self.store.books.balance(account, "CNY"))
            stands = (found.granted_pico, found.topped_up_pico + found.post_paid_pico, found.held_pico)
            assert stands == (model.granted[account], model.topped_up[account], model.held(account))
        totals = self.wait(self.store.books.totals())
        assert totals["holds"] == len(model.holds)
        assert totals["open"] == len(model.holds) - len(model.ended)
        for kind in ("posted", "voided", "expired", "recovered"):
            assert totals[kind] == list(model.ended.values()).count(kind)

    def teardown(self) -> None:
        try:
            self.settle()
            self.wait(self.store.stop())
            assert audited(self.backend, self.folder) == []
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)


async def _awaited(work: Any) -> Any:
    return await work


@pytest.mark.parametrize("backend", STORES)
def test_books_are_a_dictionary(backend: str) -> None:
    """Deposits, holds, resolutions, expiry, recovery, restarts in any order: answers and balances are the model's."""
    machine = type("Machine", (_Machine,), {"backend": backend})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=40 if backend == "sqlite" else 12,  # a new database for each costs a while
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
