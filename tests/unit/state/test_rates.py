"""The sums over limits: shares of nodes, buckets, and what a process keeps of those who are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.state.asks import FULL_S, LEASE_S, RATE_MAX, UNIT, Asks, asks_of, part, room, used_now, wait_ms
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
    assert Asks("a", "k", 1) == Asks("a", "k", 1, 0, 0, 0, 0, 0)
    assert asks.share(1, 0) == asks
    assert asks.share(3, 0) == Asks("a", "k", 34, 1, 3, 0, 334, 0)
    assert asks.share(3, 2) == Asks("a", "k", 33, 1, 2, 0, 333, 0)
    assert asks.share(4, 3) is None


def test_rates_have_a_bound() -> None:
    """A rate beyond it counts as it: sums over it are whole numbers everywhere."""
    huge = Account("a", "a", True, 5, None, False, 10**15, 10**15)
    key = Key("k", "a", limits=Limits(requests_per_minute=10**15, tokens_per_minute=10**15))
    asks = asks_of(huge, key)
    assert {asks.requests, asks.key_requests, asks.tokens, asks.key_tokens} == {100_000_000}
    assert RATE_MAX * UNIT < 2**53


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


LOOKS: dict[str, Callable[[MemoryLimiter, float], object]] = {
    "takes": lambda limiter, at: limiter.take("new", Account("a", "a", True, 1), Key("k", "a"), 0, at),
    "takes with rates": lambda limiter, at: limiter.take("new", RATED, Key("k", "a"), 0, at),
    "renews": lambda limiter, at: limiter.renew(at),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_lease_ends_to_the_moment(look: str) -> None:
    """A lease lives LEASE_S from its last renewal, and not a moment longer, whoever looks."""
    for at, ended in ((LEASE_S + 1.999, []), (LEASE_S + 2.0, ["old"])):
        lost: list[str] = []
        limiter = MemoryLimiter(lost.append)
        limiter.take("old", RATED, Key("k", "a"), 0, 1.0)
        limiter.renew(2.0)
        LOOKS[look](limiter, at)
        assert lost == ended


@pytest.mark.parametrize(("limits", "whose", "places"), [(None, "account", 5), (Limits(concurrency=2), "key", 2)])
def test_where_all_places_are_taken(limits: Limits | None, whose: str, places: int) -> None:
    """As many run at once as may, also where there are rates; the next one waits a second, and hears whose limit it
    is."""
    limiter, key = MemoryLimiter(), Key("k", "a", limits=limits)
    for number in range(places):
        assert not limiter.take(f"r{number}", RATED, key, 0, 0.0).result().refused
    refused = limiter.take("one more", RATED, key, 0, 0.0).result()
    assert (refused.refused, refused.whose, refused.retry_after_s) == ("concurrency", whose, FULL_S)


def test_what_was_not_used_is_there_again() -> None:
    """All of it, to the last token."""
    limiter = MemoryLimiter()
    limiter.take("r1", RATED, Key("k", "a"), 500, 0.0)
    limiter.give("r1", "a", 0, 0.0)
    after = limiter.take("r2", RATED, Key("k", "a"), 0, 0.0).result().tokens
    assert after is not None
    assert after.remaining == 600


def test_what_another_limiter_granted() -> None:
    """Counts here as well, for the account and for the key, and is given back; its tokens are corrected elsewhere."""
    limiter, key = MemoryLimiter(), Key("k", "a", limits=Limits(concurrency=1, tokens_per_minute=600))
    limiter.adopt("r1", asks_of(RATED, key), 0.0)
    limiter.adopt("r2", asks_of(RATED, Key("free", "a")), 0.0)
    assert limiter.held("a", 0.0).result() == 2
    assert set(limiter._key_leases) == {"k"}
    refused = limiter.take("r3", RATED, key, 0, 0.0).result()
    assert (refused.refused, refused.whose) == ("concurrency", "key")
    limiter.give("r1", "a", 500, 0.0)
    after = limiter.take("r3", RATED, key, 0, 0.0).result()
    assert after.tokens is not None
    assert (after.refused, after.tokens.remaining, limiter.held("a", 0.0).result()) == ("", 600, 2)


def test_nothing_is_kept_of_who_is_gone() -> None:
    """Accounts and keys that came once leave nothing behind: neither sets of leases nor buckets that are full again."""
    limiter = MemoryLimiter()
    limiter.tick(0.0)
    for number in range(50):
        account = Account(f"a{number}", "", True, 5, None, False, 60, 600)
        key = Key(f"k{number}", account.id, limits=Limits(concurrency=1, requests_per_minute=60))
        limiter.take(f"r{number}", account, key, 5, 0.0)
        limiter.give(f"r{number}", account.id, 5, 0.0)
    limiter.take("r", RATED, Key("k", "a"), 600, SWEEP_S)
    limiter.tick(SWEEP_S - 0.5)
    assert len(limiter._leases) == 51
    limiter.tick(SWEEP_S)
    assert set(limiter._leases) == {"a"}
    assert limiter._key_leases == {}
    assert set(limiter._more) == {"r"}
    assert set(limiter._buckets) == {(3, "a"), (5, "a")}
