"""Money is exact: what is parsed, multiplied and written again is the same to the last digit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.ledger.money import UNIT_PICO, amount, bound, cost, decimal, exact, price_of
from moonpool.words import Price, Usage

TOKENS = st.integers(0, 2**31)
PICO = st.integers(0, 10**9)
PRICES = st.builds(Price, PICO, PICO, PICO)


@pytest.mark.parametrize(
    ("per_million", "pico"),
    [("0", 0), ("0.0028", 2_800), ("0.003625", 3_625), ("0.02", 20_000), ("1", 1_000_000), ("13.50", 13_500_000)],
)
def test_price_per_million_is_whole_pico_price_of(per_million: str, pico: int) -> None:
    """Every published price is a whole number of pico-units for each token."""
    assert price_of(per_million) == pico


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "1,5", ".5", "5.", "0x1", "1_000", " 1", "١", "0.0000001"])
def test_what_is_no_price_is_refused(text: str) -> None:
    """Signs, exponents, other digits and more decimals than can be kept are refused, never rounded."""
    with pytest.raises(ValueError, match=r"amount|decimals"):
        price_of(text)


def test_cost_of_a_million_tokens_is_the_price() -> None:
    """A million tokens of each class cost what the price list says."""
    price = Price(price_of("2"), price_of("0.2"), price_of("3"))
    assert cost(Usage(10**6, 10**6, 10**6, 400_000), price) == amount("5.2")


@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS), max_size=8), PRICES)
def test_costs_add_up(parts: list[tuple[int, int, int]], price: Price) -> None:
    """The cost of a sum of usages is the sum of their costs."""
    total = Usage(*(sum(part[at] for part in parts) for at in range(3)))
    assert cost(total, price) == sum(cost(Usage(*part), price) for part in parts)


@given(TOKENS, TOKENS, TOKENS, PRICES)
def test_bound_is_never_below_the_cost(miss: int, hit: int, completion: int, price: Price) -> None:
    """A hold covers the answer, however its prompt falls into hits and misses."""
    assert bound(miss + hit, completion, price) >= cost(Usage(miss, hit, completion), price)


@pytest.mark.parametrize(
    ("pico", "shown"),
    [
        (0, "0.00"),
        (110 * UNIT_PICO, "110.00"),
        (UNIT_PICO * 999 // 1000, "0.99"),
        (1, "0.00"),
        (-1, "-0.01"),
        (-UNIT_PICO, "-1.00"),
        (-5 * UNIT_PICO // 2, "-2.50"),
    ],
)
def test_people_are_never_shown_more_than_there_is(pico: int, shown: str) -> None:
    """Two decimals, rounded down; debts are rounded away from zero."""
    assert decimal(pico) == shown


@given(st.integers(-(2**62), 2**62))
def test_exact_loses_nothing(pico: int) -> None:
    """What `exact` writes is the amount itself, with two decimals at least."""
    text = exact(pico)
    assert Decimal(text) * UNIT_PICO == pico
    assert len(text.partition(".")[2]) >= 2
    if pico >= 0:
        assert amount(text) == pico
