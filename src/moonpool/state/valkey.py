"""Limits that many processes share: the rules of `memory.py` in a Valkey or Redis, and what holds while it is lost.

**Together.** What is asked while a call is under way goes with the next one: one round trip, whatever it carries.

**Leases.** What this process holds is kept here too, with when it ends by the store's clock. Every RENEW_S it is
renewed; what the store has forgotten (it was emptied, replaced, or failed over) is made again by that. What had ended
before, because this process stood still, is lost: others have the place, and `lost` is told so that its answer stops.

**Lost store.** The first call that fails, within CALL_S, opens a breaker. From then on nobody waits: this process
grants its share of each limit (of as many nodes as were last seen alive) by a MemoryLimiter that starts with all that
runs here. Before leases would end, what runs here beyond the share is told to stop. After SHARES_S nothing new is
granted. Each second the store is asked again; when it answers, all that runs here is made known to it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from msgspec import Struct

from moonpool.later import Later
from moonpool.state.asks import FULL, GRANTED, LEASE_S, RENEW_S, Asks, asks_of, part, room_of, told, verdict
from moonpool.state.base_limits import Verdict
from moonpool.state.memory import MemoryLimiter
from moonpool.state.valkey_link import Link
from moonpool.state.valkey_trouble import LinkError
from moonpool.words import Account, Key

SHARES_S: Final = 60.0
BATCH: Final = 500
"""Operations of one call: it holds up everybody who uses the store for about as many times ten microseconds."""
TRIM_S: Final = LEASE_S - RENEW_S - 1.0
"""So long after the loss leases still live for a second at least: the last renewal was RENEW_S before it at most."""
_GRANTED: Final = GRANTED.result()
_FULL: Final = FULL.result()
_UNAVAILABLE: Final = told(Verdict("unavailable", "account", 5.0))
_EVER: Final = float("inf")
_TAKE, _GIVE, _RENEW, _HERE, _LEAVE, _HELD, _TAKE_PLACE, _GIVE_PLACE = range(1, 9)


class _Holding(Struct, gc=False, eq=False):
    """A lease of ours. `ends_at` is the store's time, _EVER where the store does not know of it yet; `here_until` is
    our own time until which it lives for certain."""

    asks: Asks
    tokens: int
    ends_at: float
    here_until: float
    known: bool


class _Entry(Struct, gc=False, eq=False):
    """An operation that waits for the next call; `renews` is the request whose lease it renews."""

    op: tuple[Any, ...]
    said: Callable[[Any], object]
    failed: Callable[[], object]
    renews: str = ""


class _Take(Struct, gc=False, eq=False):
    """As `_Entry`, of one that waits for its verdict. Not closures: there is one for every request."""

    op: tuple[Any, ...]
    limiter: ValkeyLimiter
    request_id: str
    asks: Asks
    tokens: int
    now: float
    answer: Later[Verdict]

    def said(self, value: list[Any]) -> None:
        refused, wait_ms, ends_at, *rest = value
        if not refused:
            self.limiter.granted(self, ends_at)
        self.answer.set(verdict(refused, wait_ms, room_of(rest[:3]), room_of(rest[3:])))

    def failed(self) -> None:
        self.limiter.in_doubt(self)


class _TakePlace(_Take, gc=False, eq=False):
    """One that asks for no more than a place of its account, as nearly all do."""

    def said(self, ends_at: float) -> None:  # type: ignore[override]
        if ends_at:
            self.limiter.granted(self, ends_at)
            self.answer.set(_GRANTED)
        else:
            self.answer.set(_FULL)


class _Give(Struct, gc=False, eq=False):
    """As `_Entry`, of what nobody waits for and must not be forgotten."""

    said: ClassVar[None] = None
    op: tuple[Any, ...]
    limiter: ValkeyLimiter

    def failed(self) -> None:
        self.limiter.owe(self.op)


_Waiting = _Entry | _Take | _Give


class ValkeyLimiter:
    """Limiter. `clock` is ours and only goes forward; `node` names this process among those that share limits;
    `note(event, **facts)` is told what operators should know."""

    def __init__(
        self,
        link: Link,
        lost: Callable[[str], object],
        *,
        node: str,
        clock: Callable[[], float],
        note: Callable[..., object] = lambda event, **facts: None,
    ) -> None:
        self._link = link
        self._lost = lost
        self._node = node
        self._clock = clock
        self._note = note
        self._held: dict[str, _Holding] = {}
        self._urgent: deque[_Waiting] = deque()
        self._renewals: deque[_Entry] = deque()
        self._renewing: list[Later[None]] = []
        self._owed: list[tuple[Any, ...]] = []
        self._task: asyncio.Task[None] | None = None
        self._probe_task: asyncio.Task[None] | None = None
        self._renewed_at = float("-inf")
        self._lost_at: float | None = None
        self._why = ""
        self._here = MemoryLimiter()
        self.nodes = 1
        self.rank = 0

    def take(self, request_id: str, account: Account, key: Key, tokens: int, now: float) -> Later[Verdict]:
        if key.limits is None and not (account.requests_per_minute or account.tokens_per_minute):
            # What nearly every request asks for.
            if not account.concurrency:
                return GRANTED
            asks = Asks(account.id, key.id, account.concurrency)
            if self._lost_at is not None:
                return self._take_here(request_id, asks, tokens, now)
            answer: Later[Verdict] = Later()
            op: tuple[Any, ...] = (_TAKE_PLACE, request_id, account.id, account.concurrency)
            self._urgent.append(_TakePlace(op, self, request_id, asks, tokens, now, answer))
        else:
            asks = asks_of(account, key)
            if asks.none():
                return GRANTED
            if self._lost_at is not None:
                return self._take_here(request_id, asks, tokens, now)
            answer = Later()
            op = (_TAKE, request_id, asks.account, asks.key, asks.concurrency, asks.key_concurrency)
            op += (asks.requests, asks.key_requests, asks.tokens, asks.key_tokens, tokens)
            self._urgent.append(_Take(op, self, request_id, asks, tokens, now, answer))
        if self._task is None:
            self._start()
        return answer

    def granted(self, take: _Take, ends_at: float) -> None:
        """The store has this lease."""
        kept = self._held.get(take.request_id)
        if kept is None or kept.ends_at != ends_at:  # else it has had this lease before
            self._held[take.request_id] = _Holding(take.asks, take.tokens, ends_at, take.now + LEASE_S, True)

    def in_doubt(self, take: _Take) -> None:
        """Nobody knows whether the store has it: who waits is answered without."""
        here = self._take_here(take.request_id, take.asks, take.tokens, self._clock()).result()
        if take.request_id in self._held:
            self._held[take.request_id].known = True
        else:
            self._owed.append(self._give_op(take.request_id, take.asks, take.tokens, 0))
        take.answer.set(here)

    def owe(self, op: tuple[Any, ...]) -> None:
        """To be told to the store when it is back."""
        self._owed.append(op)

    def give(self, request_id: str, account_id: str, tokens: int, now: float) -> None:
        holding = self._held.get(request_id)
        if holding is None or holding.asks.account != account_id:
            return
        del self._held[request_id]
        op = self._give_op(request_id, holding.asks, holding.tokens, tokens)
        if self._lost_at is None:
            self._urgent.append(_Give(op, self))
            if self._task is None:
                self._start()
            return
        self._here.give(request_id, account_id, tokens, now)
        if holding.known:
            self._owed.append(op)

    def renew(self, now: float) -> Later[None]:
        done: Later[None] = Later()
        if self._lost_at is not None:
            self._here.renew(now)
            done.set(None)
            return done
        self._renewed_at = now
        self._renewing.append(done)
        self._urgent.append(self._heartbeat())
        self._renewals = deque(self._renewal(request_id, now) for request_id in self._held)
        self._start()
        return done

    def tick(self, now: float) -> None:
        if self._lost_at is None:
            if now >= self._renewed_at + RENEW_S:
                self.renew(now)
            return
        self._here.renew(now)
        if now >= self._lost_at + TRIM_S:
            self._trim()
        if self._probe_task is None:
            self._probe_task = asyncio.get_running_loop().create_task(self._probe())

    def held(self, account_id: str, now: float) -> Later[int]:
        if self._lost_at is not None:
            return self._here.held(account_id, now)
        answer: Later[int] = Later()
        self._urgent.append(
            _Entry((_HELD, account_id), answer.set, lambda: answer.set(self._here.held(account_id, now).result()))
        )
        self._start()
        return answer

    def trouble(self) -> str | None:
        return self._why or None

    async def start(self, now: float) -> None:
        """Join the other nodes; a store that cannot be reached is found out now and asked again later."""
        await self.renew(now)

    async def stop(self) -> None:
        """Leave: what is still held is given back, as far as the store can be reached."""
        for task in (self._probe_task, self._task):
            if task is not None:
                await task
        ops = [self._give_op(each, lease.asks, lease.tokens, lease.tokens) for each, lease in self._held.items()]
        try:
            await self._link.call([*self._owed, *ops, (_LEAVE, self._node)], self._clock())
        except LinkError:
            pass  # it all ends by itself
        await self._link.close()

    # Calls.

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Call after call, until nothing waits."""
        try:
            while batch := self._batch():
                try:
                    answers = await self._link.call([entry.op for entry in batch], self._clock())
                except LinkError as error:
                    self._lose(str(error), batch)
                else:
                    for entry, answer in zip(batch, answers, strict=True):
                        if entry.said is not None:
                            entry.said(answer)
                if not self._renewals:
                    waiting, self._renewing = self._renewing, []
                    for done in waiting:
                        done.set(None)
        finally:
            self._task = None

    def _batch(self) -> list[_Waiting]:
        """What the next call carries: who waits comes first, then renewals of what has not been given back since."""
        urgent, renewals = self._urgent, self._renewals
        batch: list[_Waiting] = []
        if len(urgent) <= BATCH:
            batch += urgent
            urgent.clear()
        while urgent and len(batch) < BATCH:
            batch.append(urgent.popleft())
        while renewals and len(batch) < BATCH:
            entry = renewals.popleft()
            if entry.renews in self._held:
                batch.append(entry)
        return batch

    def _give_op(self, request_id: str, asks: Asks, taken: int, used: int) -> tuple[Any, ...]:
        if not (asks.key_concurrency or asks.tokens or asks.key_tokens):
            return _GIVE_PLACE, request_id, asks.account
        key = asks.key if asks.key_concurrency or asks.key_tokens else ""
        return _GIVE, request_id, asks.account, key, asks.tokens, asks.key_tokens, taken, used

    def _heartbeat(self) -> _Entry:
        def said(value: list[int]) -> None:
            self.nodes, self.rank = value

        return _Entry((_HERE, self._node, LEASE_S), said, _nothing)

    def _renewal(self, request_id: str, now: float) -> _Entry:
        holding = self._held[request_id]
        key = holding.asks.key if holding.asks.key_concurrency else ""
        op = (_RENEW, request_id, holding.asks.account, key, holding.ends_at)

        def said(ends_at: float) -> None:
            if ends_at:
                holding.ends_at, holding.here_until, holding.known = ends_at, now + LEASE_S, True
            elif self._held.pop(request_id, None) is not None:
                self._lost(request_id)

        return _Entry(op, said, _nothing, request_id)

    # While the store is lost.

    def _lose(self, why: str, batch: list[_Waiting]) -> None:
        """From now on nobody waits for the store; those who did are answered without it."""
        now = self._clock()
        self._lost_at, self._why = now, why
        self._here = MemoryLimiter(self._lose_here)
        late = [request_id for request_id, holding in self._held.items() if holding.here_until <= now]
        for request_id, holding in self._held.items():
            if holding.here_until > now:
                self._here.adopt(request_id, holding.asks, now)
        self._note("limits", lost=why, nodes=self.nodes)
        for request_id in late:
            self._lose_here(request_id)
        waiting = [*batch, *self._urgent]
        self._urgent.clear()
        self._renewals.clear()
        for entry in waiting:
            entry.failed()

    def _lose_here(self, request_id: str) -> None:
        holding = self._held.pop(request_id, None)
        if holding is not None:
            self._here.give(request_id, holding.asks.account, 0, self._clock())
            self._owed.append(self._give_op(request_id, holding.asks, holding.tokens, holding.tokens))
            self._lost(request_id)

    def _take_here(self, request_id: str, asks: Asks, tokens: int, now: float) -> Later[Verdict]:
        assert self._lost_at is not None
        share = asks.share(self.nodes, self.rank)
        if share is None or now >= self._lost_at + SHARES_S:
            return _UNAVAILABLE
        answer = self._here.take_asks(request_id, share, tokens, now)
        if not answer.result().refused:
            self._held.setdefault(request_id, _Holding(asks, tokens, _EVER, now + LEASE_S, False))
        return answer

    def _trim(self) -> None:
        """End what runs here beyond our share: the youngest first. Others may think these places free from now on."""
        running: Counter[tuple[str, str]] = Counter()
        over = []
        for request_id, holding in self._held.items():
            asks = holding.asks
            for owner, limit in (("a", asks.account), asks.concurrency), (("k", asks.key), asks.key_concurrency):
                if limit:
                    running[owner] += 1
                    if running[owner] > part(limit, self.nodes, self.rank):
                        over.append(request_id)
        for request_id in over:
            self._lose_here(request_id)

    async def _probe(self) -> None:
        """Ask the store again; if it is back, tell it first what ended here and what runs here."""
        heartbeat = self._heartbeat()
        try:
            answers = await self._link.call([heartbeat.op], self._clock())
        except LinkError as error:
            if error.lasting and str(error) != self._why:
                self._note("limits", lost=str(error), nodes=self.nodes)
            self._why = str(error)
            return
        finally:
            self._probe_task = None
        heartbeat.said(answers[0])
        now = self._clock()
        self._here.renew(now)  # what ended here while this process stood still is lost, whatever the store says
        self._note("limits", back_after_s=round(now - (self._lost_at or now), 3))
        self._lost_at, self._why = None, ""
        self._renewed_at = now
        owed, self._owed = self._owed, []
        for op in owed:
            self._urgent.append(_Give(op, self))
        for request_id, holding in self._held.items():
            holding.ends_at, holding.known = _EVER, True
            self._urgent.append(self._renewal(request_id, now))
        self._start()


def _nothing(_: Any = None) -> None: ...
