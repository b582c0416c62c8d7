"""What does one request ask of its limits? The same few numbers for every limiter, and the sums over rates.

A rate is a bucket that holds a minute's worth and is filled up evenly. What is kept of it is how much was used, in
sixty-thousandths of a unit, and when that was so, in milliseconds: it then falls by the rate each millisecond. Both are
whole numbers, so that two limiters come to the same verdict, and a limit of 100 is 100: neither 99 nor 101.

A request that asks for more than the bucket can ever hold gets it when the bucket is full, and leaves it below empty:
else it could never run. A bucket is also below empty where a request used more than was thought.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from moonpool.later import Later
from moonpool.state.base_limits import Refused, Room, Verdict
from moonpool.words import Account, Key

LEASE_S: Final = 15.0
"""How long a lease lives that is not renewed."""
RENEW_S: Final = LEASE_S / 3
FULL_S: Final = 1.0
"""After how long to come back where all places are taken: nobody knows when one will be free."""
UNIT: Final = 60_000
RATE_MAX: Final = 100_000_000
"""Higher rates count as this one: with it all sums stay below 2^53, where numbers of Lua are exact."""

REFUSALS: Final[tuple[tuple[Refused, str], ...]] = (
    ("", "account"),
    ("concurrency", "account"),
    ("concurrency", "key"),
    ("requests", "account"),
    ("requests", "key"),
    ("tokens", "account"),
    ("tokens", "key"),
)
"""Which ask was refused, by its number; the first that is too much gives the name, the longest wait the time."""


class Asks(Struct, frozen=True, gc=False):
    """Whose limits, and how high they are; 0: there is none. `requests` and `tokens` are for a minute."""

    account: str
    key: str
    concurrency: int
    key_concurrency: int = 0
    requests: int = 0
    key_requests: int = 0
    tokens: int = 0
    key_tokens: int = 0

    def rated(self) -> bool:
        return bool(self.requests or self.key_requests or self.tokens or self.key_tokens)

    def none(self) -> bool:
        return not (self.concurrency or self.key_concurrency or self.rated())

    def share(self, nodes: int, rank: int) -> Asks | None:
        """What the `rank`-th of so many nodes may grant on its own: in all exactly the limit. None where that is
        nothing at all of something."""
        if nodes <= 1:
            return self
        limits = (
            self.concurrency,
            self.key_concurrency,
            self.requests,
            self.key_requests,
            self.tokens,
            self.key_tokens,
        )
        shares = [part(limit, nodes, rank) for limit in limits]
        if any(limit and not share for limit, share in zip(limits, shares, strict=True)):
            return None
        return Asks(self.account, self.key, *shares)


def part(limit: int, nodes: int, rank: int) -> int:
    """The `rank`-th of `nodes` whole parts of a limit that differ by one at most."""
    return limit // nodes + (rank < limit % nodes)


def asks_of(account: Account, key: Key) -> Asks:
    own = key.limits
    if own is None:
        return Asks(
            account.id,
            key.id,
            account.concurrency,
            0,
            min(account.requests_per_minute, RATE_MAX),
            0,
            min(account.tokens_per_minute, RATE_MAX),
        )
    return Asks(
        account.id,
        key.id,
        account.concurrency,
        own.concurrency,
        min(account.requests_per_minute, RATE_MAX),
        min(own.requests_per_minute, RATE_MAX),
        min(account.tokens_per_minute, RATE_MAX),
        min(own.tokens_per_minute, RATE_MAX),
    )


def told(verdict: Verdict) -> Later[Verdict]:
    """A verdict that nobody has to wait for."""
    later: Later[Verdict] = Later()
    later.set(verdict)
    return later


GRANTED: Final = told(Verdict())
FULL: Final = told(Verdict("concurrency", "account", FULL_S))


def verdict(number: int, wait_ms: int, requests: Room | None, tokens: Room | None) -> Verdict:
    refused, whose = REFUSALS[number]
    return Verdict(refused, whose, wait_ms / 1000, requests, tokens)  # type: ignore[arg-type]


def used_now(used: int, at_ms: int, rate: int, now_ms: int) -> int:
    """What is used of a bucket by now."""
    return max(0, used - max(0, now_ms - at_ms) * rate)


def wait_ms(used: int, amount: int, rate: int) -> int:
    """After how many milliseconds the bucket has so much; 0: it has it now."""
    over = used + (min(amount, rate) - rate) * UNIT
    return -(-over // rate) if over > 0 else 0


def room(used: int, rate: int) -> Room:
    return Room(rate, max(0, (rate * UNIT - used) // UNIT), -(-used // rate) / 1000)


def room_of(parts: list[int]) -> Room | None:
    """As limiter.lua says it: limit, what remains, milliseconds."""
    return Room(parts[0], parts[1], parts[2] / 1000) if parts and parts[0] else None


def tighter(one: Room | None, other: Room | None) -> Room | None:
    if one is None or other is None:
        return one or other
    return other if other.remaining < one.remaining else one
