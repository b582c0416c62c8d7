"""What does an answer cost, and how is an amount written? Exact: integers of 10^-12 of a currency, no rounding.

A price per million tokens with six decimals is a whole number of pico-units for each token, so a cost is a sum of
products of integers, and sums agree to the last digit. Only `decimal`, for people, may show less than there is.

Source: the shared design's rule on money; prices are published per million tokens with at most six decimals.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from moonpool.words import Price, Usage

PLACES: Final = 12
UNIT_PICO: Final = 10**PLACES
"""One unit of a currency."""

_PER_MILLION_PLACES: Final = PLACES - 6
_PER_THOUSAND_PLACES: Final = PLACES - 3
_FACTOR_PLACES: Final = 6
_NUMBER: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]+))?", re.ASCII)


def _parse(text: str, places: int) -> int:
    found = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no amount: it is written in digits, like '0.28'")
    whole, fraction = found[1], (found[2] or "").rstrip("0")
    if len(fraction) > places:
        raise ValueError(f"{text!r} has more than {places} decimals")
    return int(whole + fraction.ljust(places, "0"))


def price_of(per_million: str) -> int:
    """Pico-units for each token of a price per million tokens ("0.28"). Raises ValueError with a sentence."""
    return _parse(per_million, _PER_MILLION_PLACES)


def fee_of(per_thousand: str) -> int:
    """Pico-units for each call of a price per thousand calls ("5"). Raises ValueError with a sentence."""
    return _parse(per_thousand, _PER_THOUSAND_PLACES)


def factor_of(text: str) -> Fraction:
    """How many times a price ("2", "0.85"), exactly. Raises ValueError with a sentence."""
    return Fraction(_parse(text, _FACTOR_PLACES), 10**_FACTOR_PLACES)


def amount(text: str) -> int:
    """Pico-units of an amount that a person wrote ("12.50"). Raises ValueError with a sentence."""
    return _parse(text, PLACES)


def cost(usage: Usage, price: Price) -> int:
    """Pico-units of `price.currency`. `usage.completion` includes its reasoning."""
    return (
        usage.prompt_miss * price.prompt_miss
        + usage.prompt_hit * price.prompt_hit
        + usage.completion * price.completion
        + usage.searches * price.searches
    )


def bound(prompt_tokens: int, output_max: int, price: Price, searches_max: int = 0) -> int:
    """The most that so many prompt tokens, cached or not, so many output tokens (of all candidates, thinking included)
    and so many searches can cost: what a hold sets aside.

    Whoever has no count of tokens gives the bytes of the prompt: no token is shorter than one byte.
    """
    return (
        prompt_tokens * max(price.prompt_miss, price.prompt_hit)
        + output_max * price.completion
        + searches_max * price.searches
    )


def decimal(amount_pico: int, places: int = 2) -> str:
    """For people: `places` decimals, rounded down, so that no more is shown than there is (-0.001 is "-0.01")."""
    scaled = amount_pico // 10 ** (PLACES - places)
    sign = "-" if scaled < 0 else ""
    whole, fraction = divmod(abs(scaled), 10**places)
    return f"{sign}{whole}.{fraction:0{places}}" if places else f"{sign}{whole}"


def exact(amount_pico: int) -> str:
    """Every digit there is, and two decimals at least: "0.00000028", "12.50"."""
    digits = decimal(amount_pico, PLACES).rstrip("0")
    whole, _, fraction = digits.partition(".")
    return f"{whole}.{fraction:0<2}"
