"""What pays: the funds of an account, the order they are drawn in, and what a key may spend. One rule for what is set
aside and one for what is charged; both databases use these.

The order (contract 6): trial pack, paid pack, granted money, topped-up money, credit. Rules:
- Packs of the same kind: the one that ends first goes first. A pack that ends while a hold has units of it still pays
  for that request (RELIABILITY case 85).
- What packs pay for are the dearest tokens of a request, so that a client gets the most of them.
- Money is set aside for what packs cannot cover, at the price of the dearest token.
- Who may not use credit can hold what is available and no more. Who may, is served until what was settled lies more
  than `credit_pico` below zero.
- What is charged is the truth: beyond all funds it goes on credit, or makes what was topped up negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from moonpool.words import Account, Price, Usage


class Funds(Struct, gc=False, eq=False):
    """The money of an account in one currency, pico-units. `post_paid` is zero or below: what was used on credit and
    not settled yet; `topped_up` may be below zero."""

    account: str
    currency: str
    granted: int = 0
    topped_up: int = 0
    held: int = 0
    post_paid: int = 0

    def available(self) -> int:
        return self.granted + self.topped_up + self.post_paid - self.held


class Pack(Struct, frozen=True, gc=False):
    """Units of a product that were given (`trial`) or bought (`paid`): `tokens` of its models, or search `calls`."""

    id: str
    account: str
    kind: Literal["trial", "paid"]
    product: str
    unit: Literal["tokens", "calls"]
    units: int
    note: str
    bought_at: float
    expires_at: float


class Holding(Struct, gc=False, eq=False):
    """A pack, how many units of it are used and how many are set aside."""

    pack: Pack
    used: int = 0
    held: int = 0


class Spent(Struct, gc=False, eq=False):
    """What a key spent and holds in one currency within a `span` ("day", "month") that began at `start`."""

    key: str
    currency: str
    span: str
    start: int
    spent: int = 0
    held: int = 0


Units = tuple[tuple[str, int], ...]
"""(id of a pack, units of it)."""


def rank(holding: Holding) -> tuple[bool, float, float, str]:
    """Packs are drawn in this order."""
    pack = holding.pack
    return pack.kind != "trial", pack.expires_at, pack.bought_at, pack.id


def reserve(
    holdings: Iterable[Holding], product: str, tokens: int, searches: int, now: float
) -> tuple[Units, int, int]:
    """What packs can cover of so many tokens and searches: (units of which packs, tokens and searches left over).
    `holdings` are in the order of `rank`."""
    units = []
    for holding in holdings:
        pack = holding.pack
        free = pack.units - holding.used - holding.held
        if free <= 0 or pack.expires_at <= now:
            continue
        if pack.unit == "calls":
            taken = min(free, searches)
            searches -= taken
        elif pack.product == product:
            taken = min(free, tokens)
            tokens -= taken
        else:
            continue
        if taken:
            units.append((pack.id, taken))
    return tuple(units), tokens, searches


def on_credit(account: Account, product: str) -> bool:
    """May this account use this product beyond its funds?"""
    return account.post_paid and product not in account.products_off


def in_arrears(topped_up_pico: int, account: Account) -> bool:
    """Has so much been settled and not paid that an account on credit is not served any more?"""
    return account.credit_pico is not None and topped_up_pico < -account.credit_pico


def owes_too_much(account: Account, topped_up_pico: int, available_pico: int) -> bool:
    """Is an account stopped because it owes, whatever it asks for? Without credit that is anything below zero."""
    return in_arrears(topped_up_pico, account) if account.post_paid else available_pico < 0


def draw(owed_pico: int, funds: Funds, credit: bool) -> tuple[int, int, int]:
    """What of `owed_pico` is taken from (granted, topped-up money, credit)."""
    granted, there = 0, funds.granted
    if there > 0:
        granted = there if there < owed_pico else owed_pico
    rest = owed_pico - granted
    if not credit:
        return granted, rest, 0
    topped_up, there = 0, funds.topped_up
    if there > 0:
        topped_up = there if there < rest else rest
    return granted, topped_up, rest - topped_up


def worth(usage: Usage, price: Price, tokens: int, searches: int) -> tuple[int, int]:
    """What so many of the dearest tokens, and so many searches, of this usage cost: what packs pay for."""
    classes: Sequence[tuple[int, int]] = sorted(
        (
            (price.completion, usage.completion),
            (price.prompt_miss, usage.prompt_miss),
            (price.prompt_hit, usage.prompt_hit),
        ),
        reverse=True,
    )
    amount = 0
    for each_pico, count in classes:
        some = min(tokens, count)
        amount += some * each_pico
        tokens -= some
    return amount, min(searches, usage.searches) * price.searches


def split(units: Units, of_calls: frozenset[str], usage: Usage) -> tuple[Units, int, int]:
    """How many of the units that were set aside are used by `usage`: (units of which packs, tokens, searches).
    `of_calls` are the ids of packs of searches."""
    tokens = left = usage.prompt_miss + usage.prompt_hit + usage.completion
    searches = calls = usage.searches
    used = []
    for pack, reserved in units:
        if pack in of_calls:
            taken = min(reserved, calls)
            calls -= taken
        else:
            taken = min(reserved, left)
            left -= taken
        if taken:
            used.append((pack, taken))
    return tuple(used), tokens - left, searches - calls
