"""Which target next? Pure: of the places that serve a model, the one for this request at this moment.

Rules:
- No target is tried twice for one request before it has begun to answer (draw without replacement).
- Only who is ready is chosen, by the model's policy; the account that a conversation prefers goes first while it is
  ready and has room. A place that is to be looked at again gets one request, if another could still be tried after it.
- When all that are ready are full, one waits (`WAIT`). When none is ready, the least bad is tried where that makes
  sense; else the client hears when it is worth coming back.
- A failure is answered by another target only where its row in the error table says so.

Sources: RELIABILITY 1.1, cases 30 to 33; PEERS B1 rows 37 and 40.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal, Protocol, TypeVar

from moonpool.errors import Problem
from moonpool.relay.health import PROBE, READY, Health
from moonpool.words import Target

WAIT: Final = "wait"
Policy = Literal["order", "weight", "least_busy", "price"]


class Place(Protocol):
    """A target with what is known of it now."""

    @property
    def target(self) -> Target: ...
    @property
    def health(self) -> Health: ...
    @property
    def running(self) -> int: ...
    def has_room(self, account: str, now: float) -> bool: ...


P = TypeVar("P", bound=Place)


def next_place(
    places: Sequence[P],
    tried: Collection[P],
    account: str,
    policy: Policy,
    preferred: str | None,
    now: float,
    draw: Callable[[], float],
    clock: Callable[[], float],
    *,
    may_fail: bool,
) -> tuple[P, bool] | Literal["wait"] | None:
    """(place, whether it is a probe), WAIT, or None when nothing can be tried. `account` asks; `preferred` is one at
    a host; `draw` gives numbers from 0 to below 1, `clock` Unix seconds; `may_fail`: whether another attempt could
    follow this one."""
    ready: list[P] = []
    free: list[P] = []
    probes: list[P] = []
    others: list[P] = []
    for place in places:
        if place in tried:
            continue
        verdict = place.health.verdict(now)
        if verdict == READY:
            ready.append(place)
            if place.has_room(account, now):
                free.append(place)
        else:
            (probes if verdict == PROBE else others).append(place)
    if probes and (may_fail or not ready) and (not free or policy != "order" or _is_before(places, probes[0], free[0])):
        return probes[0], True
    if free:
        return _choose(free, policy, preferred, draw, clock), False
    if ready:
        return WAIT
    panic = [place for place in others if place.health.may_panic(now) and place.has_room(account, now)]
    if panic:
        least_bad = min(panic, key=lambda place: place.health.share_failed())
        return least_bad, least_bad.health.trouble != "ejected"
    return None


def _is_before(places: Sequence[Place], one: Place, other: Place) -> bool:
    return next(place for place in places if place is one or place is other) is one


def _choose(
    free: list[P], policy: Policy, preferred: str | None, draw: Callable[[], float], clock: Callable[[], float]
) -> P:
    if len(free) == 1:
        return free[0]
    if preferred is not None:
        for place in free:
            if place.target.host.account == preferred:
                return place
    if policy == "order":
        return free[0]
    if policy == "price":
        at = clock()
        return min(free, key=lambda place: _price(place, at))
    weighted = [place for place in free if place.target.weight]
    if not weighted:
        return free[0]
    if policy == "least_busy":
        return min(weighted, key=lambda place: place.running / place.target.weight)
    drawn = draw() * sum(place.target.weight for place in weighted)
    for place in weighted:
        drawn -= place.target.weight
        if drawn < 0:
            return place
    return weighted[-1]


def _price(place: Place, at: float) -> int:
    """What a token read and a token written cost us there now; 0 where that is not known. Who charges in another
    currency is compared by number."""
    prices = place.target.prices
    if prices is None:
        return 0
    price = prices.at(at)
    return price.prompt_miss + price.completion


def soonest(places: Sequence[Place], now: float) -> float:
    """Seconds until one of them may be tried, at least 1."""
    healths = [place.health for place in places if place.health.trouble != "parked"]
    untils = [health.look_again_at() for health in healths]
    return max(1.0, min(untils) - now) if untils else 1.0


def is_final(failure: Problem) -> bool:
    """No other target would say anything else."""
    return failure.row.retry != "other_target"
