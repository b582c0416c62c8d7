"""Limiter: what every limiter promises. Time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.backends import LIMITERS
from moonpool.state.memory import LEASE_S

pytestmark = pytest.mark.parametrize("backend", LIMITERS)


def test_the_limit_is_exact(backend: str) -> None:
    """A hundred of three hundred get a lease; what is given back can be taken again."""
    limiter = LIMITERS[backend]()
    taken = [limiter.take("a", f"r{each}", 100, 0.0) for each in range(300)]
    assert taken == [True] * 100 + [False] * 200
    assert limiter.held("a", 0.0) == 100
    limiter.give("a", "r7")
    assert limiter.take("a", "r300", 100, 0.0)
    assert not limiter.take("a", "r301", 100, 0.0)


def test_giving_twice_gives_once(backend: str) -> None:
    """Giving back is idempotent, and what was never taken, or by another account, cannot be given."""
    limiter = LIMITERS[backend]()
    assert limiter.take("a", "r1", 2, 0.0)
    assert limiter.take("a", "r2", 2, 0.0)
    for account, request in (("a", "r1"), ("a", "r1"), ("b", "r2"), ("a", "never")):
        limiter.give(account, request)
    assert limiter.held("a", 0.0) == 1
    assert limiter.held("b", 0.0) == 0


def test_taking_twice_takes_once(backend: str) -> None:
    """Who has a lease has it, also when the limit is reached."""
    limiter = LIMITERS[backend]()
    assert limiter.take("a", "r1", 1, 0.0)
    assert limiter.take("a", "r1", 1, 1.0)
    assert limiter.held("a", 1.0) == 1


def test_accounts_are_apart(backend: str) -> None:
    """One account at its limit leaves another free."""
    limiter = LIMITERS[backend]()
    assert limiter.take("a", "r1", 1, 0.0)
    assert not limiter.take("a", "r2", 1, 0.0)
    assert limiter.take("b", "r2", 1, 0.0)


def test_a_lease_ends_by_itself(backend: str) -> None:
    """Whoever dies without giving back blocks nobody for longer than a lease lives."""
    limiter = LIMITERS[backend]()
    assert limiter.take("a", "r1", 1, 0.0)
    assert not limiter.take("a", "r2", 1, LEASE_S - 0.1)
    assert limiter.take("a", "r2", 1, LEASE_S)
    assert limiter.held("a", LEASE_S) == 1
    limiter.give("a", "r1")
    assert limiter.held("a", LEASE_S) == 1


def test_renewing_keeps_leases(backend: str) -> None:
    """What is renewed every third of its life lives on; once renewals stop it ends; the dead are not renewed."""
    limiter = LIMITERS[backend]()
    assert limiter.take("a", "r1", 2, 0.0)
    now = 0.0
    for _ in range(20):
        now += LEASE_S / 3
        limiter.renew(now)
    assert limiter.held("a", now) == 1
    assert limiter.held("a", now + LEASE_S) == 0
    limiter.renew(now + LEASE_S + 1)
    assert limiter.held("a", now + LEASE_S + 1) == 0
    assert limiter.take("a", "r2", 2, now + LEASE_S + 1)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "give", "renew"]), st.sampled_from("ab"), st.integers(0, 6), st.floats(0, 9)
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None, database=None)
@given(steps=_STEPS)
def test_leases_are_a_set(backend: str, steps: list[tuple[str, str, int, float]]) -> None:
    """Whatever is taken, given and renewed in whatever order: a set of (account, request, until) says the same."""
    limiter = LIMITERS[backend]()
    until: dict[tuple[str, int], float] = {}
    now = 0.0
    for verb, account, request, later in steps:
        now += later
        until = {lease: end for lease, end in until.items() if end > now}
        mine = [lease for lease in until if lease[0] == account]
        if verb == "take":
            expected = (account, request) in until or len(mine) < 3
            assert limiter.take(account, str(request), 3, now) == expected
            if expected:
                until.setdefault((account, request), now + LEASE_S)
        elif verb == "give":
            limiter.give(account, str(request))
            until.pop((account, request), None)
        else:
            limiter.renew(now)
            until = dict.fromkeys(until, now + LEASE_S)
        assert limiter.held(account, now) == sum(lease[0] == account for lease in until)
