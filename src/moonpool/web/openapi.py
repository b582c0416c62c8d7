"""`GET /openapi.json`: what this server answers, described by OpenAPI 3.1; made once, from the very tables and types it
answers with.

The admin API comes from `admin.ROUTES`. The data plane's addresses are under several base URLs: in the document those
are `servers` of the path. A test compares both with what the server takes (OWASP API9: addresses that nobody knows of).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from moonpool import __version__
from moonpool.web import payments
from moonpool.web.admin.routing import BASE, Route
from moonpool.web.admin.table import ROUTES
from moonpool.web.data import BASES
from moonpool.web.data_types import (
    BalanceBody,
    BillingUsage,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    ErrorPage,
    ModelEntry,
    ModelList,
    Subscription,
    TextCompletion,
    TokenUsage,
    UsagePage,
)

PATH: Final = "/openapi.json"
_REF: Final = "#/components/schemas/{name}"


class Public(Struct, frozen=True):
    """An address of the data plane, below each of its base URLs, or of the server itself (`bases` is then "").

    `answer` None: an object that is described elsewhere. `media` is what else may come: the type of a stream, or of a
    page that is no JSON. `security`: what opens it, "" for nothing.
    """

    method: Literal["GET", "POST"]
    path: str
    name: str
    says: str
    body: type[Struct] | None = None
    answer: type[Struct] | None = None
    media: str = ""
    query: tuple[tuple[str, str], ...] = ()
    bases: tuple[str, ...] = BASES
    security: str = "key"


_QUERY: Final = {
    "account": "The account's name.",
    "after": "The last id, or the `next`, of the page before.",
    "before": "The last one of the page before.",
    "end": "Until then: Unix seconds, or a day like 2026-11-30.",
    "format": "`json` or `csv`; the latter is all of it.",
    "group_by": "What sums are by, with commas.",
    "host": "The host's name.",
    "key": "The key's id.",
    "limit": "How many at most.",
    "model": "The model's name.",
    "month": "Like 2026-11; left out: this one.",
    "start": "From then on: Unix seconds, or a day like 2026-11-01.",
    "user": "The user's id or name.",
    "valid_from": "The day of what is meant; left out: all of the model's.",
}
_USAGE_QUERY: Final = ("start", "end", "group_by", "key", "model", "limit", "after", "format")
EVENTS: Final = "text/event-stream"
PUBLIC: Final = (
    Public(
        "POST",
        "/chat/completions",
        "create_chat_completion",
        "Answer a conversation, whole or streamed.",
        ChatRequest,
        ChatCompletion,
        EVENTS,
    ),
    Public(
        "POST",
        "/completions",
        "create_completion",
        "Go on with a text, or fill in its middle.",
        CompletionRequest,
        TextCompletion,
        EVENTS,
    ),
    Public("GET", "/models", "list_public_models", "List the models this key may use.", None, ModelList),
    Public("GET", "/models/{id}", "show_public_model", "Show one of them.", None, ModelEntry),
    Public("GET", "/user/balance", "show_balance", "What is left of the account's money.", None, BalanceBody),
    Public(
        "GET",
        "/usage",
        "show_usage",
        "Sums of what the key, or its account, used.",
        None,
        UsagePage,
        "text/csv",
        query=tuple((name, _QUERY[name]) for name in _USAGE_QUERY),
    ),
    Public(
        "GET",
        "/dashboard/billing/subscription",
        "show_subscription",
        "What can be spent, in New API's shape.",
        None,
        Subscription,
    ),
    Public(
        "GET",
        "/dashboard/billing/usage",
        "show_billing_usage",
        "What was spent, in New API's shape.",
        None,
        BillingUsage,
    ),
    Public(
        "GET",
        "/api/usage/token",
        "show_token_usage",
        "What the key spent and may spend, in New API's shape.",
        None,
        TokenUsage,
        bases=("",),
    ),
    Public(
        "GET",
        "/streams/{id}",
        "resume_stream",
        "Come back to a resumable stream.",
        None,
        None,
        EVENTS,
        query=(("after", "How many events were read."),),
    ),
    Public("GET", "/health", "health", "Whether the process runs.", bases=("",), security=""),
    Public("GET", "/ready", "ready", "Whether it would answer a request now; 503: not yet.", bases=("",), security=""),
    Public("GET", "/metrics", "metrics", "Counters for Prometheus.", media="text/plain", bases=("",), security=""),
    Public("GET", "/", "front", "A page for people.", media="text/html", bases=("",), security=""),
    Public("GET", PATH, "openapi", "This document.", bases=("",), security=""),
    Public(
        "POST",
        payments.PATH,
        "take_payment",
        "A payment service says that somebody paid; absent without a secret.",
        payments.Payment,
        payments.Booked,
        bases=("",),
        security="signature",
    ),
)

_SECURITY: Final = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, sk-mp-…"},
    "token": {"type": "http", "scheme": "bearer", "description": "A token of a user of the admin API, mp-op-…"},
    "signature": {"type": "apiKey", "in": "header", "name": payments.HEADER, "description": "t=…,v1=…"},
}
_NEEDS: Final = {
    "operator": "For operators.",
    "owner": "For owners of the account, and operators.",
    "member": "For members and owners of the account, and operators.",
}


@cache
def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(describe())


def describe() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for public in PUBLIC:
        item = paths.setdefault(public.path, {"servers": [{"url": base or "/"} for base in public.bases]})
        item[public.method.lower()] = _public(public)
    for route in ROUTES:
        paths.setdefault(BASE + route.path, {})[route.method.lower()] = _route(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Moonpool", "version": __version__, "summary": "The data plane and the admin API."},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SECURITY},
    }


def _types() -> list[type[Struct]]:
    found: list[type[Struct]] = [ErrorPage]
    rows: tuple[Public | Route, ...] = (*PUBLIC, *ROUTES)
    for row in rows:
        found += [kind for kind in (row.body, row.answer) if kind is not None]
    return list(dict.fromkeys(found))


def _schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(_types(), ref_template=_REF)
    return dict(components)


def _ref(kind: type[Struct] | None) -> dict[str, Any]:
    return {"type": "object"} if kind is None else {"$ref": _REF.format(name=kind.__name__)}


def _content(kind: type[Struct] | None, many: bool = False) -> dict[str, Any]:
    schema = _ref(kind)
    if many:
        data = {"type": "array", "items": schema}
        schema = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"application/json": {"schema": schema}}


def _parameters(path: str, query: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in re.findall(r"\{(\w+)\}", path)
    ]
    return found + [{"name": name, "in": "query", "schema": text, "description": says} for name, says in query]


def _operation(
    name: str, says: str, path: str, query: tuple[tuple[str, str], ...], body: type[Struct] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": name, "summary": says}
    parameters = _parameters(path, query)
    if parameters:
        found["parameters"] = parameters
    if body is not None:
        found["requestBody"] = {"required": True, "content": _content(body)}
    return found


def _responses(status: int, content: dict[str, Any]) -> dict[str, Any]:
    refused = {"description": "Refused.", "content": _content(ErrorPage)}
    return {str(status): {"description": "Done.", "content": content}, "default": refused}


def _public(public: Public) -> dict[str, Any]:
    found = _operation(public.name, public.says, public.path, public.query, public.body)
    other = {public.media: {"schema": {"type": "string"}}} if public.media else {}
    whole = _content(public.answer) if public.answer is not None or not public.media else {}
    found["responses"] = _responses(200, {**whole, **other})
    found["security"] = [{public.security: []}] if public.security else []
    return found


def _route(route: Route) -> dict[str, Any]:
    query = tuple((name, _QUERY[name]) for name in route.query)
    found = _operation(route.run.__name__, route.says, route.path, query, route.body)
    found["description"] = f"{' '.join((route.run.__doc__ or '').split())} {_NEEDS[route.who]}"
    found["responses"] = _responses(route.status, _content(route.answer, route.many))
    found["security"] = [{"token": []}]
    return found
