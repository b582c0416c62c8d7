"""How many requests of an account run now, and how many a minute: leases and buckets in the memory of one process.

A lease is (account, request, until when), never a number that goes up and down: what is forgotten ends by itself,
LEASE_S after it was taken or renewed, and giving it back twice gives it back once. All leases here belong to this
process, so one `renew` renews them all, in constant time: it moves the moment from which every living lease counts.
Whose lease ended all the same, because the process stood still for so long, is told through `lost`.

Times are seconds of a clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from moonpool.later import Later
from moonpool.state.asks import (
    FULL,
    FULL_S,
    GRANTED,
    LEASE_S,
    UNIT,
    Asks,
    asks_of,
    room,
    tighter,
    told,
    used_now,
    verdict,
    wait_ms,
)
from moonpool.state.base import Room, Verdict
from moonpool.words import Account, Key

SWEEP_S: Final = 60.0
Leases = dict[str, float]
"""request -> when it was taken, oldest first"""


class _More(Struct, frozen=True, gc=False):
    """What a lease holds beside the account's place."""

    asks: Asks
    tokens: int


class MemoryLimiter:
    """Limiter."""

    __slots__ = ("_buckets", "_key_leases", "_leases", "_lost", "_more", "_renewed_at", "_swept_at")

    def __init__(self, lost: Callable[[str], object] = lambda _: None) -> None:
        self._lost = lost
        self._leases: dict[str, Leases] = {}
        self._key_leases: dict[str, Leases] = {}
        self._more: dict[str, _More] = {}
        # ("requests" or "tokens", of an account or a key, whose) -> used, at (ms), the rate
        self._buckets: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        self._renewed_at = float("-inf")
        self._swept_at = float("-inf")

    def take(self, request_id: str, account: Account, key: Key, tokens: int, now: float) -> Later[Verdict]:
        if key.limits is not None or account.requests_per_minute or account.tokens_per_minute:
            return self.take_asks(request_id, asks_of(account, key), tokens, now)
        # What nearly every request needs, and no more than that.
        limit = account.concurrency
        if not limit:
            return GRANTED
        leases = self._leases.get(account.id)
        if leases is None:
            leases = self._leases[account.id] = {}
        if now >= self._renewed_at + LEASE_S:
            self._drop_ended(leases, now)
        if request_id in leases:
            return GRANTED
        if len(leases) >= limit:
            return FULL
        leases[request_id] = now
        return GRANTED

    def take_asks(self, request_id: str, asks: Asks, tokens: int, now: float) -> Later[Verdict]:
        """The same for anything that can be asked."""
        if asks.none():
            return GRANTED
        leases = self._leases.setdefault(asks.account, {})
        of_key = self._key_leases.setdefault(asks.key, {}) if asks.key_concurrency else None
        if now >= self._renewed_at + LEASE_S:
            self._drop_ended(leases, now)
        buckets = [
            (number, (kind, owner, name), rate, amount)
            for number, kind, owner, name, rate, amount in (
                (3, "requests", "account", asks.account, asks.requests, 1),
                (4, "requests", "key", asks.key, asks.key_requests, 1),
                (5, "tokens", "account", asks.account, asks.tokens, tokens),
                (6, "tokens", "key", asks.key, asks.key_tokens, tokens),
            )
            if rate
        ]
        now_ms = _ms(now)
        refused = longest_ms = 0
        has_it = request_id in leases
        if not has_it:
            if asks.concurrency and len(leases) >= asks.concurrency:
                refused, longest_ms = 1, round(FULL_S * 1000)
            if of_key is not None and len(of_key) >= asks.key_concurrency:
                refused, longest_ms = refused or 2, round(FULL_S * 1000)
            for number, name, rate, amount in buckets:
                waiting_ms = wait_ms(self._used(name, rate, now_ms), amount, rate)
                if waiting_ms:
                    refused, longest_ms = refused or number, max(longest_ms, waiting_ms)
        if not refused and not has_it:
            leases[request_id] = now
            if of_key is not None:
                of_key[request_id] = now
            if of_key is not None or buckets:
                self._more[request_id] = _More(asks, tokens)
            for _, name, rate, amount in buckets:
                self._buckets[name] = (self._used(name, rate, now_ms) + amount * UNIT, now_ms, rate)
        rooms: dict[str, Room | None] = {"requests": None, "tokens": None}
        for _, name, rate, _ in buckets:
            rooms[name[0]] = tighter(rooms[name[0]], room(self._used(name, rate, now_ms), rate))
        return told(verdict(refused, longest_ms, rooms["requests"], rooms["tokens"]))

    def adopt(self, request_id: str, asks: Asks, now: float) -> None:
        """Hold a lease that another limiter granted; limits are not asked, and its rates are not ours."""
        self._leases.setdefault(asks.account, {})[request_id] = now
        if asks.key_concurrency:
            self._key_leases.setdefault(asks.key, {})[request_id] = now
            self._more[request_id] = _More(Asks(asks.account, asks.key, asks.concurrency, asks.key_concurrency), 0)

    def give(self, request_id: str, account_id: str, tokens: int, now: float) -> None:
        leases = self._leases.get(account_id)
        taken_at = leases.pop(request_id, None) if leases is not None else None
        if taken_at is None or not self._more:
            return
        more = self._more.pop(request_id, None)
        if more is None:
            return
        asks = more.asks
        if asks.key_concurrency:
            self._key_leases[asks.key].pop(request_id)
        if max(taken_at, self._renewed_at) + LEASE_S <= now:
            return
        for owner, name, rate in (("account", asks.account, asks.tokens), ("key", asks.key, asks.key_tokens)):
            if rate:
                bucket, now_ms = ("tokens", owner, name), _ms(now)
                used = max(0, self._used(bucket, rate, now_ms) + (tokens - more.tokens) * UNIT)
                self._buckets[bucket] = (used, now_ms, rate)

    def renew(self, now: float) -> Later[None]:
        if now >= self._renewed_at + LEASE_S:
            # Only what still lives can be renewed.
            for leases in list(self._leases.values()):
                self._drop_ended(leases, now)
        self._renewed_at = now
        return _DONE

    def tick(self, now: float) -> None:
        self.renew(now)
        if now >= self._swept_at + SWEEP_S:
            self._swept_at = now
            now_ms = _ms(now)
            full = [name for name, (used, at, rate) in self._buckets.items() if not used_now(used, at, rate, now_ms)]
            for name in full:
                del self._buckets[name]
            for leases in (self._leases, self._key_leases):
                for owner in [owner for owner, held in leases.items() if not held]:
                    del leases[owner]

    def held(self, account_id: str, now: float) -> Later[int]:
        leases = self._leases.get(account_id)
        if leases is not None and now >= self._renewed_at + LEASE_S:
            self._drop_ended(leases, now)
        later: Later[int] = Later()
        later.set(len(leases or ()))
        return later

    def trouble(self) -> str | None:
        return None

    async def start(self, now: float) -> None: ...

    async def stop(self) -> None: ...

    def _used(self, name: tuple[str, str, str], rate: int, now_ms: int) -> int:
        used, at_ms, _ = self._buckets.get(name, (0, now_ms, rate))
        return used_now(used, at_ms, rate, now_ms)

    def _drop_ended(self, leases: Leases, now: float) -> None:
        """Forget leases that were taken too long ago; the oldest are first."""
        ended = []
        for request_id, taken_at in leases.items():
            if taken_at + LEASE_S > now:
                break
            ended.append(request_id)
        for request_id in ended:
            del leases[request_id]
            more = self._more.pop(request_id, None)
            if more is not None and more.asks.key_concurrency:
                self._key_leases[more.asks.key].pop(request_id)
        for request_id in ended:
            self._lost(request_id)


def _ms(now: float) -> int:
    return int(now * 1000 + 0.5)


_DONE: Final[Later[None]] = Later()
_DONE.set(None)
