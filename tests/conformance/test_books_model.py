"""Books against dictionaries (books_model.py): whatever is asked in whatever order, both say the same, and the auditor
is content."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from conformance.backends import STORES, a_deposit, audited
from conformance.books_model import Bundle, Model, Purse, Spending
from moonpool.errors import Problem
from moonpool.ledger.funds import Pack
from moonpool.state.base import Hold, Progress, Resolution, Store
from moonpool.words import Account, Limits, Price, Usage

_DAY_S = 86_400.0
_BEGIN = 1_798_732_800.0
"""The first moment of 2027 in Beijing."""
_IDS = st.sampled_from([f"id{each}" for each in range(8)])
_AMOUNTS = st.integers(0, 120)
_MUCH = st.integers(1, 1000)
_FEW = st.integers(0, 9)
_ACCOUNTS = st.sampled_from(["acme", "credit", "hourly"])
_PRODUCTS = st.sampled_from(["chat", "coder"])
_PRICES = st.tuples(_FEW, _FEW, _FEW, st.integers(0, 20))
_USED = st.builds(Spending, _FEW, _FEW, _FEW, st.integers(0, 3), _PRICES)


class _Asked(NamedTuple):
    """What a hold asks for."""

    account: str
    amount: int
    product: str
    tokens: int
    searches: int
    day: int | None
    month: int | None
    life_s: float


_ASKED = st.builds(
    _Asked,
    _ACCOUNTS,
    _AMOUNTS,
    _PRODUCTS,
    st.integers(0, 30),
    st.integers(0, 3),
    st.sampled_from([None, 60, 100, 150]),
    st.sampled_from([None, None, 150, 300]),
    st.floats(1, 2 * _DAY_S),
)
_CREDIT = {"acme": None, "credit": -1, "hourly": 30}


def _account(name: str) -> Account:
    credit = _CREDIT[name]
    return Account(name, name.title(), credit is not None, credit_pico=None if credit in {None, -1} else credit)


class _Machine(RuleBasedStateMachine):
    backend = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.model = Model({name: Purse(credit) for name, credit in _CREDIT.items()})
        self.now = _BEGIN
        self.store: Store = self.wait(self.opened())
        self.pending: list[tuple[Any, set[str]]] = []

    async def opened(self) -> Store:
        store = STORES[self.backend](self.folder)
        await store.start()
        for name in _CREDIT:
            await store.keys.save_account(_account(name))
        return store

    def wait(self, work: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(_awaited(work), 30)

        return self.loop.run_until_complete(bounded())

    def ask(self, work: Any, expected: set[str], at_once: bool) -> None:
        """Compare now, or later with others in one transaction."""

        async def asked() -> Any:
            return work()

        self.pending.append((self.wait(asked()), expected))
        if at_once:
            self.settle()

    def settle(self) -> None:
        pending, self.pending = self.pending, []
        for later, expected in pending:
            assert self.wait(later) in expected

    @initialize(amounts=st.tuples(_MUCH, _MUCH, _MUCH))
    def some_money(self, amounts: tuple[int, ...]) -> None:
        for account, amount in zip(_CREDIT, amounts, strict=True):
            self.deposit(f"first of {account}", account, "topped_up", amount)

    @rule(name=_IDS, account=_ACCOUNTS, fund=st.sampled_from(["granted", "topped_up"]), amount=st.integers(1, 120))
    def deposit(self, name: str, account: str, fund: str, amount: int) -> None:
        expected = self.model.deposit(name, account, fund, amount)
        assert self.wait(self.store.books.deposit(a_deposit(name, amount, fund, account))) == expected

    @rule(
        name=_IDS,
        account=_ACCOUNTS,
        kind=st.sampled_from(["trial", "paid"]),
        product=_PRODUCTS,
        unit=st.sampled_from(["tokens", "tokens", "calls"]),
        units=st.integers(1, 20),
        days=st.floats(0.1, 3.0),
    )
    def pack(self, name: str, account: str, kind: Any, product: str, unit: Any, units: int, days: float) -> None:
        bundle = Bundle(name, account, kind, product, unit, units, self.now, self.now + days * _DAY_S)
        expected = self.model.pack(bundle)
        pack = Pack(name, account, kind, product, unit, units, "a note", bundle.bought, bundle.ends)
        assert self.wait(self.store.books.add_pack(pack)) == expected

    @rule(name=_IDS, asked=_ASKED, at_once=st.booleans())
    def hold(self, name: str, asked: _Asked, at_once: bool) -> None:
        self.held(name, asked, at_once)

    def held(self, name: str, asked: _Asked, at_once: bool) -> bool:
        today = int((self.now - _BEGIN) // _DAY_S)
        starts = {"day": today, "month": today // 31}  # January has 31 days, and nothing here lasts until March
        bounds = [("day", asked.day), ("month", asked.month)]
        limits = [(span, starts[span], most) for span, most in bounds if most is not None]
        expires = self.now + asked.life_s
        expected = self.model.hold(
            name, asked.account, asked.amount, asked.product, asked.tokens, 9, asked.searches, 20, limits, self.now,
            expires,
        )  # fmt: skip
        wanted = Hold(
            name, asked.account, f"key-of-{asked.account}", "a-model", "a-host", asked.amount, "CNY", self.now, expires,
            asked.product, asked.tokens, 9, asked.searches, 20,
            Limits(day_pico=asked.day, month_pico=asked.month) if limits else None,
        )  # fmt: skip
        self.ask(lambda: self.store.books.hold(wanted), expected, at_once or expected != {"held"})
        return expected == {"held"}

    @rule(asked=st.lists(_ASKED, min_size=1, max_size=4), used=_USED)
    def serve(self, asked: list[_Asked], used: Spending) -> None:
        """Some requests, from begin to end; no other has their ids."""
        for each in asked:
            name = f"served{len(self.model.holds)}"
            if self.held(name, each, False):
                self.resolve(name, "posted", used, 3, False)

    @rule(
        name=_IDS,
        kind=st.sampled_from(["posted", "posted", "posted", "voided"]),
        used=_USED,
        cost=_AMOUNTS,
        at_once=st.booleans(),
    )
    def resolve(self, name: str, kind: Any, used: Spending, cost: int, at_once: bool) -> None:
        expected = {self.model.resolve(name, kind, used)}
        usage = Usage(used.miss, used.hit, used.completion, searches=used.searches)
        said = Resolution(name, kind, usage, used.owed, cost, "a-host", "", 1, self.now, price=_price(used))
        self.ask(lambda: self.store.books.resolve(said), expected, at_once)

    @rule(names=st.lists(_IDS, min_size=1, max_size=3), used=_USED)
    def progress(self, names: list[str], used: Spending) -> None:
        """Nobody is told; what is known counts when the process is gone."""
        known = Spending(used.miss, used.hit, used.completion, 0, used.prices)
        usage = Usage(known.miss, known.hit, known.completion, estimated=True)
        self.settle()  # only of a hold that is durable can there be progress
        for name in names:
            hold = self.model.holds.get(name)
            if hold is not None and hold.mine and hold.ended is None:
                hold.known = known
        rows = [Progress(name, usage, known.owed, 1, "a-host", "CNY", _price(known), self.now) for name in names]

        async def tell() -> None:
            self.store.books.progress(rows)

        self.wait(tell())

    @rule(hours=st.sampled_from([0.5, 1.0, 3.0, 23.0, 24.0, 100.0]))
    def time_passes(self, hours: float) -> None:
        self.now += hours * 3600.0

    @rule()
    def settle_hours(self) -> None:
        self.settle()
        assert self.wait(self.store.books.settle_hours(self.now)) == self.model.settle(self.now)

    @rule(account=_ACCOUNTS, product=_PRODUCTS, on=st.booleans())
    def switch(self, account: str, product: str, on: bool) -> None:
        expected = self.model.switch(account, product, on, self.now)
        try:
            self.wait(self.store.keys.switch_product(account, product, on, self.now))
        except Problem as problem:
            assert (problem.code, expected) == ("account.rate", "rate")  # noqa: PT017 - either way is right at times
        else:
            assert expected == "switched"

    @rule()
    def expire(self) -> None:
        count = self.model.end(self.model.left(self.now), "expired")
        assert self.wait(self.store.books.expire(self.now)) == count

    @rule()
    def recover(self) -> None:
        count = self.model.end(self.model.left(float("inf")), "recovered")
        assert self.wait(self.store.books.recover(self.now)) == count

    @rule()
    def restart(self) -> None:
        self.wait(self.store.stop())
        self.settle()
        self.model.restart()
        self.store = self.wait(self.opened())

    @invariant()
    def same(self) -> None:
        model, books = self.model, self.store.books
        for account, purse in model.purses.items():
            found = self.wait(books.balance(account, "CNY"))
            stands = (found.granted_pico, found.topped_up_pico, found.post_paid_pico, found.held_pico)
            assert stands == (purse.granted, purse.topped_up, purse.post_paid, model.held(account)), account
            packs = [(each.pack.id, each.used, each.held) for each in self.wait(books.packs(account, self.now))]
            assert packs == model.packs(account, self.now), account
        totals = self.wait(books.totals())
        ended = [hold.ended for hold in model.holds.values() if hold.ended is not None]
        assert totals["holds"] == len(model.holds)
        assert totals["open"] == len(model.holds) - len(ended)
        for kind in ("posted", "voided", "expired", "recovered"):
            assert totals[kind] == ended.count(kind)

    def teardown(self) -> None:
        try:
            self.settle()
            self.wait(self.store.stop())
            assert audited(self.backend, self.folder) == []
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)


def _price(used: Spending) -> Price:
    miss, hit, completion, searches = used.prices
    return Price(miss, hit, completion, searches=searches, version="a price")


async def _awaited(work: Any) -> Any:
    return await work


@pytest.mark.timeout(900)  # a failure is made small before it is shown
@pytest.mark.parametrize("backend", STORES)
def test_books_are_dictionaries(backend: str) -> None:
    """Deposits, packs, holds, progress, resolutions, settlements, switches, expiry, recovery, restarts, the passing of
    days, in any order: answers, balances, packs and what keys may spend are the model's, to the last unit."""
    machine = type("Machine", (_Machine,), {"backend": backend})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=60 if backend == "sqlite" else 12,  # a new database for each costs a while
            stateful_step_count=40,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
