"""What a route is, what it is given, and who asks."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from moonpool.catalog.catalog import Catalogue
from moonpool.errors import Problem
from moonpool.relay.offer import Offer
from moonpool.settings import Settings
from moonpool.state.base import Books, Keys, People, Role
from moonpool.state.base_admin import Change, Office
from moonpool.state.base_prices import Overrides
from moonpool.state.base_reports import Reports
from moonpool.web.local import ADMIN
from moonpool.words import Account

BASE: Final = ADMIN


class Desk(Protocol):
    """What these routes touch: a running relay.platform.Platform, or what the command line opens without one."""

    @property
    def settings(self) -> Settings: ...
    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def offer(self) -> Offer: ...
    @property
    def books(self) -> Books: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def people(self) -> People: ...
    @property
    def reports(self) -> Reports: ...
    @property
    def overrides(self) -> Overrides: ...
    @property
    def office(self) -> Office: ...
    @property
    def transports(self) -> Mapping[str, Any]: ...
    @property
    def dialects(self) -> Mapping[str, Any]: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def parts(self) -> Callable[[], Mapping[str, Any]]: ...
    @property
    def active(self) -> Any: ...


class Actor(Struct, frozen=True):
    """Who asks: `name` as the audit log says it, `id` as what does not change, `peer` where from. `roles` by id of
    account."""

    name: str
    id: str = ""
    operator: bool = False
    roles: Mapping[str, Role] = {}
    peer: str = ""

    def sees(self, account_id: str) -> bool:
        return self.operator or account_id in self.roles


SOCKET: Final = Actor("socket", "socket", operator=True)
"""Who can open the socket or the database may do everything."""


class Ask(Struct, frozen=True):
    """A request to a route: `names` from its path, `query`, its decoded `body`, who asks, and the account it is about
    (None: none, or all that the actor sees)."""

    names: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: Any = None
    actor: Actor = SOCKET
    account: Account | None = None
    action: str = ""
    logged: list[tuple[str, int]] = []

    async def log(self, desk: Desk, target: str, /, **detail: object) -> None:
        """Put the change that is about to be made into the audit log; durable when this returns. Call it when all is
        checked, right before the change. Raises Problem("platform.storage"): then the change must not be made."""
        if self.actor.peer:
            detail["peer"] = self.actor.peer
        seq = await desk.office.audit.write(Change(desk.clock(), self.actor.name, self.action, target, detail))
        self.logged.append((target, seq))

    async def failed(self, desk: Desk, why: str) -> None:
        """Say in the log that the change which stands there last was not made."""
        if self.logged:
            target, seq = self.logged.pop()
            with contextlib.suppress(Problem):
                detail = {"failed": why, "row": seq}
                await desk.office.audit.write(Change(desk.clock(), self.actor.name, self.action, target, detail))

    def about(self) -> Account:
        """The account of a route that is always about one."""
        if self.account is None:
            raise Problem("caller.not_found")
        return self.account


Answer = tuple[int, object]
Run = Callable[[Any, Ask], Awaitable[Answer]]
Who = Literal["operator", "owner", "member"]
Where = Literal["", "path", "query", "body", "key"]


class Route(Struct, frozen=True):
    """`path` below BASE with {names}; `body` the Struct it takes; `query` the names it understands; `answer` the Struct
    it answers with (None: an object whose fields depend on the server), `many`: a list of them under `data`.

    `who` must be what the actor is in the account which the route is about; `about` says where the account's name
    stands: {name} of the path, `account` of query or body, or it is the account of the key {id}. `changes` is False for
    what is no change though it is not read with GET.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    run: Run
    says: str
    answer: type[Struct] | None
    many: bool = False
    status: int = 200
    who: Who = "operator"
    about: Where = ""
    body: type[Struct] | None = None
    query: tuple[str, ...] = ()
    changes: bool = True

    @property
    def action(self) -> str:
        """How the audit log calls it."""
        return f"{self.method} {self.path}"

    @property
    def logged(self) -> bool:
        return self.changes and self.method != "GET"
