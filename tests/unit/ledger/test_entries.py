"""ledger/entries.py: which amounts move where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.ledger import entries
from moonpool.ledger.entries import Transfer

_AMOUNTS = st.integers(0, entries.AMOUNT_PICO_MAX)


@given(owed=_AMOUNTS, granted=st.integers(-100, entries.AMOUNT_PICO_MAX))
def test_draw(owed: int, granted: int) -> None:
    """Everything owed is drawn, granted money first and never below zero."""
    from_granted, from_topped_up = entries.draw(owed, granted)
    assert from_granted + from_topped_up == owed
    assert from_granted == max(0, min(owed, granted))
    assert from_topped_up >= 0


# (granted, topped up, cost) -> the transfers of a resolution
_LEGS = {
    (0, 0, 0): (),
    (0, 7, 0): (Transfer(1, "client:acme:topped_up", "revenue", 7, "CNY"),),
    (5, 7, 3): (
        Transfer(0, "client:acme:granted", "revenue", 5, "CNY"),
        Transfer(1, "client:acme:topped_up", "revenue", 7, "CNY"),
        Transfer(2, "cost", "host:there", 3, "USD"),
    ),
    (0, 0, 3): (Transfer(2, "cost", "host:there", 3, "USD"),),
}


@pytest.mark.parametrize("amounts", _LEGS)
def test_legs(amounts: tuple[int, int, int]) -> None:
    """What the client owes goes to revenue, what we owe goes from cost to the host; nothing moves nothing."""
    granted, topped_up, cost = amounts
    assert entries.legs("acme", (granted, topped_up), "CNY", "there", cost, "USD") == _LEGS[amounts]


def test_deposits() -> None:
    """What a client paid comes from cash, what it was given from grants."""
    assert entries.deposited("acme", "topped_up", 9, "CNY") == Transfer(0, "cash", "client:acme:topped_up", 9, "CNY")
    assert entries.deposited("acme", "granted", 9, "CNY") == Transfer(0, "grants", "client:acme:granted", 9, "CNY")


_NAMES = st.sampled_from(["revenue", "cost", "cash", "client:a:granted", "host:b"])
_TRANSFERS = st.lists(st.builds(Transfer, st.just(0), _NAMES, _NAMES, _AMOUNTS, st.sampled_from(["CNY", "USD"])))


@given(_TRANSFERS)
def test_the_books_are_closed(transfers: list[Transfer]) -> None:
    """Whatever is transferred, the balances of a currency sum to zero."""
    found = entries.balances(transfers)
    for currency in ("CNY", "USD"):
        assert sum(amount for (_, each), amount in found.items() if each == currency) == 0


def test_balances() -> None:
    """A balance is what was credited less what was debited."""
    found = entries.balances([Transfer(0, "a", "b", 5, "CNY"), Transfer(0, "b", "c", 2, "CNY")])
    assert found == {("a", "CNY"): -5, ("b", "CNY"): 3, ("c", "CNY"): 2}


@pytest.mark.parametrize(
    ("available", "amount", "post_paid", "answer"),
    [
        (10, 10, False, True),
        (10, 11, False, False),
        (0, 0, False, True),
        (-1, 0, False, False),
        (-1, 0, True, True),
        (0, 99, True, True),
    ],
)
def test_covers(available: int, amount: int, post_paid: bool, answer: bool) -> None:
    """A hold needs its amount; arrears cover nothing; post-paid accounts may owe."""
    assert entries.covers(available, amount, post_paid) is answer


def test_what_can_be_booked() -> None:
    """Amounts from nothing to the bound; only a post is charged for."""
    assert [entries.bookable(each) for each in (-1, 0, 10**17, 10**17 + 1)] == [False, True, True, False]
    assert [kind for kind in ("posted", "voided", "expired", "recovered") if entries.charges(kind)] == ["posted"]
