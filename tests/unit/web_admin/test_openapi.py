"""`/openapi.json`: well formed, complete, and true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from admin_rig import ask, call, on_app
from moonpool.app import App
from moonpool.web import admin, openapi, ops
from moonpool.web.data import BASES, DataPlane
from moonpool.web.data_types import (
    BalanceBody,
    BillingUsage,
    ErrorPage,
    ModelEntry,
    ModelList,
    Subscription,
    TokenUsage,
    UsagePage,
)
from unit.web_admin.test_admin_log import ready, the

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
DOCUMENT: dict[str, Any] = json.loads(openapi.document())


def operations() -> Iterator[tuple[str, str, dict[str, Any], list[str]]]:
    """(method, path, operation, base URLs) of all that is described."""
    for path, item in DOCUMENT["paths"].items():
        servers = [server["url"].rstrip("/") for server in item.get("servers", DOCUMENT["servers"])]
        for method in METHODS & item.keys():
            yield method, path, item[method], servers


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_document_is_openapi() -> None:
    """It has what OpenAPI 3.1 requires of it, each reference leads somewhere, and no operation is named twice."""
    assert re.fullmatch(r"3\.1\.\d+", DOCUMENT["openapi"])
    assert DOCUMENT["info"].keys() >= {"title", "version"}
    assert DOCUMENT.keys() <= {"openapi", "info", "servers", "paths", "components", "tags", "security"}
    names = []
    for method, path, operation, servers in operations():
        assert path.startswith("/")
        assert servers
        names.append(operation["operationId"])
        assert operation["summary"].endswith(".")
        given = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert given == set(re.findall(r"\{(\w+)\}", path))
        for each in operation.get("parameters", []):
            assert each["in"] in {"path", "query"}
            assert "schema" in each
            assert each.get("required", False) == (each["in"] == "path")
        if "requestBody" in operation:
            assert method in {"post", "put", "patch"}
            assert operation["requestBody"]["content"]
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d|default", status)
            assert response["description"]
        for needed in operation["security"]:
            assert needed.keys() <= DOCUMENT["components"]["securitySchemes"].keys()
    assert len(set(names)) == len(names)
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    used = {reference.rpartition("/")[2] for reference in references(DOCUMENT)}
    assert used == DOCUMENT["components"]["schemas"].keys()


def described(method: str, address: str) -> bool:
    for known, path, _, servers in operations():
        for server in servers:
            pattern = re.escape(server + path).replace(r"\{", "{").replace(r"\}", "}")
            if known == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), address):
                return True
    return False


def test_every_address_is_described(tmp_path: Path) -> None:
    """Case 185, OWASP API9: whatever address the server takes, on its port, is in the document."""

    async def run(app: App) -> set[str]:
        found: set[str] = set()
        for value in vars(DataPlane(app.platform)).values():
            if isinstance(value, dict | tuple):
                # An exact address, or the beginning of one that an id follows.
                found |= {each + ("x" if each.endswith("/") else "") for each in value if isinstance(each, str)}
        return found

    taken = on_app(tmp_path, run)
    assert len(taken) >= len(BASES) * 6
    missing = [address for address in taken if not (described("get", address) or described("post", address))]
    assert not missing
    missing = [address for address in ops._PAGES if not described("get", address)]
    assert not missing
    for route in admin.ROUTES:
        assert described(route.method.lower(), admin.BASE + re.sub(r"\{\w+\}", "x", route.path))


def test_every_described_address_is_there(tmp_path: Path) -> None:
    """The other way round: nothing is described that the server does not take; only the webhook is absent while it has
    no secret."""

    async def run(app: App) -> None:
        for method, path, _, servers in operations():
            for server in servers:
                address = server + re.sub(r"\{\w+\}", "x", path)
                answer = await call(app.port, method.upper(), address)
                if path == "/webhooks/payment":
                    assert answer.status == 404
                else:
                    assert answer.status in {200, 401, 503}, (method, address)

    on_app(tmp_path, run)


def test_answers_are_as_described(tmp_path: Path) -> None:
    """Real answers of the data plane have the described types; the document itself is served as JSON, the same bytes
    each time."""

    async def run(app: App) -> None:
        key = (await ask(app.platform, "POST", "/keys", {}))["key"]
        listed = await call(app.port, "GET", "/v1/models", token=key)
        models = msgspec.json.decode(listed.body, type=ModelList, strict=True)
        assert models.data
        one = await call(app.port, "GET", f"/models/{models.data[0].id}", token=key)
        assert msgspec.json.decode(one.body, type=ModelEntry) == models.data[0]
        balance = await call(app.port, "GET", "/user/balance", token=key)
        assert msgspec.json.decode(balance.body, type=BalanceBody).is_available
        for path, kind in (
            ("/v1/usage", UsagePage),
            ("/v1/dashboard/billing/subscription", Subscription),
            ("/v1/dashboard/billing/usage", BillingUsage),
            ("/api/usage/token", TokenUsage),
        ):
            msgspec.json.decode((await call(app.port, "GET", path, token=key)).body, type=kind)
        refused = await call(app.port, "POST", "/v1/chat/completions", {})
        assert msgspec.json.decode(refused.body, type=ErrorPage).error.code == "invalid_api_key"
        first, second = [await call(app.port, "GET", "/openapi.json") for _ in range(2)]
        assert first.fields["content-type"] == "application/json"
        assert first.body == second.body == openapi.document()

    on_app(tmp_path, run)


def test_admin_answers_are_as_described(tmp_path: Path) -> None:
    """What a route answers is what its row says: the type, or a list of it under `data`."""

    async def run(app: App) -> None:
        known = await ready(app.platform)
        for route in admin.ROUTES:
            if route.answer is None or route.method == "DELETE":
                continue
            target, body = the(route, known)
            path, _, query = target.partition("?")
            page = await ask(app.platform, route.method, path, body, query)
            for row in page["data"] if route.many else [page]:
                msgspec.convert(row, route.answer, strict=True)

    on_app(tmp_path, run)
