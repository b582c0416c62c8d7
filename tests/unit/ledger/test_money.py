"""Money is exact: what is parsed, multiplied and written again is the same to the last digit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.ledger.money import UNIT_PICO, amount, bound, cost, decimal, exact, factor_of, fee_of, price_of
from moonpool.words import Price, Usage

TOKENS = st.integers(0, 2**31)
PICO = st.integers(0, 10**9)
PRICES = st.builds(Price, PICO, PICO, PICO, searches=st.integers(0, 10**12))
SEARCHES = st.integers(0, 8)


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


def used(miss: int, hit: int, completion: int, searches: int = 0) -> Usage:
    return Usage(miss, hit, completion, completion // 2, searches=searches)


@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS, SEARCHES), max_size=8), PRICES)
def test_costs_add_up(parts: list[tuple[int, int, int, int]], price: Price) -> None:
    """The cost of a sum of usages is the sum of their costs."""
    total = used(*(sum(part[at] for part in parts) for at in range(4)))
    assert cost(total, price) == sum(cost(used(*part), price) for part in parts)


@given(TOKENS, TOKENS, TOKENS, SEARCHES, TOKENS, SEARCHES, PRICES)
def test_bound_is_never_below_the_cost(
    miss: int, hit: int, completion: int, searches: int, spare: int, spare_searches: int, price: Price
) -> None:
    """Case 92: a hold covers the answer, however its prompt falls into hits and misses, all of its candidates and
    thinking and its searches, up to the most there may be."""
    held = bound(miss + hit + spare, completion + spare, price, searches + spare_searches)
    assert held >= cost(used(miss, hit, completion, searches), price)


def test_a_bound_is_exact() -> None:
    """A hold sets aside the dearer price for each prompt token, the price of each other, and not one unit more."""
    dear_hit, dear_miss = Price(2, 3, 5, searches=100), Price(3, 2, 5, searches=100)
    assert bound(10, 4, dear_hit, 7) == bound(10, 4, dear_miss, 7) == 10 * 3 + 4 * 5 + 7 * 100
    assert bound(10, 4, dear_hit) == 10 * 3 + 4 * 5


# hit, miss, out, a thousand searches; tokens hit, missed, answered, searches; what it costs, to the last digit.
EXACT = """
0.02      1             4  5            3           8                    7           1  0.00503606
0.04      2             8  5            3           8                    7           1  0.00507212
0         0             0  0            2147483647  5                    5           8  0.00
0.000001  0.000001      0  0            1           0                    0           0  0.000000000001
0.000001  0.000001      0  0            0           0                    0           0  0.00
0.333333  0.333333      0  0            1           1                    0           0  0.000000666666
0.333333  0.333334      0  0            333333      1                    0           0  0.111111222223
0         0             0  0.000000001  0           0                    0           1  0.000000000001
0         0             0  0.333333333  0           0                    0           3  0.000999999999
0         1             2  0            0           0                    0           0  0.00
0         0             1  0            0           0                    2147483647  0  2147.483647
0         999999999999  0  0            0           9223372036854775807  0           0  9223372036845552434963145.224193
"""


@pytest.mark.parametrize("line", EXACT.strip().splitlines())
def test_amounts_are_exact(line: str) -> None:
    """Case 96: one unit, thirds, nothing at all, 2^31 - 1 tokens and 2^63 - 1 of them: integers all the way, nothing
    rounded, no overflow."""
    hit, miss, out, thousand, tokens_hit, tokens_miss, tokens_out, searches, costs = line.split()
    price = Price(price_of(miss), price_of(hit), price_of(out), searches=fee_of(thousand))
    found = cost(Usage(int(tokens_miss), int(tokens_hit), int(tokens_out), searches=int(searches)), price)
    assert type(found) is int
    assert exact(found) == costs


@pytest.mark.parametrize("text", ["", "-5", "0.0000000001", "5e-3"])
def test_what_is_no_fee_is_refused(text: str) -> None:
    """A fee per thousand calls has at most nine decimals: a whole number of pico-units for each call."""
    with pytest.raises(ValueError, match=r"amount|decimals"):
        fee_of(text)


@pytest.mark.parametrize(
    ("text", "of", "found"), [("2", 20_000, 40_000), ("0.8", 5, 4), ("1.000001", 10**6, 1_000_001)]
)
def test_factors_are_exact(text: str, of: int, found: int) -> None:
    """How many times a price is a fraction of integers, never a float."""
    assert of * factor_of(text) == found
    with pytest.raises(ValueError, match="decimals"):
        factor_of("0.0000001")


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
