"""What is known of all hosts together, and who gets which: places, permits, the line, retries, affinity.

A *place* is a target of one of our models, a *permit* lets one attempt run there (places.py); an *errand* is one
request's search for a place. The choice itself is pure and stands in route.py, how a host is doing in health.py.
Everything lives on the event loop, in memory: a restart forgets it, and nothing of it is money.

Retries have a budget: attempts that reached a host stay below 1.2 times the requests, plus 3 (RELIABILITY I16). A
connection that could not even be made was no attempt there. Concurrency is counted for the account behind a key, in all
and for each model (PROVIDERS 1.8).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from moonpool.catalog.catalog import Catalogue
from moonpool.catalog.model import Model
from moonpool.errors import Problem
from moonpool.ledger.money import exact
from moonpool.relay.affinity import Affinity, marks_of
from moonpool.relay.line import Line, Waiter
from moonpool.relay.places import Account, Permit, Place, Site
from moonpool.relay.route import WAIT, is_final, next_place, soonest
from moonpool.settings_hosts import Routing
from moonpool.words import CHAT, Call, Host, Price, Target, Usage

RETRY_SHARE: Final = 0.2
RETRIES_FIRST: Final = 3.0
RETRIES_SAVED_MAX: Final = 100.0
UNSENT: Final = "upstream.unreachable"
_OF_THE_ACCOUNT: Final = frozenset(("upstream.credentials", "upstream.unpaid"))
_NO_HOST: Final = "no host serves this model"

Note = Callable[..., None]


class Errand(Struct, eq=False, gc=False):
    """One request's search. `next` is called after each failure. `needs` are the call's; `like` is what hosts must call
    the model, "" for whatever they do. `marks` are of this conversation, where there is a choice of accounts;
    `expected` is the account that it prefers."""

    fleet: Fleet
    model: Model
    places: tuple[Place, ...]
    account: str
    needs: frozenset[str]
    like: str = ""
    tried: tuple[Place, ...] = ()
    marks: Sequence[bytes] = ()
    expected: str | None = None

    def next(self, failure: Problem | None, now: float) -> Permit | Waiter | Problem:
        """A permit, somebody to wait for, or what to tell the client."""
        fleet = self.fleet
        if failure is not None:
            if self.tried and self.tried[-1].relearn(failure):
                fleet.learned(self.tried[-1])
                self.tried = self.tried[:-1]
            self._renew()
            if is_final(failure) or len(self.tried) >= len(self.places):
                return failure
            if failure.code != UNSENT and not fleet.spend():
                return failure
        places = self.places
        if failure is None and len(places) == 1:
            place = places[0]
            if place.site.is_free():
                self.tried = places
                return fleet.permit(place, False, now, self.account)
        found = self._look(now)
        if found is None:
            if failure is not None:
                return failure
            if not places:
                return Problem("platform.model_failed", detail=_NO_HOST)
            return _unavailable(places, now)
        if found != WAIT:
            return found
        return fleet.queue(self, self.model.name, places, self.account, now)

    def again(self) -> Permit | Problem | None:
        """Whoever waits looks once more; a Problem where there is nothing left to wait for."""
        self._renew()
        if not self.places:
            return Problem("platform.model_failed", detail=_NO_HOST)
        found = self._look(self.fleet.now())
        return found if isinstance(found, Permit) else None

    def _renew(self) -> None:
        """Where the catalogue has changed meanwhile, go by what it says now."""
        if any(place.gone for place in self.places):
            places = self.fleet.places_of(self.model, self.needs)
            self.places = tuple(place for place in places if self.like in ("", place.target.model))
            self.tried = tuple(place for place in self.tried if not place.gone)

    def learn(self, place: Place, usage: Usage, price: Price, now: float) -> None:
        """An answer to this request has come from `place`."""
        account = place.site.account.name
        self.fleet.affinity.learn(self.marks, account, usage, price, self.expected == account, now)

    def _look(self, now: float) -> Permit | Literal["wait"] | None:
        fleet = self.fleet
        found = next_place(
            self.places,
            self.tried,
            self.account,
            self.model.routing,
            self.expected,
            now,
            fleet.draw,
            fleet.clock,
            may_fail=len(self.tried) + 1 < len(self.places) and fleet.retries >= 1.0,
        )
        if found is None or found == WAIT:
            return found
        place, probe = found
        self.tried += (place,)
        return fleet.permit(place, probe, now, self.account)


class Fleet:
    """`note(event, **facts)` tells an operator what changed; `draw` gives random numbers from 0 to below 1, `clock`
    Unix seconds, by which prices go."""

    def __init__(
        self,
        settings: Routing,
        now: Callable[[], float],
        note: Note,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.now = now
        self.clock = clock
        self.draw = draw
        self.affinity = Affinity()
        self.retries = RETRIES_FIRST
        self.refused_retries = 0
        self.waiting = 0
        self._settings = settings
        self._note = note
        self._accounts: dict[str, Account] = {}
        self._sites: dict[tuple[str, str], Site] = {}
        self._places: dict[tuple[str, str, str], Place] = {}
        self._lines: dict[str, Line] = {}
        # By model and needs; None for whatever needs, where all of its targets can the same.
        self._found: dict[str, dict[frozenset[str] | None, tuple[Place, ...]]] = {}
        self._models: Mapping[str, Model] = {}
        self._hosts: Mapping[str, Host] | None = None

    def errand(self, model: Model, call: Call, account: str) -> Errand:
        """Begin the search of one request; earns a share of a retry."""
        if self.retries < RETRIES_SAVED_MAX:
            self.retries += RETRY_SHARE
        by_needs = self._found.get(model.name)
        places = None if by_needs is None else by_needs.get(call.needs if model.mixed else None)
        if places is None:
            places = self.places_of(model, call.needs)
        errand = Errand(self, model, places, account, call.needs)
        if len(places) > 1 and self._settings.affinity and call.operation == CHAT:
            errand.marks = marks_of(call, account)
            errand.expected = self.affinity.find(errand.marks, self.now())
        return errand

    def continuation(self, model: Model, call: Call, account: str, broken: Place, *, same_model: bool) -> Errand:
        """The search for somebody who goes on where `broken` stopped: others first, then itself."""
        places = [
            place
            for place in self.places_of(model, call.needs)
            if not same_model or place.target.model == broken.target.model
        ]
        places.sort(key=lambda place: place.site is broken.site)
        return Errand(self, model, tuple(places), account, call.needs, broken.target.model if same_model else "")

    def places_of(self, model: Model, needs: frozenset[str]) -> tuple[Place, ...]:
        """Who can serve it, in the model's order; made once for each set of needs that matters. Of a model that was
        found before the catalogue changed, what holds now."""
        model = self._models.get(model.name, model)
        by_needs = self._found.setdefault(model.name, {})
        if model.name not in self._lines:
            self._lines[model.name] = Line(self._left_a_line)
        key = needs if model.mixed else None
        found = by_needs.get(key)
        if found is None:
            targets = [target for target in model.targets_for(needs) if self._is_there(target.host)]
            found = by_needs[key] = tuple(self._place(model, target) for target in targets)
        return found

    def follow(self, catalogue: Catalogue) -> None:
        """The catalogue is another now. What runs goes on where it is, as it began; who waits, or is to be asked anew,
        goes by what holds now, and so a host that is gone gets nothing new. What is known of a model at a host stays
        known while the same one is spoken to (`Site.follow`)."""
        self._models = catalogue.by_name
        self._hosts = hosts = {host.name: host for host in catalogue.present}
        targets = {(m.name, target.host.name, target.model): target for m in catalogue.models() for target in m.targets}
        known = {key[1:] for key in targets}
        for at, site in list(self._sites.items()):
            if at not in known or not site.follow(hosts.get(site.host)):
                del self._sites[at]
                site.account.sites.remove(site)
        # Of several that name one account the first counts.
        limits = {host.account or host.name: host.concurrency for host in reversed(catalogue.present)}
        for name, account in self._accounts.items():
            account.follow(limits.get(name, account.limit))
        for key, place in list(self._places.items()):
            if self._sites.get(key[1:]) is not place.site or targets.get(key) != place.row:
                del self._places[key]
                place.gone = True
                place.site.lines.remove(self._lines[key[0]])
        self._found.clear()
        for line in list(self._lines.values()):
            if line.waiting:
                line.serve()

    def _is_there(self, host: Host) -> bool:
        return self._hosts is None or self._hosts.get(host.name) == host

    def permit(self, place: Place, probe: bool, now: float, account: str) -> Permit:
        permit = Permit(self, place, probe, now)
        site = place.site
        site.permits[permit] = account
        if site.limit and account != site.latest:
            site.asked(account, now)
        owner = site.account
        if owner.limit:
            owner.permits[permit] = account
            if account != owner.latest:
                owner.asked(account, now)
        if probe:
            site.health.probe(now)
        return permit

    def spend(self) -> bool:
        """Take one retry from the budget, if there is one."""
        if self.retries < 1.0:
            self.refused_retries += 1
            return False
        self.retries -= 1.0
        return True

    def queue(self, errand: Errand, model: str, places: Sequence[Place], account: str, now: float) -> Waiter | Problem:
        """A place in the line, or a refusal that says when to come back."""
        settings, line = self._settings, self._lines[model]
        for place in places:
            place.site.asked(account, now)
            place.site.account.asked(account, now)
        wait_s = self.wait_s(line, places, account)
        if line.waiting >= settings.queue_max or wait_s > settings.queue_s:
            return Problem("platform.queue_full", retry_after_s=max(1.0, wait_s))
        self.waiting += 1
        return line.join(account, errand.again, now)

    def wait_s(self, line: Line, places: Sequence[Place], account: str) -> float:
        """How long one of this account who joins now will wait: those before it, at the pace of the places."""
        pace = sum(place.site.slots() / (place.site.span_s or 1.0) for place in places)
        return (line.before(account) + 1) / pace if pace else 1.0

    def freed(self, site: Site) -> None:
        """There is room again where there may have been none."""
        for each in site.account.sites if site.account.limit else (site,):
            for line in each.lines:
                if line.waiting:
                    line.serve()

    def tick(self) -> None:
        """Once a second: who waited too long is told so; a host whose trouble is over serves who waits."""
        now = self.now()
        for line in list(self._lines.values()):
            if line.waiting:
                line.late(now, self._settings.queue_s, lambda: Problem("platform.queue_full", retry_after_s=1.0))
                line.serve()

    def tell(self, site: Site, problem: Problem | None = None) -> None:
        """The state of a site has changed. A refused key or an unpaid bill is the account's, and so every site's. Of
        one that is gone nobody needs to hear."""
        if self._sites.get((site.host, site.model)) is not site:
            return
        health = site.health
        if problem is not None and problem.code in _OF_THE_ACCOUNT:
            for other in site.account.sites:
                if other is not site:
                    other.health.ended(problem, other.running, self.now())
        elif not health.trouble:
            for other in site.account.sites:
                if other.health.trouble == "parked" and other.health.why in _OF_THE_ACCOUNT:
                    other.health.began(self.now(), True)
        self._note(
            f"host {health.trouble or 'back'}",
            host=site.host,
            account=site.account.name,
            model=site.model,
            why=health.why,
            detail=problem.detail if problem is not None else "",
        )

    def learned(self, place: Place) -> None:
        self._note("host wants reasoning back", host=place.target.host.name, model=place.target.model)

    def sites(self) -> Iterator[Site]:
        return iter(self._sites.values())

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """For people: how each host is doing with each model it was asked for, and what each account's cache saved."""
        now = self.now()
        return {
            "places": [
                {
                    "host": site.host,
                    "account": site.account.name,
                    "model": site.model,
                    "trouble": site.health.trouble,
                    "why": site.health.why,
                    "again_in_s": round(max(0.0, site.health.until - now), 1) if site.health.trouble else 0.0,
                    "running": site.running,
                    "room": site.health.room or site.slots(),
                    "waiting": sum(line.waiting for line in site.lines),
                    "share_failed": round(site.health.share_failed(), 3),
                    "answer_s": round(site.span_s, 3),
                }
                for site in self._sites.values()
            ],
            "caches": [
                {
                    "account": account,
                    "expected": record.expected,
                    "hit": record.hit,
                    "tokens": record.tokens,
                    "saved": {currency: exact(pico) for currency, pico in record.saved_pico.items()},
                }
                for account, record in self.affinity.records.items()
            ],
        }

    def _left_a_line(self) -> None:
        self.waiting -= 1

    def _place(self, model: Model, target: Target) -> Place:
        """The place of a target, and the site that it leads to: one for each model at a host."""
        host, key = target.host, (model.name, target.host.name, target.model)
        place = self._places.get(key)
        if place is None:
            name = host.account or host.name
            account = self._accounts.get(name)
            if account is None:
                account = self._accounts[name] = Account(name, host.concurrency)
            site = self._sites.get(key[1:])
            if site is None:
                site = self._sites[key[1:]] = Site(target, account)
                account.sites.append(site)
            site.lines.append(self._lines[model.name])
            place = self._places[key] = Place(target, site)
        return place


def _unavailable(places: Sequence[Place], now: float) -> Problem:
    """Nobody can be asked now, and nobody was: what is in the way, and when it is worth coming back."""
    why = {place.health.why for place in places if place.health.why}
    detail = ", ".join(f"{place.target.host.name}: {place.health.trouble} ({place.health.why})" for place in places)
    if all(place.health.trouble == "parked" for place in places):
        return Problem(min(why), detail=detail)
    sentence = "No host of this model can be asked at the moment."
    return Problem("upstream.busy", sentence, detail=detail, retry_after_s=soonest(places, now))
