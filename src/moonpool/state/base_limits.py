"""What a request asks of the limits, and what they say: the words of the limiter."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from moonpool.later import Later
from moonpool.words import Account, Key


class Room(Struct, frozen=True, gc=False):
    """A rate as it stands: of `limit` a minute `remaining` can be had at once, and all of it after `reset_s`."""

    limit: int
    remaining: int
    reset_s: float


Refused = Literal["", "concurrency", "requests", "tokens", "unavailable"]


class Verdict(Struct, frozen=True, gc=False):
    """What a limiter says: `refused` is "" where all was granted, else what there was too little of, and `whose` limit
    that is; `unavailable`: it cannot be known. After `retry_after_s` it may succeed. `requests` and `tokens` are the
    tighter one of the account's and the key's rates, None where neither has one."""

    refused: Refused = ""
    whose: Literal["account", "key"] = "account"
    retry_after_s: float = 0.0
    requests: Room | None = None
    tokens: Room | None = None


class Limiter(Protocol):
    """Shared, fast, may be lost. Leases that expire, never counters that go up and down; rates are buckets that hold a
    minute's worth. `now` is of a clock that only goes forward (s)."""

    nodes: int
    """How many processes share the limits, as this one was last told."""

    def take(self, request_id: str, account: Account, key: Key, tokens: int, now: float) -> Later[Verdict]:
        """All that this request needs of its account and its key, or nothing: a place among those that run at once,
        one request and so many `tokens` of a minute. Who has it already has it, and takes nothing more. Never fails."""

    def give(self, request_id: str, account_id: str, tokens: int, now: float) -> None:
        """The request is over and used so many tokens: its places are free, its buckets corrected. Idempotent."""

    def renew(self, now: float) -> Later[None]:
        """Let all leases of this process live on; of those that ended before, `lost` is told. Done when it is."""

    def tick(self, now: float) -> None:
        """Once a second: renew when it is time, and whatever else has to be done."""

    def held(self, account_id: str, now: float) -> Later[int]:
        """How many requests of this account run now, in all processes that share its limits."""

    def trouble(self) -> str | None:
        """Why limits are not shared at this moment, in a sentence; None when all is well."""

    async def start(self, now: float) -> None: ...
    async def stop(self) -> None: ...
