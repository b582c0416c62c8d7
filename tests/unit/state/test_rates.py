"""The sums over limits: shares of nodes, buckets, and what a process keeps of those who are gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.state.asks import LEASE_S, RATE_MAX, Asks, asks_of, part, room, used_now, wait_ms
from moonpool.state.memory import SWEEP_S, MemoryLimiter
from moonpool.words import Account, Key, Limits

RATED = Account("a", "a", True, 5, None, False, 60, 600)


@given(limit=st.integers(0, 10_000), nodes=st.integers(1, 50))
def test_shares_make_the_limit(limit: int, nodes: int) -> None:
    """However many nodes there are: their shares are the limit, and none has more than one more than another."""
    parts = [part(limit, nodes, rank) for rank in range(nodes)]
    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1


def test_a_share_of_everything() -> None:
    """Each limit is shared by itself; of what has no limit there is none; nothing of one thing is nothing at all."""
    asks = Asks("a", "k", 100, 3, 7, 0, 1000, 0)
    assert asks.share(1, 0) == asks
    assert asks.share(3, 0) == Asks("a", "k", 34, 1, 3, 0, 334, 0)
    assert asks.share(3, 2) == Asks("a", "k", 33, 1, 2, 0, 333, 0)
    assert asks.share(4, 3) is None


def test_rates_have_a_bound() -> None:
    """A rate beyond it counts as it: sums over it are whole numbers everywhere."""
    huge = Account("a", "a", True, 5, None, False, 10**15, 10**15)
    key = Key("k", "a", limits=Limits(requests_per_minute=10**15, tokens_per_minute=10**15))
    asks = asks_of(huge, key)
    assert {asks.requests, asks.key_requests, asks.tokens, asks.key_tokens} == {RATE_MAX}
    assert RATE_MAX * 60_000 < 2**53


BUCKETS = [
    # used, amount, rate -> wait
    (0, 1, 60, 0),
    (59 * 60_000, 1, 60, 0),
    (60 * 60_000, 1, 60, 1000),
    (60 * 60_000 - 59, 1, 60, 1000),
    (60 * 60_000 - 60, 1, 60, 999),
    (59 * 60_000 + 1, 1, 60, 1),
    (0, 61, 60, 0),
    (1, 61, 60, 1),
    (120 * 60_000, 1, 60, 61_000),
    (7 * 60_000, 1, 7, 8572),
]


@pytest.mark.parametrize(("used", "amount", "rate", "expected"), BUCKETS)
def test_the_wait_is_neither_early_nor_late(used: int, amount: int, rate: int, expected: int) -> None:
    """After that many milliseconds it succeeds, and one before it does not."""
    assert wait_ms(used, amount, rate) == expected
    assert wait_ms(used_now(used, 0, rate, expected), amount, rate) == 0
    if expected:
        assert wait_ms(used_now(used, 0, rate, expected - 1), amount, rate) == 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Time that has been counted is not counted again."""
    assert used_now(500, 1000, 60, 900) == 500
    assert room(60_000 * 3 + 1, 10).remaining == 6


def test_a_lease_that_ended_corrects_nothing() -> None:
    """Who gives back too late, before anybody noticed, gets no tokens back: in the store his lease is gone too."""
    limiter = MemoryLimiter()
    key = Key("k", "a", limits=Limits(concurrency=1))
    limiter.take("r1", RATED, key, 500, 0.0)
    limiter.give("r1", "a", 0, LEASE_S)
    after = limiter.take("r2", RATED, key, 10, LEASE_S).result()
    assert after.tokens is not None
    assert (after.refused, after.tokens.remaining) == ("", 600 - 500 + 150 - 10)


def test_nothing_is_kept_of_who_is_gone() -> None:
    """Accounts and keys that came once leave nothing behind: neither sets of leases nor buckets that are full again."""
    limiter = MemoryLimiter()
    for number in range(50):
        account = Account(f"a{number}", "", True, 5, None, False, 60, 600)
        key = Key(f"k{number}", account.id, limits=Limits(concurrency=1, requests_per_minute=60))
        limiter.take(f"r{number}", account, key, 5, 0.0)
        limiter.give(f"r{number}", account.id, 5, 0.0)
    limiter.take("r", RATED, Key("k", "a"), 600, SWEEP_S)
    limiter.tick(SWEEP_S)
    assert set(limiter._leases) == {"a"}
    assert limiter._key_leases == {}
    assert set(limiter._more) == {"r"}
    assert set(limiter._buckets) == {(3, "a"), (5, "a")}
