"""relay/fleet.py while the catalogue changes: what runs ends as it began, what comes goes by what holds now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moonpool.catalog.catalog import Catalogue, build
from moonpool.catalog.model import Model
from moonpool.dialects import CLIENT
from moonpool.errors import Problem
from moonpool.relay.fleet import Errand, Fleet
from moonpool.relay.health import FAILURES_MAX
from moonpool.relay.line import Waiter
from moonpool.relay.places import Permit
from moonpool.settings import Settings
from moonpool.settings_hosts import Embedded, Routing
from moonpool.words import Target

BROKEN = Problem("upstream.failed")
REFUSED = Problem("upstream.credentials")


def made(*models: str, to: tuple[str, ...] = (), **hosts: dict[str, Any]) -> Catalogue:
    """These models (`m`) at these hosts, or at those of them that are named."""
    rows = {
        name: {"base_url": "http://127.0.0.1:9", "dialect": "openai", "api_key": name, **row}
        for name, row in hosts.items()
    }
    own = {name: {"hosts": list(to or hosts)} for name in models or ("m",)}
    return build(Settings(home="h", embedded=Embedded(enabled=False), hosts=rows, models=own), {})


class Port:
    """A fleet whose catalogue the test changes, on a clock that stands still."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.notes: list[str] = []
        self.fleet = Fleet(Routing(), lambda: 0.0, lambda event, **_: self.notes.append(event))
        self.catalogue = catalogue

    def follow(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.fleet.follow(catalogue)

    def errand(self, model: Model | None = None) -> Errand:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
        return self.fleet.errand(model or self.catalogue.find("m"), CLIENT.parse_call("chat", body, "id"), "tenant")

    def permit(self) -> Permit:
        return to(self.errand().next(None, 0.0))

    def waiter(self) -> Waiter:
        found = self.errand().next(None, 0.0)
        assert isinstance(found, Waiter), found
        return found


def to(found: Any) -> Permit:
    assert isinstance(found, Permit), found
    return found


def target(found: Any) -> Target:
    return to(found).place.target


def test_a_host_that_is_gone_gets_nothing_new() -> None:
    """What runs there ends by itself; what comes, and a retry of what came before, goes elsewhere."""
    port = Port(made(a={}, b={}))
    errand = port.errand()
    running = to(errand.next(None, 0.0))
    port.follow(made(b={}))
    assert running.place.target.host.name == "a"
    assert target(port.permit()).host.name == "b"
    running.end(BROKEN, 0.0)
    assert target(errand.next(BROKEN, 0.0)).host.name == "b"
    assert [site["host"] for site in port.fleet.describe()["places"]] == ["b"]
    assert running.place.running == 0
    assert port.notes == []


def test_a_retry_goes_by_what_holds_now() -> None:
    """Not to a host that has gone meanwhile, but to one that has come."""
    port = Port(made(a={}, b={}))
    errand = port.errand()
    to(errand.next(None, 0.0)).end(BROKEN, 0.0)
    port.follow(made(a={}))
    assert errand.next(BROKEN, 0.0) is BROKEN
    errand = port.errand()
    to(errand.next(None, 0.0)).end(BROKEN, 0.0)
    port.follow(made(c={}))
    assert target(errand.next(BROKEN, 0.0)).host.name == "c"


def test_who_found_a_model_that_is_gone_is_served_where_it_was() -> None:
    """Between its model and its host a request waits for the books; if its host is there, it is asked, else nobody."""
    before = made("m", "n", a={})
    port = Port(before)
    port.follow(made("n", a={}))
    assert target(port.errand(before.find("m")).next(None, 0.0)).host.name == "a"
    port.follow(made("n", b={}))
    found = port.errand(before.find("m")).next(None, 0.0)
    assert isinstance(found, Problem)
    assert found.code == "platform.model_failed"


def test_who_found_a_model_goes_by_its_new_hosts() -> None:
    """A request that waited for the books while its model went to another host is answered there."""
    before = made(a={})
    port = Port(before)
    port.follow(made(a={}, b={}, to=("b",)))
    assert target(port.errand(before.find("m")).next(None, 0.0)).host.name == "b"


@pytest.mark.parametrize("row", [{"base_url": "http://127.0.0.1:8"}, {"api_key": "other"}, {"account": "other"}])
def test_one_who_is_spoken_to_otherwise_is_somebody_else(row: dict[str, Any]) -> None:
    """Elsewhere, or in another name: the trouble of before is forgotten, and what still runs there makes none here."""
    port = Port(made(a={}))
    stale = port.permit()
    for _ in range(FAILURES_MAX):
        to(port.errand().next(None, 0.0)).end(BROKEN, 0.0)
    assert isinstance(port.errand().next(None, 0.0), Problem)
    port.follow(made(a=row))
    found = port.permit()
    assert all(getattr(found.place.target.host, name) == value for name, value in row.items())
    stale.end(REFUSED, 0.0)
    assert port.permit().place.site.health.trouble == ""


def test_what_is_known_of_a_host_stays_known() -> None:
    """Its trouble, and what runs there, while its row says something else about the same one."""
    port = Port(made(a={"concurrency": 3}))
    running = [port.permit() for _ in range(2)]
    port.follow(made(a={"concurrency": 2, "first_s": 7.0}))
    waiter = port.waiter()
    running[0].end(None, 0.0)
    assert waiter.turn.done()
    place = running[1].place
    assert (place.running, len(place.site.account.permits)) == (2, 2)
    for _ in range(FAILURES_MAX):
        place.site.health.ended(BROKEN, 0, 0.0)
    port.follow(made(a={"concurrency": 2, "first_s": 8.0}))
    (site,) = port.fleet.describe()["places"]
    assert (site["trouble"], site["running"]) == ("open", 2)


def test_a_limit_that_comes_later_counts_what_runs() -> None:
    """Though nobody counted it before."""
    port = Port(made(a={}))
    running = [port.permit() for _ in range(2)]
    port.follow(made(a={"concurrency": 2}))
    waiter = port.waiter()
    running[0].end(None, 0.0)
    assert waiter.turn.done()
    port.follow(made(a={"concurrency_by_model": {"m": 2}}))
    assert isinstance(port.errand().next(None, 0.0), Waiter)


def test_who_waits_goes_by_what_holds_now() -> None:
    """More room, another host, or nothing left to wait for: said at once."""
    port = Port(made(a={"concurrency": 1}))
    port.permit()
    first, second, third = port.waiter(), port.waiter(), port.waiter()
    port.follow(made(a={"concurrency": 2}))
    assert [waiter.turn.done() for waiter in (first, second, third)] == [True, False, False]
    port.follow(made(a={"concurrency": 2}, b={"concurrency": 1}, to=("b",)))
    assert [waiter.turn.done() for waiter in (second, third)] == [True, False]
    port.follow(made("n", a={"concurrency": 2}))
    assert third.turn.done()
    assert port.fleet.waiting == 0


def test_a_model_that_comes_back_has_one_line() -> None:
    """Whoever waited in it before is served by what ends later."""
    port = Port(made(a={"concurrency": 1}))
    running = port.permit()
    waiter = port.waiter()
    for row in ({"first_s": 3.0}, {"first_s": 4.0}):
        port.follow(made(a={"concurrency": 1, **row}))
    late = port.waiter()
    assert [place["waiting"] for place in port.fleet.describe()["places"]] == [2]
    running.end(None, 0.0)
    assert [waiter.turn.done(), late.turn.done()] == [True, False]


def test_what_a_host_taught_is_kept_until_its_row_changes() -> None:
    """That it wants reasoning back."""
    wanted = Problem("upstream.reasoning_wanted")
    port = Port(made(a={}))
    permit = port.permit()
    assert permit.place.relearn(wanted)
    port.follow(made(a={}, b={}, to=("a",)))
    assert target(port.permit()).replay == "fill"
    port.follow(made(a={"replay": "strip"}))
    assert target(port.permit()).replay == "strip"
