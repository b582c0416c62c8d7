"""state/tally.py and booking.py: every step can be taken back, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.errors import Problem
from moonpool.ledger.funds import Funds, Holding, Pack, Spent
from moonpool.state import booking
from moonpool.state.base import Cost, Deposit, Hold, Resolution
from moonpool.state.tally import TOTALS, Entry, Tally, changed
from moonpool.words import Account, Limits, Price, Usage

_PRICE = Price(2, 1, 5, searches=100)
_ACCOUNT = Account("acme", "Acme", post_paid=True)
_AMOUNTS = st.integers(0, 500)


def _tally(granted: int = 50, topped_up: int = 60) -> Tally:
    packs = [
        Holding(Pack("t", "acme", "trial", "chat", "tokens", 7, "", 1.0, 99.0), 1),
        Holding(Pack("s", "acme", "paid", "search", "calls", 2, "", 1.0, 99.0)),
    ]
    return Tally(
        dict.fromkeys(TOTALS, 0),
        [Funds("acme", "CNY", granted, topped_up)],
        packs,
        [Spent("k", "CNY", "day", -28800, 3)],
    )


def _stands(tally: Tally) -> Any:
    """All that a tally knows, as plain values."""
    funds = [(f.granted, f.topped_up, f.held, f.post_paid) for f in tally.funds.values()]
    packs = [(each.pack.id, each.used, each.held) for each in tally.holdings["acme"]]
    spent = sorted((s.span, s.start, s.spent, s.held) for s in tally.spent.values() if s.spent or s.held)
    return funds, packs, spent, dict(tally.kinds), list(tally.tokens), tally.holds, list(tally.open)


def _hold(amount: int, tokens: int, searches: int, limits: Limits | None) -> Hold:
    return Hold("a", "acme", "k", "m", "h", amount, "CNY", 1.0, 9.0, "chat", tokens, 5, searches, 100, limits)


@given(
    amount=_AMOUNTS,
    tokens=st.integers(0, 20),
    searches=st.integers(0, 3),
    limits=st.sampled_from([None, Limits(day_pico=10**6), Limits(day_pico=10**6, month_pico=10**6)]),
    used=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)),
    kind=st.sampled_from(["posted", "voided", "expired", "recovered"]),
    cost=_AMOUNTS,
    earlier=st.lists(st.builds(Cost, st.just("h2"), _AMOUNTS, st.sampled_from(["", "USD"])), max_size=2),
)
def test_every_step_can_be_taken_back(
    amount: int, tokens: int, searches: int, limits: Any, used: Any, kind: Any, cost: int, earlier: Any
) -> None:
    """A hold and a resolution, of whatever kind and size, taken back leave money, packs and counts as before."""
    tally = _tally()
    before = _stands(tally)
    entry = tally.hold(_hold(amount, tokens, searches, limits), _ACCOUNT, None)
    assert isinstance(entry, Entry)
    held = _stands(tally)
    usage = Usage(used[0], used[1], used[2], searches=used[3])
    owed = used[0] * 2 + used[1] + used[2] * 5 + used[3] * 100
    resolution = Resolution("a", kind, usage, owed, cost, "h", "", 1, 2.0, "", tuple(earlier), _PRICE)
    tally.resolve(entry, resolution)
    moved = {(t.debit, t.credit): t.amount_pico for t in entry.transfers}
    assert entry.resolution is not None
    assert sum(v for (debit, _), v in moved.items() if debit.startswith("client:")) == entry.resolution.owed_pico
    tally.undo_resolution(entry)
    assert _stands(tally) == held
    tally.undo_hold(entry)
    assert _stands(tally) == before


def test_a_count_beyond_reason_is_voided() -> None:
    """What cannot be counted is booked as nothing, with our fault as its cause, and still counts as one end."""
    tally = _tally()
    entry = tally.hold(_hold(5, 0, 0, None), _ACCOUNT, None)
    assert isinstance(entry, Entry)
    tally.resolve(entry, Resolution("a", "posted", Usage(2**40), 7, 0, "h", "", 1, 2.0))
    assert entry.resolution is not None
    assert (entry.resolution.kind, entry.resolution.owed_pico, entry.resolution.cause) == (
        "voided",
        0,
        "platform.fault",
    )
    assert tally.kinds["voided"] == 1


def test_an_unbookable_cost_of_an_earlier_dispatch_voids_all() -> None:
    """No leg of a resolution may be beyond what can be booked."""
    tally = _tally()
    entry = tally.hold(_hold(5, 0, 0, None), _ACCOUNT, None)
    assert isinstance(entry, Entry)
    tally.resolve(entry, Resolution("a", "posted", Usage(1), 1, 0, "h", "", 1, 2.0, "", (Cost("h2", 10**18, ""),)))
    assert entry.resolution is not None
    assert entry.resolution.kind == "voided"
    assert entry.transfers == ()


def test_deposits_and_packs_taken_back() -> None:
    """What was booked and not written leaves nothing."""
    tally = _tally()
    before = _stands(tally)
    deposit = Deposit("d", "acme", "granted", 5, "CNY", "", 1.0)
    booking.deposit(tally, 1, deposit).undo()
    assert _stands(tally) == before
    tally.dirty = changed()
    booked, holding = booking.pack(tally, 2, Pack("n", "acme", "paid", "chat", "tokens", 9, "", 1.0, 9.0))
    assert tally.dirty.holdings == {holding}
    booked.undo()
    assert tally.dirty.holdings == set()


@pytest.mark.parametrize("units", [0, -1, 10**16])
def test_packs_of_impossible_size(units: int) -> None:
    """Refused, with the field that is wrong."""
    with pytest.raises(Problem, match="so many units") as caught:
        booking.pack(_tally(), 1, Pack("n", "acme", "paid", "chat", "tokens", units, "", 1.0, 9.0))
    assert caught.value.param == "units"
