"""What an operator's program asks for: keys, accounts, models, hosts, totals, status.

Rules: every route is one row of `ROUTES` and one function, so that the command line, a console and a description of
this API are made from the same table. A function answers (status, something JSON can say) or raises Problem. The
server offers these routes on the socket in its home only, whose file mode is the permission; the command line calls
`handle` itself when no server runs. A key's secret is in one answer, that of its creation, and in no other.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct

from moonpool import __version__
from moonpool.catalog import prices
from moonpool.catalog.catalog import Catalogue
from moonpool.catalog.model import Model
from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.settings import Settings
from moonpool.state.base import Books, Keys
from moonpool.state.base_prices import Overrides
from moonpool.state.base_reports import Reports
from moonpool.web import admin_prices, host_check
from moonpool.web import admin_reading as reading
from moonpool.web.ops import unready
from moonpool.words import Account, Host, Key

BASE: Final = "/admin/v1"
_BODY_BYTES_MAX: Final = 1 << 20

SWITCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "keepalive": ("comment", "newline", "off"),
    "usage": ("finish", "chunk"),
    "reasoning": ("restored", "off"),
    "user_text": ("tagged", "all", "off"),
    "conflicts": ("adapt", "refuse"),
    "continuation": ("same", "on", "off"),
    "sees": ("own", "account"),
}
"""What `switches` of a key may say; the first of each is what holds without it."""


class Desk(Protocol):
    """What these routes touch: a running relay.platform.Platform, or what the command line opens without one."""

    @property
    def settings(self) -> Settings: ...
    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def books(self) -> Books: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def reports(self) -> Reports: ...
    @property
    def overrides(self) -> Overrides: ...
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


class NewKey(Struct, forbid_unknown_fields=True):
    """`account` is the account's name; `switches` as in SWITCHES."""

    account: str = "default"
    name: str = ""
    switches: dict[str, str] = {}


class NewAccount(Struct, forbid_unknown_fields=True):
    """`post_paid` accounts may owe; `concurrency` is how many requests may run at once."""

    name: str
    post_paid: bool = False
    concurrency: int = 100


class Ask(Struct, frozen=True):
    """A request to a route: `names` from its path, `query`, and its decoded `body`."""

    names: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: Any = None


Answer = tuple[int, object]
Run = Callable[[Any, Ask], Awaitable[Answer]]


class Route(Struct, frozen=True):
    """`path` below BASE with {names}; `body` the Struct it takes; `query` the names it understands."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    run: Run
    says: str
    body: type[Struct] | None = None
    query: tuple[str, ...] = ()


async def handle(desk: Desk, method: str, path: str, query: str = "", body: bytes = b"") -> Answer:
    """Answer one request; `path` with or without BASE before it. Raises Problem."""
    path = path.removeprefix(BASE)
    allowed = []
    for route, pattern in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is None:
            continue
        if route.method == method:
            names = {name: unquote(value) for name, value in found.groupdict().items()}
            return await route.run(desk, Ask(names, _query(route, query), _body(route, body)))
        allowed.append(route.method)
    if allowed:
        raise Problem("caller.wrong_method", f"This address takes {' and '.join(allowed)} only.")
    raise Problem("caller.not_found")


def _query(route: Route, query: str) -> dict[str, str]:
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    for name in pairs:
        if name not in route.query:
            raise Problem("caller.invalid_value", f"There is no parameter {name!r} here.", param=name)
    return pairs


def _body(route: Route, body: bytes) -> Any:
    if route.body is None:
        return None
    if len(body) > _BODY_BYTES_MAX:
        raise Problem("caller.too_large")
    try:
        return msgspec.json.decode(body or b"{}", type=route.body)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        raise Problem("caller.invalid_value", reason + ".", param=place.strip("`.") or None) from None
    except msgspec.DecodeError as error:
        raise Problem("caller.malformed", f"The body is no JSON: {error}.") from None


# Accounts and keys


def _account_row(account: Account) -> dict[str, object]:
    return {
        "id": account.id,
        "name": account.name,
        "post_paid": account.post_paid,
        "concurrency": account.concurrency,
    }


async def list_accounts(desk: Desk, _: Ask) -> Answer:
    """Every account with its settings."""
    return 200, {"data": [_account_row(account) for account in await desk.keys.accounts()]}


async def create_account(desk: Desk, ask: Ask) -> Answer:
    """A new account. Raises caller.invalid_value for a name that is taken or unfit."""
    new: NewAccount = ask.body
    _check_name("name", new.name, required=True)
    if new.concurrency < 1:
        raise Problem("caller.invalid_value", "An account may run at least one request.", param="concurrency")
    if await desk.keys.account(new.name) is not None:
        raise Problem("caller.invalid_value", f"There is an account {new.name!r} already.", param="name")
    account = Account(new.name, new.name, new.post_paid, new.concurrency)
    await desk.keys.save_account(account)
    return 201, _account_row(account)


def _key_row(key: Key, names: Mapping[str, str]) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "account": names.get(key.account, key.account),
        "created_at": int(key.created_at),
        "last_used_at": None if key.last_used_at is None else int(key.last_used_at),
        "switches": dict(key.switches),
    }


async def list_keys(desk: Desk, ask: Ask) -> Answer:
    """The keys, of one account or of all; never a secret."""
    accounts = await desk.keys.accounts()
    wanted = None
    if "account" in ask.query:
        wanted = (await _account(desk, ask.query["account"])).id
    names = {account.id: account.name for account in accounts}
    return 200, {"data": [_key_row(key, names) for key in await desk.keys.list(wanted)]}


async def create_key(desk: Desk, ask: Ask) -> Answer:
    """A new key; its secret is in this answer and nowhere else."""
    new: NewKey = ask.body
    _check_name("name", new.name, required=False)
    for switch, value in new.switches.items():
        if value not in SWITCHES.get(switch, ()):
            known = "; ".join(f"{name}: {', '.join(values)}" for name, values in SWITCHES.items())
            raise Problem("caller.invalid_value", f"A switch is one of {known}.", param=f"switches.{switch}")
    account = await _account(desk, new.account)
    key_id, secret = key_rules.make(os.urandom)
    key = Key(key_id, account.id, new.name, desk.clock(), None, new.switches)
    await desk.keys.create(key, key_rules.digest(secret))
    row = {"id": key.id, "key": secret, "name": key.name, "account": account.name, "created_at": int(key.created_at)}
    return 201, row


async def delete_key(desk: Desk, ask: Ask) -> Answer:
    """Delete a key, for good. Raises caller.not_found."""
    key_id = ask.names["id"]
    if not await desk.keys.delete(key_id, desk.clock()):
        raise Problem("caller.not_found", f"There is no key {key_id!r}.", param="id")
    return 200, {"id": key_id, "deleted": True}


async def _account(desk: Desk, name: str) -> Account:
    account = await desk.keys.account(name)
    if account is None:
        known = ", ".join(account.name for account in await desk.keys.accounts()) or "none"
        raise Problem("caller.invalid_value", f"There is no account {name!r}; there is: {known}.", param="account")
    return account


def _check_name(field: str, value: str, *, required: bool) -> None:
    if (required and not value) or len(value) > 100 or not value.isprintable() or value != value.strip():
        raise Problem("caller.invalid_value", "A name is up to 100 printable characters.", param=field)


# Models and hosts


def _model_row(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "hosts": [target.host.name for target in model.targets],
        "window": model.window,
        "output_max": model.output_max,
        "thinking": model.thinking,
        "can": sorted(model.can),
        "owned_by": model.owned_by,
        "created": model.created,
    }


async def list_models(desk: Desk, _: Ask) -> Answer:
    """Every model that can be asked for."""
    return 200, {"data": [_model_row(model) for model in desk.catalogue.models()]}


async def show_model(desk: Desk, ask: Ask) -> Answer:
    """All that holds for one model, and what it costs now. Raises caller.unknown_model."""
    model = desk.catalogue.find(ask.names["name"])
    now = prices.now_table(model.prices, desk.clock())
    return 200, {"name": model.name, "now": now, **desk.catalogue.effective()["models"][model.name]}


def _host_row(host: Host) -> dict[str, object]:
    return {
        "name": host.name,
        "dialect": host.dialect,
        "transport": host.transport,
        "base_url": host.base_url,
        "has_key": bool(host.api_key),
        "account": host.account,
        "concurrency": host.concurrency,
        "concurrency_by_model": dict(host.concurrency_by_model),
    }


async def list_hosts(desk: Desk, _: Ask) -> Answer:
    """The hosts in use, their keys not shown; why the other known ones are not in use; and, from a running server, how
    each is doing with the models it was asked for (`places`) and what each account's cache saved (`caches`)."""
    catalogue = desk.catalogue
    rows = [_host_row(host) for host in catalogue.hosts()]
    return 200, {"data": rows, "absent": dict(catalogue.absent), **desk.parts().get("fleet", {})}


async def check_hosts(desk: Desk, ask: Ask) -> Answer:
    """Ask each host, or the one named, what it serves and what is left there, and say what to do. A host that fails is
    an answer, no Problem."""
    hosts: Sequence[Host] = desk.catalogue.hosts()
    if "host" in ask.query:
        name = ask.query["host"]
        hosts = [host for host in hosts if host.name == name]
        if not hosts:
            raise Problem("caller.invalid_value", f"There is no host {name!r}.", param="host")
    return 200, {"data": await asyncio.gather(*(host_check.check(desk, host) for host in hosts))}


# The whole


async def totals(desk: Desk, _: Ask) -> Answer:
    """Holds by how they ended, and tokens, since the ledger was made."""
    return 200, await desk.books.totals()


async def status(desk: Desk, _: Ask) -> Answer:
    """The process that answers, and what it waits for."""
    page = {
        "version": __version__,
        "pid": os.getpid(),
        "home": str(desk.settings.home),
        "answers_open": len(desk.active),
        "reasons": unready(desk.parts()),
        **desk.parts(),
    }
    return 200, page


ROUTES: Final = (
    Route("GET", "/accounts", list_accounts, "List accounts."),
    Route("POST", "/accounts", create_account, "Make an account.", body=NewAccount),
    Route("GET", "/prices", admin_prices.list_prices, "List what each model costs now."),
    Route("GET", "/accounts/{name}/prices", admin_prices.account_prices, "Show what was agreed with an account."),
    Route(
        "PUT",
        "/accounts/{name}/prices/{model}",
        admin_prices.set_price,
        "Agree on a price with an account.",
        body=admin_prices.NewPrice,
    ),
    Route(
        "DELETE",
        "/accounts/{name}/prices/{model}",
        admin_prices.unset_price,
        "Forget what was agreed for a model.",
        query=("valid_from",),
    ),
    Route("GET", "/keys", list_keys, "List keys.", query=("account",)),
    Route("POST", "/keys", create_key, "Make a key; its secret is in this answer only.", body=NewKey),
    Route("DELETE", "/keys/{id}", delete_key, "Delete a key, for good."),
    Route("GET", "/models", list_models, "List the models of the catalogue."),
    Route("GET", "/models/{name}", show_model, "Show all that holds for one model."),
    Route("GET", "/hosts", list_hosts, "List the hosts in use."),
    Route("POST", "/hosts/check", check_hosts, "Ask hosts for their models and balance.", query=("host",)),
    Route("GET", "/usage", reading.usage, "Sums of what was used.", query=reading.USAGE_QUERY),
    Route("GET", "/calls", reading.calls, "The calls one by one.", query=reading.CALLS_QUERY),
    Route(
        "GET",
        "/accounts/{name}/usage",
        reading.account_usage,
        "Sums of what an account used.",
        query=reading.OWN_USAGE_QUERY,
    ),
    Route("GET", "/accounts/{name}/calls", reading.account_calls, "An account's calls.", query=reading.OWN_CALLS_QUERY),
    Route(
        "GET",
        "/accounts/{name}/statement",
        reading.statement,
        "What became of an account's money in a month.",
        query=("month", "format"),
    ),
    Route("GET", "/totals", totals, "What the ledger says in sum."),
    Route("GET", "/status", status, "How the server is."),
)
_PATTERNS: Final = tuple((route, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path))) for route in ROUTES)
