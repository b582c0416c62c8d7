"""relay/route.py: which place next."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from moonpool.catalog.prices import Schedule, Step
from moonpool.errors import ERRORS, Problem
from moonpool.relay.health import FAILURES_MAX, Health
from moonpool.relay.route import WAIT, is_final, next_place, soonest
from moonpool.words import Host, Price, Target


class Spot:
    """A place as route.py sees one."""

    def __init__(self, name: str, *, weight: int = 1, price: int = 0, running: int = 0, room: bool = True) -> None:
        prices = Schedule((Step(0.0, Price(price, 0, price)),)) if price else None
        self.target = Target(Host(name, "openai", account=name), "m", prices=prices, weight=weight)
        self.health = Health()
        self.running = running
        self.room = room

    def has_room(self, account: str, now: float) -> bool:
        return self.room

    def __repr__(self) -> str:
        return self.target.host.name


def choose(spots: list[Any], policy: Any = "order", **given: Any) -> Any:
    options = {"tried": [], "preferred": None, "now": 0.0, "draw": lambda: 0.5, "at": 0.0, "may_fail": True, **given}
    return next_place(
        spots,
        options["tried"],
        "tenant",
        policy,
        options["preferred"],
        options["now"],
        options["draw"],
        lambda: options["at"],
        may_fail=options["may_fail"],
    )


def name(found: Any) -> str:
    return repr(found[0])


def breaks(spot: Spot, now: float = 0.0) -> None:
    for _ in range(FAILURES_MAX):
        spot.health.ended(Problem("upstream.failed"), 0, now)


def test_in_order_and_never_twice() -> None:
    """Those that were tried are passed over; when all were, there is nothing."""
    spots = [Spot("a"), Spot("b"), Spot("c")]
    tried: list[Any] = []
    for expected in "abc":
        found = choose(spots, tried=tried)
        assert name(found) == expected
        tried.append(found[0])
    assert choose(spots, tried=tried) is None


def test_weights_are_shares() -> None:
    """Three to one, and a weight of 0 only when nobody else is left."""
    spots, chance = [Spot("a", weight=3), Spot("b"), Spot("c", weight=0)], random.Random(7)
    seen = Counter(name(choose(spots, "weight", draw=chance.random)) for _ in range(4000))
    assert 0.72 < seen["a"] / 4000 < 0.78
    assert set(seen) == {"a", "b"}
    assert name(choose(spots, "weight", tried=spots[:2])) == "c"


def test_the_idlest_for_its_weight() -> None:
    """Least in flight, by weight."""
    assert name(choose([Spot("a", running=3), Spot("b", running=2)], "least_busy")) == "b"
    assert name(choose([Spot("a", running=3, weight=2), Spot("b", running=2)], "least_busy")) == "a"


def test_the_cheapest() -> None:
    """By what a token read and a token written cost us."""
    assert name(choose([Spot("a", price=4), Spot("b", price=3), Spot("c", price=9)], "price")) == "b"


@pytest.mark.parametrize("policy", ["order", "weight", "least_busy", "price"])
def test_a_preferred_account_goes_first_but_blocks_nothing(policy: str) -> None:
    """While it is ready and has room; else somebody else serves."""
    spots = [Spot("a"), Spot("b", running=5, price=9)]
    assert name(choose(spots, policy, preferred="b")) == "b"
    spots[1].room = False
    assert name(choose(spots, policy, preferred="b")) == "a"
    spots[1].room = True
    breaks(spots[1])
    assert name(choose(spots, policy, preferred="b")) == "a"


def test_full_places_are_waited_for() -> None:
    """When whoever is ready has no room."""
    spots = [Spot("a", room=False), Spot("b", room=False)]
    assert choose(spots) == WAIT
    breaks(spots[0])
    assert choose(spots) == WAIT


def test_a_probe_goes_where_it_would_have_gone() -> None:
    """A place that may be looked at again, and stands before the others, gets one request; none if another attempt
    could not follow; one that stands behind is not disturbed."""
    first, second = Spot("a"), Spot("b")
    breaks(first)
    assert choose([first, second], now=0.5) == (second, False)
    assert choose([first, second], now=1.0) == (first, True)
    assert choose([first, second], now=1.0, may_fail=False) == (second, False)
    assert choose([second, first], now=1.0) == (second, False)
    assert choose([second, first], "least_busy", now=1.0) == (first, True)
    assert choose([first], now=1.0, may_fail=False) == (first, True)


def test_panic_takes_the_least_bad() -> None:
    """All are ejected: the one that fails least is tried, and no probe is made of it (RELIABILITY case 33)."""
    spots = [Spot("a"), Spot("b")]
    for spot, failures in zip(spots, (10, 6), strict=True):
        for _ in range(14):
            spot.health.began(0.0)
        for _ in range(failures):
            spot.health.ended(Problem("upstream.failed"), 0, 0.0)
            spot.health.failures = 0  # never many in a row
    assert {spot.health.trouble for spot in spots} == {"ejected"}
    assert choose(spots) == (spots[1], False)


def test_nothing_to_try_says_when_to_come_back() -> None:
    """All are open: nobody until a second has passed; then one."""
    spots = [Spot("a"), Spot("b")]
    for spot in spots:
        breaks(spot)
        spot.health.probe(0.0)
        spot.health.ended(Problem("upstream.failed"), 0, 0.0, probe=True)
    assert choose(spots, now=0.9) is None
    assert soonest(spots, 0.0) == 1.0
    assert choose(spots, now=1.0) == (spots[0], True)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_only_what_another_target_may_mend_goes_there(code: str) -> None:
    """Rows marked `other_target`."""
    assert is_final(Problem(code)) == (ERRORS[code].retry != "other_target")


def _never() -> float:
    raise AssertionError


def test_one_that_is_left_needs_no_luck() -> None:
    """No number is drawn where there is nothing to choose."""
    draw: Callable[[], float] = _never
    assert name(choose([Spot("a")], "weight", draw=draw)) == "a"
