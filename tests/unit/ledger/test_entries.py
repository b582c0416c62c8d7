"""ledger/entries.py: which amounts move where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.ledger import entries
from moonpool.ledger.entries import Transfer

_AMOUNTS = st.integers(0, entries.AMOUNT_PICO_MAX)


# (granted, topped up, on credit) -> the transfers of what a client pays
_PAID = {
    (0, 0, 0): [],
    (0, 7, 0): [Transfer(1, "client:acme:topped_up", "revenue", 7, "CNY")],
    (5, 7, 2): [
        Transfer(0, "client:acme:granted", "revenue", 5, "CNY"),
        Transfer(1, "client:acme:topped_up", "revenue", 7, "CNY"),
        Transfer(1000, "client:acme:post_paid", "revenue", 2, "CNY"),
    ],
}


@pytest.mark.parametrize("drawn", _PAID)
def test_what_a_client_pays(drawn: tuple[int, int, int]) -> None:
    """What the client owes goes to revenue, from each fund by itself; nothing moves nothing."""
    assert entries.paid("acme", drawn, "CNY") == _PAID[drawn]


def test_fees() -> None:
    """What searches cost goes where it can be told apart, and no leg of it has a number that an answer's has."""
    fees = entries.paid("acme", (1, 2, 3), "CNY", fee=True)
    assert [fee.credit for fee in fees] == ["fees"] * 3
    assert [fee.leg for fee in fees] == [1001, 1002, 1003]
    assert not {fee.leg for fee in fees} & {leg.leg for leg in entries.paid("acme", (1, 2, 3), "CNY")}


def test_costs() -> None:
    """What we owe goes from cost to the host, each dispatch by itself."""
    assert entries.owed("there", 3, "USD") == Transfer(2, "cost", "host:there", 3, "USD")
    assert entries.cost_leg(0, "here", 4, "CNY") == Transfer(3, "cost", "host:here", 4, "CNY")


def test_packs() -> None:
    """Units come from packs and go where they are used, in a currency of their own."""
    assert entries.packed("p", 9, "tokens") == Transfer(0, "packs", "pack:p", 9, "tokens")
    assert entries.unpacked(1, "p", 4, "tokens") == Transfer(2001, "pack:p", "used", 4, "tokens")


def test_settlements() -> None:
    """What was used on credit is taken from what was topped up."""
    moved = Transfer(0, "client:acme:topped_up", "client:acme:post_paid", 4, "CNY")
    assert entries.settled("acme", 4, "CNY") == moved


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


def test_what_can_be_booked() -> None:
    """Amounts from nothing to the bound; what was posted or recovered is charged for."""
    assert [entries.bookable(each) for each in (-1, 0, 10**17, 10**17 + 1)] == [False, True, True, False]
    assert [kind for kind in ("posted", "voided", "expired", "recovered") if entries.charges(kind)] == [
        "posted",
        "recovered",
    ]
