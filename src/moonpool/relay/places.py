"""What is known of one place that serves a model, and who may run there.

A *site* is a model at a host under the host's own name for it: its health, its limits and what runs are the site's. A
*place* is a target of one of our models that leads to a site; several of our names may lead to one site, each with
rules and switches of its own. A *permit* lets one attempt run and is given back exactly once, whatever happens.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.relay.health import Health
from moonpool.relay.line import Line
from moonpool.words import Host, Target

SHARE: Final = 2
LATELY_S: Final = 60.0
"""So long after another account has asked, places are kept free for it."""
_SPAN_WEIGHT: Final = 0.1
_WHO: Final = ("transport", "dialect", "base_url", "api_key", "account")


class Keeper(Protocol):
    """Who is told what happens at sites (fleet.py). `waiting`: how many requests wait anywhere."""

    waiting: int

    def tell(self, site: Site, problem: Problem | None = None) -> None: ...
    def freed(self, site: Site) -> None: ...


class Pool:
    """Permits that share one limit (0: none is known), with the account of ours that each is for.

    What runs is not interrupted, so turns alone are not fair: who asks for little would wait for the end of the long
    answers of one who asks without end. So while several of our accounts ask, one of them gets another place only if
    it has fewer than SHARE times as many as are free (the "dynamic thresholds" of Choudhury and Hahne, IEEE/ACM
    Transactions on Networking 6(2), 1998): one gets two thirds of the places alone, two get two fifths each, and the
    rest stays free for others. `easy`: below so many permits this refuses nobody.
    """

    __slots__ = ("_counted", "_counts", "easy", "latest", "limit", "permits", "shared_at")

    def __init__(self, limit: int) -> None:
        self.permits: dict[Permit, str] = {}
        self._counts: Counter[str] = Counter()
        self._counted: tuple[int, Permit | None] = (0, None)
        self.latest = ""
        self.shared_at = float("-inf")
        """When last an account asked that was not the one before it."""
        self.bound(limit)

    def bound(self, limit: int) -> None:
        self.limit = limit
        self.easy = -(-limit * SHARE // (SHARE + 1)) if limit else sys.maxsize

    def asked(self, account: str, now: float) -> None:
        if account != self.latest:
            if self.latest:
                self.shared_at = now
            self.latest = account

    def takes(self, account: str, now: float) -> bool:
        """Whether one more of this account may run, where `easy` is not enough to know it."""
        free = self.limit - len(self.permits)
        if free <= 0 or now - self.shared_at > LATELY_S:
            return free > 0
        return self._running(account) < SHARE * free

    def _running(self, account: str) -> int:
        """How many of this account run. Counted for all at once, and only when something began or ended since: while
        everything is full, one end has the line ask for each account. Permits stand in the order in which they began,
        and none comes back, so their number and the last one say whether they are the same as before."""
        state = len(self.permits), next(reversed(self.permits), None)
        if state != self._counted:
            self._counted, self._counts = state, Counter(self.permits.values())
        return self._counts[account]


class Account(Pool):
    """An account at hosts, and the permits that run there."""

    __slots__ = ("name", "sites")

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(limit)
        self.name = name
        self.sites: list[Site] = []

    def follow(self, limit: int) -> None:
        """What its host's row says now."""
        if limit and not self.limit:
            self.permits = {permit: account for site in self.sites for permit, account in site.permits.items()}
            self._counted = (-1, None)
        self.bound(limit)


class Site(Pool):
    """A model at a host, under the host's own name for it, whatever clients call it: how it is doing, and what runs."""

    __slots__ = ("_host", "account", "health", "host", "lines", "model", "span_s")

    def __init__(self, target: Target, account: Account) -> None:
        super().__init__(target.host.concurrency_by_model.get(target.model, 0))
        self._host = target.host
        self.host = target.host.name
        self.model = target.model
        self.account = account
        self.health = Health()
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
        self.bound(host.concurrency_by_model.get(self.model, 0))
        return True

    @property
    def running(self) -> int:
        return len(self.permits)

    def is_free(self) -> bool:
        """Well, and it has room for anybody: most have, most of the time."""
        return not (
            self.health.trouble
            or self.health.room
            or len(self.permits) >= self.easy
            or len(self.account.permits) >= self.account.easy
        )

    def has_room(self, account: str, now: float) -> bool:
        """For one more of this account of ours."""
        owner, room = self.account, self.health.room
        return not (
            (len(self.permits) >= self.easy and not self.takes(account, now))
            or (len(owner.permits) >= owner.easy and not owner.takes(account, now))
            or (room and len(self.permits) >= room)
        )

    def slots(self) -> int:
        """How many can run there at once, as far as is known; 0: any number. A room that still grows is no limit."""
        return min((limit for limit in (self.limit, self.account.limit) if limit), default=0)


class Place:
    """A target of one of our models, and the site that it shares with all names that lead there. `gone`: the catalogue
    says so no more; what runs there ends as it would have."""

    __slots__ = ("gone", "health", "row", "site", "target")

    def __init__(self, target: Target, site: Site) -> None:
        self.row = target
        self.target = target
        self.site = site
        self.health = site.health
        self.gone = False

    @property
    def running(self) -> int:
        return len(self.site.permits)

    def has_room(self, account: str, now: float) -> bool:
        """For one more request of this account of ours. Where there is room for anybody nobody else is asked."""
        site = self.site
        owner = site.account
        if len(site.permits) < site.easy and len(owner.permits) < owner.easy and not site.health.room:
            return True
        return site.has_room(account, now)

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
        if site.permits.pop(self, None) is None:
            return
        if site.account.limit:
            site.account.permits.pop(self, None)
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
