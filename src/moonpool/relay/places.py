"""What is known of one place that serves a model, and who may run there.

A *site* is a model at a host under the host's own name for it: its health, its limits and what runs are the site's. A
*place* is a target of one of our models that leads to a site; several of our names may lead to one site, each with
rules and switches of its own. A *permit* lets one attempt run and is given back exactly once, whatever happens.
"""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.relay.health import Health
from moonpool.relay.line import Line
from moonpool.words import Host, Target

_SPAN_WEIGHT: Final = 0.1
_WHO: Final = ("transport", "dialect", "base_url", "api_key", "account")


class Keeper(Protocol):
    """Who is told what happens at sites (fleet.py). `waiting`: how many requests wait anywhere."""

    waiting: int

    def tell(self, site: Site, problem: Problem | None = None) -> None: ...
    def freed(self, site: Site) -> None: ...


class Account:
    """An account at hosts, and the permits that run there. `limit` 0: none is known, and none are counted."""

    __slots__ = ("limit", "name", "permits", "sites")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.permits: set[Permit] = set()
        self.sites: list[Site] = []

    def follow(self, limit: int) -> None:
        """What its host's row says now."""
        if limit and not self.limit:
            self.permits = {permit for site in self.sites for permit in site.permits}
        self.limit = limit


class Site:
    """A model at a host, under the host's own name for it, whatever clients call it: how it is doing, and what runs."""

    __slots__ = ("_host", "account", "health", "host", "limit", "lines", "model", "permits", "span_s")

    def __init__(self, target: Target, account: Account) -> None:
        self._host = target.host
        self.host = target.host.name
        self.model = target.model
        self.account = account
        self.limit = target.host.concurrency_by_model.get(target.model, 0)
        self.health = Health()
        self.permits: set[Permit] = set()
        self.lines: list[Line] = []
        self.span_s = 0.0
        """How long an answer takes there, smoothed; 0.0 before the first."""

    def follow(self, host: Host | None) -> bool:
        """Whether this row of its host leads to the same place still, which then goes by it. Who is spoken to
        otherwise, elsewhere or in another name, is somebody else, of whom nothing is known."""
        before = self._host
        if host is None or any(getattr(host, name) != getattr(before, name) for name in _WHO):
            return False
        self._host = host
        self.limit = host.concurrency_by_model.get(self.model, 0)
        return True

    @property
    def running(self) -> int:
        return len(self.permits)

    def is_free(self) -> bool:
        """Well, and nothing limits it: most are, most of the time."""
        return not self.health.trouble and self.has_room()

    def has_room(self) -> bool:
        limit, account, room = self.limit, self.account, self.health.room
        return not (
            (limit and len(self.permits) >= limit)
            or (account.limit and len(account.permits) >= account.limit)
            or (room and len(self.permits) >= room)
        )

    def slots(self) -> int:
        """How many can run there at once, as far as is known; 0: any number. A room that still grows is no limit."""
        return min((limit for limit in (self.limit, self.account.limit) if limit), default=0)


class Place:
    """A target of one of our models, and the site that it shares with all names that lead there. `gone`: the catalogue
    says so no more; what runs there ends as it would have."""

    __slots__ = ("gone", "row", "site", "target")

    def __init__(self, target: Target, site: Site) -> None:
        self.row = target
        self.target = target
        self.site = site
        self.gone = False

    @property
    def health(self) -> Health:
        return self.site.health

    @property
    def running(self) -> int:
        return len(self.site.permits)

    def has_room(self) -> bool:
        return self.site.has_room()

    def relearn(self, failure: Problem) -> bool:
        """What a refusal teaches about this host, for good: whether to ask it again. It wants reasoning back that its
        row says it does not (PROVIDERS 8, rule 2)."""
        if failure.code != "upstream.reasoning_wanted" or self.target.replay == "fill":
            return False
        self.target = replace(self.target, replay="fill")
        return True


class Permit(Struct, eq=False, frozen=True, gc=False):
    """The right to run one attempt at a place, since a moment; `probe`: to see whether it is well again. Made by
    `Fleet.permit`."""

    fleet: Keeper
    place: Place
    probe: bool
    since: float

    def began(self, now: float) -> None:
        """Its answer has begun."""
        site = self.place.site
        if site.health.began(now, self.probe):
            self.fleet.tell(site)

    def end(self, problem: Problem | None, now: float) -> None:
        """It is over: None for an answer that is whole. Idempotent. Whoever waits there may run before this returns."""
        site = self.place.site
        if self not in site.permits:
            return
        site.permits.remove(self)
        if site.account.limit:
            site.account.permits.discard(self)
        if problem is None:
            before_s = site.span_s
            span_s = now - self.since
            site.span_s = before_s + _SPAN_WEIGHT * (span_s - before_s) if before_s else span_s
            if not site.health.trouble and not self.probe:
                if self.fleet.waiting:
                    self.fleet.freed(site)
                return
        if site.health.ended(problem, len(site.permits), now, self.probe):
            self.fleet.tell(site, problem)
        self.fleet.freed(site)
