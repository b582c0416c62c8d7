"""Limiter: what every limiter promises, and that all say the same. Time is an argument, also for the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance.backends import LIMITERS, Limits, limits, run
from moonpool.state.asks import LEASE_S
from moonpool.state.base_limits import Verdict
from moonpool.words import Account, Key
from moonpool.words import Limits as Bounds
from valkey_server import ValkeyServer, valkey_server

KEY = Key("key", "a")


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], ValkeyServer]]:
    """The server of that name, started when it is first wanted."""
    started: dict[str, ValkeyServer] = {}
    with contextlib.ExitStack() as stack:

        def server(program: str) -> ValkeyServer:
            if program not in started:
                started[program] = stack.enter_context(valkey_server(program))
            return started[program]

        yield server


@pytest.fixture(params=LIMITERS)
def backend(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which limiter, and the address of its store."""
    name = str(request.param)
    if name == "memory":
        return name, ""
    server: ValkeyServer = request.getfixturevalue("servers")(name)
    server.ask("FLUSHALL")
    return name, server.url


async def take(
    here: Limits,
    request_id: str,
    limit: int = 0,
    *,
    account: str = "a",
    key: Key = KEY,
    tokens: int = 0,
    requests_a_minute: int = 0,
    tokens_a_minute: int = 0,
) -> Verdict:
    payer = Account(account, account, True, limit, None, False, requests_a_minute, tokens_a_minute)
    return await here.limiter.take(request_id, payer, key, tokens, here.now)


async def granted(here: Limits, request_id: str, limit: int, account: str = "a") -> bool:
    return not (await take(here, request_id, limit, account=account)).refused


def give(here: Limits, request_id: str, tokens: int = 0, account: str = "a") -> None:
    here.limiter.give(request_id, account, tokens, here.now)


async def held(here: Limits, account: str = "a") -> int:
    return await here.limiter.held(account, here.now)


async def renew(here: Limits, now: float) -> None:
    here.now = now
    await here.limiter.renew(now)


def on(backend: tuple[str, str], act: Any) -> None:
    async def play() -> None:
        async with limits(*backend) as here:
            await act(here)

    run(play())


def test_the_limit_is_exact(backend: tuple[str, str]) -> None:
    """A hundred of three hundred get a lease; what is given back can be taken again."""

    async def act(here: Limits) -> None:
        taken = [await granted(here, f"r{each}", 100) for each in range(300)]
        assert taken == [True] * 100 + [False] * 200
        assert await held(here) == 100
        give(here, "r7")
        assert await granted(here, "r300", 100)
        full = await take(here, "r301", 100)
        assert (full.refused, full.whose, full.retry_after_s) == ("concurrency", "account", 1.0)
        assert (full.requests, full.tokens) == (None, None)

    on(backend, act)


def test_giving_twice_gives_once(backend: tuple[str, str]) -> None:
    """Giving back is idempotent, and what was never taken, or by another account, cannot be given."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 2)
        assert await granted(here, "r2", 2)
        for account, request in (("a", "r1"), ("a", "r1"), ("b", "r2"), ("a", "never")):
            give(here, request, account=account)
        assert await held(here) == 1
        assert await held(here, "b") == 0

    on(backend, act)


def test_taking_twice_takes_once(backend: tuple[str, str]) -> None:
    """Who has a lease has it, also when the limit is reached, and pays its rates once."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 1)
        here.now = 1.0
        assert await granted(here, "r1", 1)
        assert await held(here) == 1
        for _ in range(2):
            twice = await take(here, "r2", account="b", requests_a_minute=10)
            assert twice.requests is not None
            assert twice.requests.remaining == 9

    on(backend, act)


def test_without_limits_nothing_is_kept(backend: tuple[str, str]) -> None:
    """An account without any limit is never asked about."""

    async def act(here: Limits) -> None:
        assert await take(here, "r1") == Verdict()
        assert await take(here, "r2", key=Key("k", "a", limits=Bounds())) == Verdict()
        assert await held(here) == 0
        give(here, "r1")

    on(backend, act)


def test_accounts_are_apart(backend: tuple[str, str]) -> None:
    """One account at its limit leaves another free."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 1)
        assert not await granted(here, "r2", 1)
        assert await granted(here, "r2", 1, "b")

    on(backend, act)


def test_a_lease_ends_by_itself(backend: tuple[str, str]) -> None:
    """Whoever dies without giving back blocks nobody for longer than a lease lives."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 1)
        here.now = LEASE_S - 0.1
        assert not await granted(here, "r2", 1)
        here.now = LEASE_S
        assert await granted(here, "r2", 1)
        assert await held(here) == 1
        give(here, "r1")
        assert await held(here) == 1

    on(backend, act)


def test_renewing_keeps_leases(backend: tuple[str, str]) -> None:
    """What is renewed every third of its life lives on; once renewals stop it ends, its holder is told, and it does
    not come back."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 2)
        for each in range(1, 21):
            await renew(here, each * LEASE_S / 3)
        assert await held(here) == 1
        assert here.lost == []
        here.now += LEASE_S
        assert await held(here) == 0
        await renew(here, here.now + 1)
        assert await held(here) == 0
        assert here.lost == ["r1"]
        assert await granted(here, "r2", 2)
        give(here, "r1")
        assert await held(here) == 1

    on(backend, act)


def test_renewing_keeps_leases_of_keys(backend: tuple[str, str]) -> None:
    """The place of a key is renewed with that of its account, and ends with it."""

    async def act(here: Limits) -> None:
        key = Key("k", "a", limits=Bounds(concurrency=1))
        assert not (await take(here, "r1", 9, key=key)).refused
        for each in range(1, 8):
            await renew(here, each * LEASE_S / 3)
            refused = await take(here, "r2", 9, key=key)
            assert (refused.refused, refused.whose) == ("concurrency", "key")
            assert refused.retry_after_s == 1.0
        here.now += LEASE_S
        assert not (await take(here, "r2", 9, key=key)).refused

    on(backend, act)


def test_what_ended_can_be_taken_anew(backend: tuple[str, str]) -> None:
    """A lease that ended unseen and is taken again by the same request lives as long as any other."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 2)
        here.now = 2 * LEASE_S
        assert await granted(here, "r1", 2)
        await renew(here, here.now + LEASE_S / 3)
        assert await held(here) == 1

    on(backend, act)


def test_a_tick_renews_when_it_is_time(backend: tuple[str, str]) -> None:
    """Once a second somebody looks: that is enough for a lease to live."""

    async def act(here: Limits) -> None:
        assert await granted(here, "r1", 2)
        for second in range(1, 40):
            here.now = float(second)
            here.limiter.tick(here.now)
            assert await held(here) == 1
        for second in (100.0, 200.0):
            here.now = second
            here.limiter.tick(here.now)
        assert await held(here) == 0
        assert here.lost == ["r1"]

    on(backend, act)


def test_a_rate_of_requests_is_exact(backend: tuple[str, str]) -> None:
    """A minute's worth at once and not one more; then one for each part of a minute, neither early nor late."""

    async def act(here: Limits) -> None:
        here.now = 1_700_000_000.123
        for each in range(60):
            verdict = await take(here, f"r{each}", requests_a_minute=60)
            assert verdict.requests is not None
            assert (verdict.refused, verdict.requests.remaining) == ("", 59 - each)
        verdict = await take(here, "r60", requests_a_minute=60)
        assert (verdict.refused, verdict.whose, verdict.retry_after_s) == ("requests", "account", 1.0)
        assert verdict.requests is not None
        assert (verdict.requests.limit, verdict.requests.remaining, verdict.requests.reset_s) == (60, 0, 60.0)
        here.now += 0.999
        assert (await take(here, "r60", requests_a_minute=60)).retry_after_s == 0.001
        here.now += 0.001
        assert not (await take(here, "r60", requests_a_minute=60)).refused
        assert (await take(here, "r61", requests_a_minute=60)).refused == "requests"

    on(backend, act)


def test_a_rate_is_not_given_back(backend: tuple[str, str]) -> None:
    """A request that is over was made all the same; one that was refused was not."""

    async def act(here: Limits) -> None:
        assert not (await take(here, "r1", 5, requests_a_minute=2)).refused
        give(here, "r1")
        for each in range(5):
            assert (await take(here, f"x{each}", 1, account="b")).refused == ("concurrency" if each else "")
        assert (await take(here, "r2", 5, requests_a_minute=2)).requests.remaining == 0  # type: ignore[union-attr]
        assert (await take(here, "r3", 5, requests_a_minute=2)).refused == "requests"

    on(backend, act)


def test_all_or_nothing(backend: tuple[str, str]) -> None:
    """What is refused for one limit takes nothing of the others; the first one gives the name, the longest the wait."""

    async def act(here: Limits) -> None:
        key = Key("k", "a", limits=Bounds(requests_per_minute=2, tokens_per_minute=100, concurrency=1))
        assert not (await take(here, "r1", 9, key=key, tokens=60)).refused
        refused = await take(here, "r2", 9, key=key, tokens=60)
        assert (refused.refused, refused.whose, refused.retry_after_s) == ("concurrency", "key", 12.0)
        assert refused.requests is not None
        assert (refused.requests.limit, refused.requests.remaining) == (2, 1)
        assert refused.tokens is not None
        assert (refused.tokens.limit, refused.tokens.remaining) == (100, 40)
        assert await held(here) == 1
        give(here, "r1", 60)
        assert (await take(here, "r2", 9, key=key, tokens=60)).refused == "tokens"
        assert not (await take(here, "r2", 9, key=key, tokens=40)).refused
        assert (await take(here, "r3", 9, key=key)).refused == "concurrency"
        give(here, "r2", 40)
        assert (await take(here, "r3", 9, key=key)).refused == "requests"

    on(backend, act)


@pytest.mark.parametrize("whose", ["account", "key"])
def test_tokens_are_corrected(backend: tuple[str, str], whose: str) -> None:
    """What was used in truth replaces the guess, once: less comes back, more is owed, and is paid by waiting. The
    tokens of one key are not another's."""
    key = Key("k", "a", limits=Bounds(tokens_per_minute=600)) if whose == "key" else KEY
    other = Key("other", "a", limits=Bounds(tokens_per_minute=600))
    rate = 600 if whose == "account" else 0

    async def act(here: Limits) -> None:
        async def asked(request_id: str, tokens: int) -> Verdict:
            return await take(here, request_id, key=key, tokens=tokens, tokens_a_minute=rate)

        verdict = await asked("r1", 500)
        assert verdict.tokens is not None
        assert (verdict.tokens.remaining, verdict.tokens.reset_s) == (100, 50.0)
        for _ in range(2):
            give(here, "r1", 100)
        verdict = await asked("r2", 500)
        assert verdict.tokens is not None
        assert (verdict.refused, verdict.tokens.remaining) == ("", 0)
        give(here, "r2", 1100)
        verdict = await asked("r3", 10)
        assert (verdict.refused, verdict.whose, verdict.retry_after_s) == ("tokens", whose, 61.0)
        assert verdict.tokens is not None
        assert (verdict.tokens.remaining, verdict.tokens.reset_s) == (0, 120.0)
        if whose == "key":
            assert not (await take(here, "r4", key=other, tokens=600)).refused
        here.now += 61.0
        assert not (await asked("r3", 10)).refused

    on(backend, act)


def test_a_stranger_gives_nothing(backend: tuple[str, str]) -> None:
    """Another account cannot give back what this one holds, nor correct its tokens."""

    async def act(here: Limits) -> None:
        key = Key("k", "a", limits=Bounds(concurrency=2))
        assert not (await take(here, "r1", 2, key=key, tokens=60, tokens_a_minute=60)).refused
        give(here, "r1", 0, account="b")
        assert await held(here) == 1
        assert (await take(here, "r2", 2, key=key, tokens=60, tokens_a_minute=60)).refused == "tokens"

    on(backend, act)


def test_more_than_a_minute_holds_runs_when_it_is_full(backend: tuple[str, str]) -> None:
    """A request that is larger than the rate is not refused for ever: it waits for a full bucket and empties it."""

    async def act(here: Limits) -> None:
        assert not (await take(here, "r1", tokens=1, tokens_a_minute=60)).refused
        refused = await take(here, "r2", tokens=180, tokens_a_minute=60)
        assert (refused.refused, refused.retry_after_s) == ("tokens", 1.0)
        here.now = 1.0
        assert not (await take(here, "r2", tokens=180, tokens_a_minute=60)).refused
        assert (await take(here, "r3", tokens=1, tokens_a_minute=60)).retry_after_s == 121.0

    on(backend, act)


def test_the_tighter_rate_is_told(backend: tuple[str, str]) -> None:
    """Where account and key both have a rate, the one with less left is what a client has to know."""

    async def act(here: Limits) -> None:
        wide = Key("wide", "a", limits=Bounds(requests_per_minute=100))
        tight = Key("tight", "a", limits=Bounds(requests_per_minute=3))
        first = await take(here, "r1", key=wide, requests_a_minute=10)
        second = await take(here, "r2", key=tight, requests_a_minute=10)
        assert first.requests is not None
        assert second.requests is not None
        assert (first.requests.limit, first.requests.remaining) == (10, 9)
        assert (second.requests.limit, second.requests.remaining) == (3, 2)

    on(backend, act)


# A plain model: dictionaries, every rule in its simplest form.


class Model:
    def __init__(self) -> None:
        self.leases: dict[tuple[str, str], tuple[float, str, int, dict[tuple[str, str], int]]] = {}
        self.used: dict[tuple[str, str], tuple[int, int]] = {}
        self.ended: set[str] = set()
        """Whose lease ended, and who has neither given it back nor taken it anew since."""
        self.ever_ended: set[str] = set()

    def pass_to(self, now: float) -> None:
        self.ended |= {request for (_, request), lease in self.leases.items() if lease[0] <= now}
        self.ever_ended |= self.ended
        self.leases = {name: lease for name, lease in self.leases.items() if lease[0] > now}

    def level(self, bucket: tuple[str, str], rate: int, now: float) -> int:
        """Sixty-thousandths of a unit that are used."""
        used, at = self.used.get(bucket, (0, 0))
        return max(0, used - (int(now * 1000 + 0.5) - at) * rate)

    def take(self, now: float, account: Account, key: Key, request: str, tokens: int) -> tuple[str, str]:
        self.pass_to(now)
        own = key.limits or Bounds()
        mine = [lease for name, lease in self.leases.items() if name[0] == account.id]
        of_key = [lease for lease in self.leases.values() if lease[1] == key.id]
        rates = [
            ("requests", "account", account.id, account.requests_per_minute, 1),
            ("requests", "key", key.id, own.requests_per_minute, 1),
            ("tokens", "account", account.id, account.tokens_per_minute, tokens),
            ("tokens", "key", key.id, own.tokens_per_minute, tokens),
        ]
        rates = [rate for rate in rates if rate[3]]
        if (account.id, request) in self.leases:
            return ("", "")
        if account.concurrency and len(mine) >= account.concurrency:
            return ("concurrency", "account")
        if own.concurrency and len(of_key) >= own.concurrency:
            return ("concurrency", "key")
        for kind, whose, owner, rate, amount in rates:
            if self.level((kind, owner), rate, now) + min(amount, rate) * 60_000 > rate * 60_000:
                return (kind, whose)
        if account.concurrency or own.concurrency or rates:
            for kind, _, owner, rate, amount in rates:
                level = self.level((kind, owner), rate, now) + amount * 60_000
                self.used[kind, owner] = (level, int(now * 1000 + 0.5))
            taken = {(kind, owner): rate for kind, _, owner, rate, _ in rates if kind == "tokens"}
            of = key.id if own.concurrency else ""
            self.leases[account.id, request] = (now + LEASE_S, of, tokens, taken)
            self.ended.discard(request)
        return ("", "")

    def give(self, now: float, account: str, request: str, used: int) -> None:
        self.pass_to(now)
        self.ended.discard(request)
        lease = self.leases.pop((account, request), None)
        if lease is not None:
            for bucket, rate in lease[3].items():
                level = max(0, self.level(bucket, rate, now) + (used - lease[2]) * 60_000)
                self.used[bucket] = (level, int(now * 1000 + 0.5))

    def renew(self, now: float) -> None:
        self.pass_to(now)
        self.leases = {name: (now + LEASE_S, *lease[1:]) for name, lease in self.leases.items()}


_ACCOUNTS = {
    "a": Account("a", "a", True, 3),
    "b": Account("b", "b", True, 4, None, False, 7, 0),
    "c": Account("c", "c", True, 0, None, False, 0, 50),
}
_KEYS = {
    "plain": None,
    "one": Bounds(concurrency=1),
    "rates": Bounds(requests_per_minute=3, tokens_per_minute=90, concurrency=2),
}
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give", "renew"]),
        st.sampled_from(sorted(_ACCOUNTS)),
        st.sampled_from(sorted(_KEYS)),
        st.integers(0, 6),
        st.integers(0, 120),
        st.sampled_from([0.0, 0.0, 0.1, 1.0, 4.0, 9.0]) | st.floats(0, 9),
    ),
    max_size=60,
)


@settings(
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=_STEPS)
def test_every_limiter_says_what_plain_dictionaries_say(
    backend: tuple[str, str], steps: list[tuple[str, str, str, int, int, float]]
) -> None:
    """Whatever is taken, given and renewed in whatever order and at whatever time: the same verdicts, the same leases
    held, and of every lease that ended unseen its holder is told."""

    async def act(here: Limits) -> None:
        model = Model()
        for verb, account, name, number, tokens, later in steps:
            here.now += later
            # A request is one account's and one key's.
            request, key = f"{account}.{name}.{number}", Key(f"{account}.{name}", account, limits=_KEYS[name])
            if verb == "take":
                expected = model.take(here.now, _ACCOUNTS[account], key, request, tokens)
                said = await here.limiter.take(request, _ACCOUNTS[account], key, tokens, here.now)
                assert (said.refused, said.whose if said.refused else "") == expected
                assert (said.retry_after_s > 0) == bool(said.refused)
            elif verb == "give":
                model.give(here.now, account, request, tokens)
                give(here, request, tokens, account)
            else:
                model.renew(here.now)
                await renew(here, here.now)
                assert set(here.lost) >= model.ended
                assert not set(here.lost) - model.ever_ended
            model.pass_to(here.now)
            assert await held(here, account) == sum(owner == account for owner, _ in model.leases)

    name, url = backend
    if url:
        _empty(url)
    on((name, url), act)


def _empty(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushall()
