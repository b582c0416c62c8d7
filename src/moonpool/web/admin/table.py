"""The table of all routes, and the way of a request through it."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.web import csv
from moonpool.web.admin import accounts, alerts, catalogue, codes, keys, money, people, prices, reading, whole
from moonpool.web.admin.access import authorise
from moonpool.web.admin.routing import BASE, SOCKET, Actor, Answer, Ask, Desk, Route

BODY_BYTES_MAX: Final = 1 << 18

ROUTES: Final[tuple[Route, ...]] = (
    *accounts.ROUTES,
    *keys.ROUTES,
    *people.ROUTES,
    *money.ROUTES,
    *codes.ROUTES,
    *alerts.ROUTES,
    *prices.ROUTES,
    *reading.ROUTES,
    *catalogue.ROUTES,
    *whole.ROUTES,
)
_PATTERNS: Final = tuple((route, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path))) for route in ROUTES)


async def handle(
    desk: Desk, method: str, path: str, query: str = "", body: bytes = b"", actor: Actor = SOCKET
) -> Answer:
    """Answer one request; `path` with or without BASE before it. Raises Problem."""
    path = path.removeprefix(BASE)
    allowed = []
    for route, pattern in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is None:
            continue
        if route.method == method:
            return await _run(desk, route, found.groupdict(), query, body, actor)
        allowed.append(route.method)
    if allowed:
        raise Problem("caller.wrong_method", f"This address takes {' and '.join(allowed)} only.")
    raise Problem("caller.not_found")


async def _run(desk: Desk, route: Route, names: dict[str, str], query: str, body: bytes, actor: Actor) -> Answer:
    if route.who == "operator" and not actor.operator:
        await authorise(desk, route, Ask(actor=actor))  # says no, before it says what is wrong with the request
    named = {name: unquote(value) for name, value in names.items()}
    ask = Ask(named, _query(route, query), _body(route, body), actor, action=route.action)
    ask = replace(ask, account=await authorise(desk, route, ask))
    try:
        status, page = await route.run(desk, ask)
    except Problem as problem:
        await ask.failed(desk, problem.code)
        raise
    return status, page if isinstance(page, csv.Csv) else msgspec.to_builtins(page)


def _query(route: Route, query: str) -> dict[str, str]:
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    for name in pairs:
        if name not in route.query:
            raise Problem("caller.invalid_value", f"There is no parameter {name!r} here.", param=name)
    return pairs


def _body(route: Route, body: bytes) -> Any:
    if route.body is None:
        return None
    return decode(body, route.body)


def decode(body: bytes, kind: type[Struct]) -> Any:
    """The body as that Struct; a field it does not have is refused. Raises Problem."""
    if len(body) > BODY_BYTES_MAX:
        raise Problem("caller.too_large")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        raise Problem("caller.invalid_value", reason + ".", param=place.strip("`.") or None) from None
    except msgspec.DecodeError as error:
        raise Problem("caller.malformed", f"The body is no JSON: {error}.") from None
