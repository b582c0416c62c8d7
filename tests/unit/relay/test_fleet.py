"""relay/fleet.py: permits, limits, the budget of retries, what one account's trouble means for its places."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.catalog.catalog import build
from moonpool.dialects import CLIENT
from moonpool.errors import Problem
from moonpool.relay.fleet import RETRIES_FIRST, Errand, Fleet
from moonpool.relay.health import FAILURES_MAX
from moonpool.relay.line import Waiter
from moonpool.relay.places import LATELY_S, Permit, Pool
from moonpool.settings import Settings
from moonpool.settings_hosts import Embedded, Routing
from moonpool.words import Price, Usage

BROKEN = Problem("upstream.failed")
DEAD = Problem("upstream.unreachable")


class Port:
    """A fleet over hosts that are written down here, on a clock that the test moves."""

    def __init__(
        self, routing: Routing | None = None, model: dict[str, Any] | None = None, **hosts: dict[str, Any]
    ) -> None:
        self.now = 0.0
        self.notes: list[dict[str, Any]] = []
        routing = routing or Routing()
        rows = {
            name: {"base_url": "http://127.0.0.1:9", "dialect": "openai", "api_key": name, **row}
            for name, row in hosts.items()
        }
        own = {"hosts": list(hosts), **(model or {})}
        settings = Settings(home="h", embedded=Embedded(enabled=False), hosts=rows, models={"m": own}, routing=routing)
        self.model = build(settings, {}).find("m")
        self.fleet = Fleet(
            routing, lambda: self.now, lambda event, **facts: self.notes.append({"event": event, **facts})
        )

    def note(self, event: str, **facts: Any) -> None:
        self.notes.append({"event": event, **facts})

    def errand(self, account: str = "tenant", *contents: str) -> Errand:
        messages = [{"role": "user", "content": content} for content in contents or ("Hi",)]
        body = json.dumps({"model": "m", "messages": messages}).encode()
        return self.fleet.errand(self.model, CLIENT.parse_call("chat", body, "id"), account)

    def permit(self, account: str = "tenant") -> Permit:
        found = self.errand(account).next(None, self.now)
        assert isinstance(found, Permit), found
        return found

    def end(self, permit: Permit, problem: Problem | None = None) -> None:
        permit.end(problem, self.now)


def host(found: Any) -> str:
    assert isinstance(found, Permit), found
    return found.place.target.host.name


def test_a_permit_is_given_back_once() -> None:
    """However often it is ended."""
    port = Port(a={"concurrency": 2})
    first, second = port.permit(), port.permit()
    place = first.place
    assert not place.has_room("tenant", port.now)
    for _ in range(3):
        port.end(first)
    assert (place.running, len(place.site.account.permits)) == (1, 1)
    port.end(second)
    assert (place.running, len(place.site.account.permits)) == (0, 0)


def test_hosts_of_one_account_share_its_limit() -> None:
    """Two keys of one account do not add capacity (PROVIDERS 1.8); the third host has its own."""
    port = Port(a={"account": "one", "concurrency": 3}, b={"account": "one", "concurrency": 3}, c={"concurrency": 1})
    assert [host(port.permit()) for _ in range(4)] == ["a", "a", "a", "c"]
    assert isinstance(port.errand().next(None, 0.0), Waiter)


def test_a_model_has_a_limit_of_its_own() -> None:
    """Of the account's, so many for this model."""
    port = Port(a={"concurrency": 9, "concurrency_by_model": {"m": 1}}, b={})
    assert [host(port.permit()) for _ in range(3)] == ["a", "b", "b"]


def test_who_waits_gets_the_place_that_is_freed() -> None:
    """In turn, and the wait is told in advance to those for whom it is too long."""
    port = Port(Routing(queue_max=1, queue_s=30.0), a={"concurrency": 1})
    running = port.permit()
    waiter = port.errand().next(None, 0.0)
    assert isinstance(waiter, Waiter)
    refused = port.errand().next(None, 0.0)
    assert isinstance(refused, Problem)
    assert (refused.code, refused.status, refused.retry_after_s) == ("platform.queue_full", 429, 2.0)
    port.end(running)
    assert host(waiter.turn.result()) == "a"


def test_the_wait_is_estimated_from_how_long_answers_take() -> None:
    """Twenty seconds an answer, two at once: who would wait longer than queue_s is refused at once, with when."""
    port = Port(Routing(queue_max=100, queue_s=25.0), a={"concurrency": 2})
    for _ in range(80):
        permit = port.permit()
        port.now += 20
        port.end(permit)
    running = [port.permit(), port.permit()]
    waiters = [port.errand().next(None, port.now) for _ in range(2)]
    assert all(isinstance(each, Waiter) for each in waiters)
    refused = port.errand().next(None, port.now)
    assert isinstance(refused, Problem)
    assert refused.retry_after_s == pytest.approx(30, rel=0.01)
    assert len(running) == 2


def test_the_wait_is_estimated_for_ones_own_turn() -> None:
    """An account whose own requests fill the line is told so; another one is next but one, and waits."""
    port = Port(Routing(queue_max=100, queue_s=30.0), a={"concurrency": 1})
    port.end(permit := port.permit())
    permit.place.site.span_s = 10.0
    running = port.permit()
    crowd = [port.errand().next(None, 0.0) for _ in range(4)]
    assert [type(each) for each in crowd] == [Waiter, Waiter, Waiter, Problem]
    other = port.errand("other").next(None, 0.0)
    assert isinstance(other, Waiter)
    port.end(running)
    port.end(crowd[0].turn.result())  # type: ignore[union-attr]
    assert host(other.turn.result()) == "a"


@pytest.mark.parametrize("row", [{"concurrency": 6}, {"concurrency_by_model": {"m": 6}}])
def test_one_account_leaves_places_for_others(row: dict[str, Any]) -> None:
    """Two thirds are all that one gets while another was there within a minute; the other has the rest at once, each
    place that is freed comes to who has few, and nobody is kept from a place for longer than that minute."""
    port = Port(Routing(queue_s=3600.0), a=row)
    port.end(port.permit("other"))
    crowd = [port.errand("crowd").next(None, 0.0) for _ in range(9)]
    assert [isinstance(each, Permit) for each in crowd] == [True] * 4 + [False] * 5
    first, third = port.permit("other"), port.permit("third")
    port.now = 1.0
    late = port.errand("other").next(None, 1.0)
    assert isinstance(late, Waiter)
    port.end(crowd[0])  # type: ignore[arg-type]
    assert host(late.turn.result()) == "a"
    assert port.fleet.waiting == 5, "those of the crowd"
    for permit in (first, third, late.turn.result()):
        port.end(permit)
    port.fleet.tick()
    assert port.fleet.waiting == 4, "four of six again"
    port.now = 1.0 + LATELY_S
    port.fleet.tick()
    assert port.fleet.waiting == 4
    port.now += 0.1
    port.fleet.tick()
    assert port.fleet.waiting == 2, "all six"


def test_who_is_alone_has_every_place() -> None:
    """Nothing is kept free for nobody, and of the last place nobody is kept who has none."""
    port = Port(a={"concurrency": 3})
    assert [host(port.permit("crowd")) for _ in range(3)] == ["a"] * 3
    port = Port(a={"concurrency": 3})
    assert [host(port.permit(name)) for name in "abc"] == ["a"] * 3


def test_below_the_bound_nobody_is_refused() -> None:
    """Where fewer than `easy` run nobody needs to be counted, and that is as far as one account gets."""
    for limit in range(1, 100):
        pool = Pool(limit)
        pool.asked("other", 0.0)
        pool.asked("crowd", 0.0)
        while pool.takes("crowd", 0.0):
            pool.permits[Permit(None, None, False, 0.0)] = "crowd"  # type: ignore[arg-type]
        assert len(pool.permits) == pool.easy
        assert pool.takes("other", 0.0) is (pool.easy < limit)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60))
def test_what_runs_of_each_account_is_counted_anew(steps: list[tuple[str, int]]) -> None:
    """After whatever began and ended: an account may take one more while it has fewer than twice what is free."""
    pool, limit = Pool(10), 10
    pool.asked("a", 0.0)
    pool.asked("b", 0.0)
    for account, number in steps:
        if number < 6 and len(pool.permits) < limit:
            pool.permits[Permit(None, None, False, 0.0)] = account  # type: ignore[arg-type]
        elif pool.permits:
            del pool.permits[list(pool.permits)[number % len(pool.permits)]]
        for name in "abc":
            free = limit - len(pool.permits)
            assert pool.takes(name, 0.0) is (list(pool.permits.values()).count(name) < 2 * free)


def test_the_tick_ends_waits_and_serves_those_whose_host_came_back() -> None:
    """What no other event tells."""
    port = Port(Routing(queue_s=30.0), a={"concurrency": 1})
    port.permit()
    waiter = port.errand().next(None, 0.0)
    port.now = 29.0
    port.fleet.tick()
    assert not waiter.turn.done()  # type: ignore[union-attr]
    port.now = 30.0
    port.fleet.tick()
    assert waiter.turn.result().code == "platform.queue_full"  # type: ignore[union-attr]


def test_retries_have_a_budget() -> None:
    """All hosts fail at everything: attempts stay below 1.2 times the requests, plus 3 (RELIABILITY case 30, I16)."""
    port = Port(a={}, b={}, c={})
    attempts = 0
    for request in range(1, 3001):
        errand, failure = port.errand(), None
        while isinstance(permit := errand.next(failure, port.now), Permit):
            attempts += 1
            assert attempts <= 1.2 * request + RETRIES_FIRST
            failure = BROKEN
            port.end(permit, failure)
        port.now += 0.005
    assert port.fleet.refused_retries or attempts < 3000
    open_for_s = port.now - FAILURES_MAX * 3 * 0.005
    assert attempts <= 3 * (FAILURES_MAX + open_for_s + 1), "about one probe a second and host"


def test_a_connection_that_was_never_made_costs_no_retry() -> None:
    """Nobody was asked: a dead host takes nothing from the budget, so all are served by the other one."""
    port = Port(a={}, b={})
    for _ in range(200):
        errand = port.errand()
        permit = errand.next(None, port.now)
        if host(permit) == "a":
            port.end(permit, DEAD)  # type: ignore[arg-type]
            permit = errand.next(DEAD, port.now)
        assert host(permit) == "b"
        port.end(permit)  # type: ignore[arg-type]
        port.now += 0.01


def test_a_refused_key_parks_all_that_uses_it() -> None:
    """The account at fault, not the model: its other models are not asked either, an operator is told, and whoever gets
    through brings all of it back (RELIABILITY case 28)."""
    port = Port(a={"account": "one"}, b={"account": "one"}, c={})
    permit = port.permit()
    port.errand()
    port.end(permit, Problem("upstream.credentials", detail="host: 401"))
    assert [host(port.permit()) for _ in range(3)] == ["c", "c", "c"]
    assert port.notes[0]["event"] == "host parked"
    assert (port.notes[0]["host"], port.notes[0]["why"]) == ("a", "upstream.credentials")
    port.now = 60.0
    probe = port.permit()
    assert (host(probe), probe.probe) == ("a", True)
    probe.began(port.now)
    assert [site.health.trouble for site in port.fleet.sites()] == ["", "", ""]


def test_when_all_are_parked_the_client_hears_a_502() -> None:
    """Never our 401 or 402, and what is wrong stands in the detail."""
    port = Port(a={}, b={})
    for code in ("upstream.unpaid", "upstream.credentials"):
        port.end(port.permit(), Problem(code))
    problem = port.errand().next(None, port.now)
    assert isinstance(problem, Problem)
    assert problem.status == 502
    assert "a: parked (upstream.unpaid)" in problem.detail


def test_when_all_are_broken_the_client_hears_when_to_come_back() -> None:
    """503 with Retry-After, and one attempt a second to see (RELIABILITY case 33)."""
    port = Port(a={})
    for _ in range(FAILURES_MAX):
        port.end(port.permit(), BROKEN)
    problem = port.errand().next(None, port.now)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.retry_after_s) == ("upstream.busy", 1.0)
    port.now = 1.0
    assert port.permit().probe


def test_a_host_that_comes_back_is_not_stampeded() -> None:
    """After five minutes away: one probe, then a few at once, the rest wait (RELIABILITY case 32)."""
    port = Port(a={})
    for _ in range(FAILURES_MAX):
        port.end(port.permit(), BROKEN)
    port.now = 300.0
    probe = port.permit()
    assert isinstance(port.errand().next(None, port.now), Problem)
    probe.began(port.now)
    found = [port.errand().next(None, port.now) for _ in range(100)]
    assert sum(isinstance(each, Permit) for each in found) == 1  # and the probe itself still runs
    assert sum(isinstance(each, Waiter) for each in found) == 99


def test_a_host_that_wants_reasoning_back_is_asked_once_more() -> None:
    """Its row said to strip it; from now on it gets it, and who refuses all the same is not asked for ever."""
    port = Port(a={"replay": "strip"})
    errand, wants = port.errand(), Problem("upstream.reasoning_wanted")
    for expected in ("strip", "fill"):
        permit = errand.next(None if expected == "strip" else wants, port.now)
        assert isinstance(permit, Permit)
        assert permit.place.target.replay == expected
        port.end(permit, wants)
    assert errand.next(wants, port.now) is wants
    assert port.permit().place.target.replay == "fill"


def test_a_conversation_goes_where_its_beginning_is_cached() -> None:
    """Learned from measured hits, kept through a third turn, and never a reason to fail."""
    port = Port(model={"routing": "weight"}, a={}, b={})
    errand = port.errand("tenant", "Hello")
    first = errand.next(None, 0.0)
    errand.learn(first.place, Usage(100, 0, 10), Price(1_000_000, 20_000, 0), 0.0)  # type: ignore[union-attr]
    for turn in range(2, 10):
        errand = port.errand("tenant", *["Hello"] * turn)
        permit = errand.next(None, 0.0)
        assert host(permit) == host(first)
        errand.learn(permit.place, Usage(10, 90, 10), Price(1_000_000, 20_000, 0), 0.0)  # type: ignore[union-attr]
    record = port.fleet.affinity.records[host(first)]
    assert (record.expected, record.hit, record.tokens) == (8, 8, 720)
    assert record.saved_pico == {"CNY": 720 * 980_000}
    assert port.errand("somebody else", *["Hello"] * 5).expected is None
    for _ in range(FAILURES_MAX):
        first.place.health.ended(BROKEN, 0, 0.0)  # type: ignore[union-attr]
    assert host(port.errand("tenant", *["Hello"] * 10).next(None, 0.0)) != host(first)


def test_an_account_that_never_has_hits_is_not_preferred() -> None:
    """It was expected to, again and again, and did not."""
    port = Port(a={}, b={})
    place = port.permit().place
    for turn in range(1, 12):
        errand = port.errand("tenant", *["Hello"] * turn)
        errand.learn(place, Usage(100, 0, 10), Price(), 0.0)
    assert port.errand("tenant", *["Hello"] * 12).expected is None


def test_a_single_host_costs_no_digest() -> None:
    """Where there is nothing to choose nothing is remembered."""
    port = Port(a={})
    errand = port.errand("tenant", "Hello")
    errand.learn(errand.next(None, 0.0).place, Usage(100, 50, 10), Price(), 0.0)  # type: ignore[union-attr]
    assert port.fleet.affinity.records == {}


def test_two_names_for_one_model_at_a_host_keep_their_own_rules() -> None:
    """They share its health, its room and its limits, and nothing of what is asked there (a switch, a price)."""
    row = {"base_url": "http://127.0.0.1:9", "dialect": "openai", "api_key": "k", "concurrency_by_model": {"real": 2}}
    models = {
        name: {"hosts": [{"name": "a", "model": "real", "options": {"set": {"thinking": {"type": name}}}}]}
        for name in ("on", "off")
    }
    settings = Settings(home="h", embedded=Embedded(enabled=False), hosts={"a": row}, models=models)
    catalogue = build(settings, {})
    fleet = Fleet(Routing(), lambda: 0.0, lambda event, **facts: None)
    found = []
    for name in ("on", "off", "on"):
        body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hi"}]}).encode()
        call = CLIENT.parse_call("chat", body, "id")
        found.append(fleet.errand(catalogue.find(name), call, "tenant").next(None, 0.0))
    first, second, third = found
    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    assert first.place.target.options["set"] == {"thinking": {"type": "on"}}
    assert second.place.target.options["set"] == {"thinking": {"type": "off"}}
    assert isinstance(third, Waiter), "two run there, whatever they are called"
    first.end(None, 0.0)
    assert isinstance(third.turn.result(), Permit)
