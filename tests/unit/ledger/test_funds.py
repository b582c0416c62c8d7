"""ledger/funds.py: what pays, in which order."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moonpool.ledger import funds
from moonpool.ledger.funds import Funds, Holding, Pack
from moonpool.words import Account, Price, Usage

_AMOUNTS = st.integers(0, 10**6)


@example(owed=5, granted=1, topped_up=1, credit=True)
@given(owed=_AMOUNTS, granted=st.integers(-100, 10**6), topped_up=st.integers(-100, 10**6), credit=st.booleans())
def test_draw(owed: int, granted: int, topped_up: int, credit: bool) -> None:
    """Everything owed is drawn: granted money first, then topped-up money, neither below zero while there is credit."""
    drawn = funds.draw(owed, Funds("acme", "CNY", granted, topped_up), credit)
    assert sum(drawn) == owed
    assert min(drawn) >= 0
    assert drawn[0] == max(0, min(owed, granted))
    if credit:
        assert drawn[1] == max(0, min(owed - drawn[0], topped_up))
    else:
        assert drawn[2] == 0


def _pack(name: str, kind: str, units: int, expires_at: float, product: str = "chat", unit: str = "tokens") -> Holding:
    return Holding(Pack(name, "acme", kind, product, unit, units, "", 1.0, expires_at))  # type: ignore[arg-type]


def test_the_order_of_packs() -> None:
    """Trial packs before paid ones; among them the one that ends first."""
    holdings = [
        _pack("paid-late", "paid", 1, 30.0),
        _pack("trial-late", "trial", 1, 40.0),
        _pack("paid-soon", "paid", 1, 20.0),
        _pack("trial-soon", "trial", 1, 10.0),
    ]
    names = [holding.pack.id for holding in sorted(holdings, key=funds.rank)]
    assert names == ["trial-soon", "trial-late", "paid-soon", "paid-late"]


# tokens and searches wanted -> (units of which packs, left over), of a trial of 3 tokens, 10 paid tokens, 2 calls
_RESERVED = {
    (0, 0): ((), 0, 0),
    (2, 0): ((("trial", 2),), 0, 0),
    (5, 1): ((("trial", 3), ("paid", 2), ("calls", 1)), 0, 0),
    (20, 3): ((("trial", 3), ("paid", 10), ("calls", 2)), 7, 1),
}


@pytest.mark.parametrize("wanted", _RESERVED)
def test_reserve(wanted: tuple[int, int]) -> None:
    """Packs of the product and of searches are set aside in their order, as far as they go."""
    holdings = [
        _pack("trial", "trial", 3, 50.0),
        _pack("other", "paid", 99, 60.0, product="another"),
        _pack("over", "paid", 99, 5.0),
        _pack("paid", "paid", 10, 60.0),
        _pack("calls", "paid", 2, 60.0, product="search", unit="calls"),
    ]
    assert funds.reserve(holdings, "chat", *wanted, now=5.0) == _RESERVED[wanted]


def test_what_is_used_or_held_is_not_free() -> None:
    """Of ten units of which four are used and five held, one can be set aside."""
    holding = _pack("p", "paid", 10, 50.0)
    holding.used, holding.held = 4, 5
    assert funds.reserve([holding], "chat", 7, 0, 1.0) == ((("p", 1),), 6, 0)
    holding.held = 6
    assert funds.reserve([holding], "chat", 7, 0, 1.0) == ((), 7, 0)


_PRICE = Price(4, 1, 16, searches=1000)


# (tokens, searches) that packs pay for -> what those of 10 miss, 20 hit, 5 completion and 2 searches cost
_WORTH = {
    (0, 0): (0, 0),
    (3, 1): (48, 1000),
    (7, 9): (5 * 16 + 2 * 4, 2000),
    (99, 0): (5 * 16 + 10 * 4 + 20, 0),
}


@pytest.mark.parametrize("covered", _WORTH)
def test_packs_pay_for_the_dearest(covered: tuple[int, int]) -> None:
    """The tokens that packs pay for are the dearest ones of the answer."""
    assert funds.worth(Usage(10, 20, 5, searches=2), _PRICE, *covered) == _WORTH[covered]


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 3),
    st.integers(0, 80),
    st.integers(0, 80),
)
def test_split(miss: int, hit: int, completion: int, searches: int, first: int, second: int) -> None:
    """Units are used in the order they were set aside, no more than there are; tokens and calls each by itself."""
    usage = Usage(miss, hit, completion, searches=searches)
    units = tuple((name, some) for name, some in (("a", first), ("b", second), ("c", 2)) if some)
    used, tokens, calls = funds.split(units, frozenset({"c"}), usage)
    found = dict(used)
    assert tokens == min(miss + hit + completion, first + second) == found.get("a", 0) + found.get("b", 0)
    assert calls == min(searches, 2) == found.get("c", 0)
    assert found.get("a", 0) == min(first, miss + hit + completion)
    assert all(some > 0 for some in found.values())


# account, product -> may it use the product beyond its funds?
_CREDIT = [
    (Account("a", "A"), "chat", False),
    (Account("a", "A", post_paid=True), "chat", True),
    (Account("a", "A", post_paid=True, products_off=frozenset({"chat"})), "chat", False),
    (Account("a", "A", post_paid=True, products_off=frozenset({"chat"})), "other", True),
]


@pytest.mark.parametrize("account,product,answer", _CREDIT)
def test_credit(account: Account, product: str, answer: bool) -> None:
    """Post-paid accounts may, but for products that are switched off."""
    assert funds.on_credit(account, product) is answer


@pytest.mark.parametrize(
    "credit,topped_up,answer", [(None, -(10**9), False), (0, 0, False), (0, -1, True), (5, -5, False)]
)
def test_arrears(credit: int | None, topped_up: int, answer: bool) -> None:
    """Only what was settled counts, and only beyond the credit that was given."""
    account = Account("a", "A", post_paid=True, credit_pico=credit)
    assert funds.in_arrears(topped_up, account) is answer
    assert funds.owes_too_much(account, topped_up, -(10**6)) is answer


@pytest.mark.parametrize("available,answer", [(0, False), (-1, True), (1, False)])
def test_arrears_without_credit(available: int, answer: bool) -> None:
    """Who has no credit owes too much as soon as anything is owed."""
    assert funds.owes_too_much(Account("a", "A"), 0, available) is answer
