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
from moonpool.state.base_limits import Room, Verdict
from moonpool.words import Account, Key

SWEEP_S: Final = 60.0
Leases = dict[str, float]
"""request -> when it was taken, oldest first"""
Bucket = tuple[int, str]
"""the number of the ask (asks.REFUSALS), whose"""
_TOKENS: Final = 5
_KEY_TOKENS: Final = 6
_OF_KEYS: Final = frozenset((4, _KEY_TOKENS))
_FULL_MS: Final = round(FULL_S * 1000)


class _More(Struct, frozen=True, gc=False):
    """What a lease holds beside the account's place."""

    asks: Asks
    tokens: int


class MemoryLimiter:
    """Limiter."""

    __slots__ = ("_buckets", "_key_leases", "_leases", "_lost", "_more", "_renewed_at", "_swept_at", "nodes")

    def __init__(self, lost: Callable[[str], object] = lambda _: None) -> None:
        self._lost = lost
        self._leases: dict[str, Leases] = {}
        self._key_leases: dict[str, Leases] = {}
        self._more: dict[str, _More] = {}
        # used, at (ms), the rate
        self._buckets: dict[Bucket, tuple[int, int, int]] = {}
        self._renewed_at = float("-inf")
        self._swept_at = float("-inf")
        self.nodes = 1

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
        now_ms = _ms(now)
        # Which ask it is, its bucket, the rate, what is asked, what is used.
        buckets: list[tuple[int, Bucket, int, int, int]] = []
        for number, rate, amount in (
            (3, asks.requests, 1),
            (4, asks.key_requests, 1),
            (5, asks.tokens, tokens),
            (6, asks.key_tokens, tokens),
        ):
            if rate:
                bucket = (number, asks.key if number in _OF_KEYS else asks.account)
                buckets.append((number, bucket, rate, amount, self._used(bucket, rate, now_ms)))
        refused = longest_ms = taken = 0
        if request_id not in leases:
            if asks.concurrency and len(leases) >= asks.concurrency:
                refused, longest_ms = 1, _FULL_MS
            if of_key is not None and len(of_key) >= asks.key_concurrency:
                refused, longest_ms = refused or 2, _FULL_MS
            for number, _, rate, amount, used in buckets:
                waiting_ms = wait_ms(used, amount, rate)
                if waiting_ms:
                    refused, longest_ms = refused or number, max(longest_ms, waiting_ms)
            if not refused:
                taken = UNIT
                leases[request_id] = now
                if of_key is not None:
                    of_key[request_id] = now
                if of_key is not None or buckets:
                    self._more[request_id] = _More(asks, tokens)
        requests: Room | None = None
        of_tokens: Room | None = None
        for number, bucket, rate, amount, before in buckets:
            used = before + amount * taken
            if taken:
                self._buckets[bucket] = (used, now_ms, rate)
            if number < _TOKENS:
                requests = tighter(requests, room(used, rate))
            else:
                of_tokens = tighter(of_tokens, room(used, rate))
        return told(verdict(refused, longest_ms, requests, of_tokens))

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
        for number, owner, rate in ((_TOKENS, asks.account, asks.tokens), (_KEY_TOKENS, asks.key, asks.key_tokens)):
            if rate:
                bucket, now_ms = (number, owner), _ms(now)
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

    def _used(self, bucket: Bucket, rate: int, now_ms: int) -> int:
        kept = self._buckets.get(bucket)
        return used_now(kept[0], kept[1], rate, now_ms) if kept is not None else 0

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
