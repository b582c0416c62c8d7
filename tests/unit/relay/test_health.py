"""relay/health.py: how a model at a host is doing, on a clock that the test moves."""

from __future__ import annotations

import random

import pytest

from moonpool.errors import ERRORS, Problem
from moonpool.relay import health as h
from moonpool.relay.health import OUT, PROBE, READY, Health

BROKEN = Problem("upstream.failed")


def failed(health: Health, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        health.ended(BROKEN, 0, now)


def test_a_few_failures_change_nothing() -> None:
    """Fewer than FAILURES_MAX in a row, and a success forgives them."""
    health = Health()
    for _ in range(3):
        failed(health, h.FAILURES_MAX - 1)
        assert health.verdict(0.0) == READY
        health.began(0.0)
    assert health.trouble == ""


def test_it_opens_after_failures_in_a_row_and_one_probe_looks() -> None:
    """Open for a pause; then one request at a time; a probe that begins to answer closes it, with little room first."""
    health = Health()
    failed(health, h.FAILURES_MAX)
    assert health.trouble == "open"
    assert health.verdict(h.PROBE_S - 0.01) == OUT
    assert health.verdict(h.PROBE_S) == PROBE
    health.probe(h.PROBE_S)
    assert health.verdict(h.PROBE_S) == OUT
    assert health.began(h.PROBE_S, probe=True)
    assert health.verdict(h.PROBE_S) == READY
    assert health.room == h.ROOM_FIRST


def test_pauses_grow_while_probes_fail_and_end_at_a_bound() -> None:
    """1, 2, 4 … seconds, PAUSE_MAX_S at most."""
    health = Health()
    failed(health, h.FAILURES_MAX)
    now, pauses = 0.0, []
    for _ in range(8):
        pauses.append(health.until - now)
        now = health.until
        health.probe(now)
        health.ended(BROKEN, 0, now, probe=True)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_when_nothing_else_is_there_it_is_looked_at_once_a_second() -> None:
    """However long the pause has grown (RELIABILITY case 30)."""
    health = Health()
    failed(health, h.FAILURES_MAX)
    now = 0.0
    for _ in range(6):
        now = health.until
        health.probe(now)
        health.ended(BROKEN, 0, now, probe=True)
    assert not health.may_panic(now + 0.5)
    assert health.may_panic(now + h.PROBE_S)
    assert health.verdict(now + h.PROBE_S) == OUT


def test_an_answer_that_began_before_does_not_close_it() -> None:
    """A long stream that ends well says nothing of new requests."""
    health = Health()
    failed(health, h.FAILURES_MAX)
    health.ended(None, 0, 0.5)
    assert health.trouble == "open"


def test_it_is_ejected_by_rate_and_does_not_flap() -> None:
    """Three of ten answers fail: out for a minute, longer each time, fewer than three changes in any minute
    (RELIABILITY case 31)."""
    health, chance, now, turns = Health(), random.Random(1), 0.0, []
    before = ""
    while now < 1800:
        if health.verdict(now) == READY:
            if chance.random() < 0.3:
                health.ended(BROKEN, 0, now)
            else:
                health.began(now)
                health.ended(None, 0, now)
        if health.trouble != before:
            before = health.trouble
            turns.append(now)
        now += 0.05
    assert health.changes == len(turns) > 2
    assert all(sum(at <= turn < at + 60 for turn in turns) < 3 for at in turns)


def test_an_ejected_host_comes_back_slowly() -> None:
    """What it may have at once grows with each answer that begins, until nothing limits it."""
    health = Health()
    for _ in range(h.EJECT_ANSWERS_MIN):
        health.began(0.0)
    for _ in range(3):
        failed(health, 3)
        health.began(0.0)
    assert health.trouble == "ejected"
    assert health.may_panic(0.0)
    assert health.verdict(h.EJECT_S) == READY
    rooms = []
    while health.room:
        rooms.append(health.room)
        health.began(h.EJECT_S)
    assert rooms == list(range(h.ROOM_FIRST, h.ROOM_FULL + 1))


@pytest.mark.parametrize(("asked_s", "until"), [(0.5, 0.5), (7, 7), (86_400, h.COOL_MAX_S)])
def test_retry_after_is_obeyed_within_reason(asked_s: float, until: float) -> None:
    """A host that asks for a pause gets it, two minutes at most (RELIABILITY case 29); it is no failure."""
    health = Health()
    for _ in range(10):
        health.ended(Problem("upstream.busy", retry_after_s=asked_s), 3, 0.0)
    assert (health.trouble, health.until) == ("cooling", until)
    assert health.verdict(until) == READY
    assert health.room == 0


def test_a_busy_host_gets_half_of_what_it_had() -> None:
    """Too many at once, and no word of when: what runs there is halved, and grows with each answer that begins."""
    health = Health()
    health.ended(Problem("upstream.busy"), 40, 0.0)
    assert (health.room, health.verdict(0.0)) == (20, READY)
    health.began(0.0)
    assert health.room == 21
    failed(health, 1)
    for _ in range(h.FAILURES_MAX):
        health.ended(Problem("upstream.busy"), 0, 0.0)
    assert health.trouble == "open"


@pytest.mark.parametrize("code", ["upstream.credentials", "upstream.unpaid", "upstream.forbidden"])
def test_who_refuses_us_is_parked(code: str) -> None:
    """At once; looked at again after a minute, then less often; an answer brings it back."""
    health = Health()
    assert health.ended(Problem(code), 0, 0.0)
    assert (health.trouble, health.why, health.until) == ("parked", code, h.PARK_S)
    assert health.verdict(h.PARK_S) == PROBE
    health.probe(h.PARK_S)
    health.ended(Problem(code), 0, h.PARK_S, probe=True)
    assert health.until == h.PARK_S + 2 * h.PARK_S
    health.probe(health.until)
    health.began(health.until, probe=True)
    assert health.trouble == ""


@pytest.mark.parametrize(
    "code", sorted(code for code in ERRORS if code.startswith(("caller.", "platform.")) or code == "upstream.refused")
)
def test_what_says_nothing_of_the_host_is_no_failure(code: str) -> None:
    """A client that leaves, our own faults, a request the host refuses: the host is as it was."""
    health = Health()
    for _ in range(50):
        health.ended(Problem(code), 0, 0.0)
    assert health.trouble == ("open" if code == "platform.model_failed" else "")


def test_a_probe_that_says_nothing_may_be_repeated() -> None:
    """The client of a probe left: another request may look."""
    health = Health()
    failed(health, h.FAILURES_MAX)
    health.probe(1.0)
    health.ended(Problem("caller.gone"), 0, 1.1, probe=True)
    assert health.verdict(1.1) == PROBE
