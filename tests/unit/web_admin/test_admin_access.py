"""Who may do what over the port: every route of the table, for every kind of token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from admin_rig import ask, call, on_app, token_of
from moonpool.app import App
from moonpool.web import admin
from moonpool.web.admin.routing import Route

BODIES: dict[str, Any] = {
    "POST /accounts": {"name": "new"},
    "PATCH /accounts/{name}": {"concurrency": 7},
    "PUT /accounts/{name}/products/{product}": {"on": False},
    "PUT /accounts/{name}/prices/{model}": {"price": {"factor": "0.5"}},
    "POST /keys": {"account": "mine", "name": "k"},
    "PATCH /keys/{id}": {"name": "other"},
    "POST /keys/{id}/rotate": {"grace_s": 5},
    "POST /users": {"name": "somebody"},
    "PUT /users/{id}/roles/{name}": {"role": "member"},
    "POST /tokens": {"user": "owner"},
    "POST /accounts/{name}/deposits": {"id": "d1", "fund": "granted", "amount": "12.50", "currency": "CNY"},
    "POST /accounts/{name}/packs": {"id": "p1", "kind": "paid", "product": "tiny", "unit": "tokens", "units": 5},
    "POST /codes": {"gift": {"fund": "granted", "amount": "1", "currency": "CNY"}},
    "POST /accounts/{name}/redeem": {"code": "mp-gift-no"},
    "POST /accounts/{name}/alerts": {
        "kind": "balance_below",
        "threshold": "5",
        "currency": "CNY",
        "url": "https://example.com/hook",
    },
    "PUT /catalogue/{section}/{name}": {"row": {"hosts": ["far"]}},
}
"""A body that each route takes."""

TENANT = [route for route in admin.ROUTES if route.who != "operator"]
BY_ID = [route for route in admin.ROUTES if "{" in route.path or route.about in {"body", "query"}]


def name(route: Route) -> str:
    return route.action


def request(route: Route, account: str, key: str, other: str = "x") -> tuple[str, Any]:
    """(target, body) of a request to the route about this account, this key, this `other` id."""
    path = route.path.replace("{name}", account).replace("{product}", "tiny").replace("{model}", "tiny")
    path = path.replace("{section}", "models")
    path = path.replace("{id}", key if route.about == "key" else other)
    body = dict(BODIES[route.action]) if route.body is not None else None
    if route.about == "body":
        assert body is not None
        body["account"] = account
    return admin.BASE + path + (f"?account={account}" if route.about == "query" else ""), body


async def two_tenants(app: App) -> dict[str, str]:
    """Accounts `mine` and `theirs`, a key of each, an owner and a member of `mine`, an operator."""
    for account in ("mine", "theirs"):
        await ask(app.platform, "POST", "/accounts", {"name": account})
    made = {
        account: (await ask(app.platform, "POST", "/keys", {"account": account}))["id"]
        for account in ("mine", "theirs")
    }
    return {
        **made,
        "owner": await token_of(app.platform, "owner", mine="owner"),
        "member": await token_of(app.platform, "member", mine="member"),
        "operator": await token_of(app.platform, "root", operator=True),
    }


def test_every_body_has_an_example() -> None:
    """The tests of this file leave no route out."""
    assert {route.action for route in admin.ROUTES if route.body is not None} == set(BODIES)


def test_others_and_unknown_are_the_same_answer(tmp_path: Path) -> None:
    """Case 109: every route that takes an id, asked by the owner of another account: what is there and what is not are
    the same status and the same bytes, and nothing changes."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        before = await app.store.office.audit.page(None, 1)
        for route in BY_ID:
            answers = []
            for account, key in (("theirs", known["theirs"]), ("nowhere", "AbCdEfGhIjKl")):
                target, body = request(route, account, key)
                answers.append(await call(app.port, route.method, target, body, known["owner"]))
            there, absent = answers
            assert there.status == absent.status == (403 if route.who == "operator" else 404), route.action
            assert there.body == absent.body, route.action
            assert there.fields.keys() == absent.fields.keys(), route.action
            assert there.page["error"].keys() == {"message", "type", "param", "code"}
        assert await app.store.office.audit.page(None, 1) == before

    on_app(tmp_path, run)


def test_lists_show_ones_own(tmp_path: Path) -> None:
    """Accounts and keys of others are in no list of a tenant; an operator sees all."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        for path, own in (("/accounts", "mine"), ("/keys", known["mine"])):
            for token, wanted in (("owner", {own}), ("member", {own})):
                page = (await call(app.port, "GET", admin.BASE + path, token=known[token])).page
                assert {row["id"] for row in page["data"]} == wanted
            page = (await call(app.port, "GET", admin.BASE + path, token=known["operator"])).page
            assert len(page["data"]) == 3  # with those of the account `default`

    on_app(tmp_path, run)


def test_only_owners_change(tmp_path: Path) -> None:
    """Case 108: a member reads and gets 403 for every change; only operators do what is for operators; in a disabled
    account an owner changes nothing and still reads."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        for route in admin.ROUTES:
            target, body = request(route, "mine", known["mine"])
            if route.who == "operator":
                for token in ("owner", "member"):
                    assert (await call(app.port, route.method, target, body, known[token])).status == 403, route.action
            elif route.who == "owner":
                refused = await call(app.port, route.method, target, body, known["member"])
                assert (refused.status, refused.page["error"]["code"]) == (403, "forbidden"), route.action
        await ask(app.platform, "PATCH", "/accounts/mine", {"disabled": True})
        for route in TENANT:
            target, body = request(route, "mine", known["mine"])
            if route.logged:
                refused = await call(app.port, route.method, target, body, known["owner"])
                assert (refused.status, refused.page["error"]["code"]) == (403, "forbidden"), route.action
        assert (await call(app.port, "GET", f"{admin.BASE}/keys", token=known["owner"])).status == 200

    on_app(tmp_path, run)


def test_who_shows_no_good_token_is_nobody(tmp_path: Path) -> None:
    """Without a token, with a key of the data plane, a wrong or a deleted token: 401 for every address below
    /admin/v1, before anything of the request is looked at; a token opens nothing of the data plane."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        platform = app.platform
        gone = await token_of(platform, "gone", operator=True)
        (row,) = (await ask(platform, "GET", "/tokens", query="user=gone"))["data"]
        await ask(platform, "DELETE", f"/tokens/{row['id']}")
        key = (await ask(platform, "POST", "/keys", {}))["key"]
        wrong = ["", key, gone, gone[:-1] + ("0" if gone[-1] != "0" else "1"), "mp-op-", "x" * 4000]
        for token in wrong:
            for path in ("/keys", "/nowhere"):
                refused = await call(app.port, "POST", admin.BASE + path, b"{", token)
                assert (refused.status, refused.page["error"]["code"]) == (401, "invalid_api_key")
        assert (await call(app.port, "GET", "/v1/models", token=known["operator"])).status == 401
        assert (await call(app.port, "GET", f"{admin.BASE}/status", token=known["operator"])).status == 200
        assert (await call(app.port, "GET", f"{admin.BASE}/nowhere", token=known["operator"])).status == 404

    on_app(tmp_path, run)


@pytest.mark.parametrize("field", ["role", "account_id", "balance", "price", "created_at"])
def test_fields_nobody_may_give(tmp_path: Path, field: str) -> None:
    """Case 111: a body with a field that its type does not have is refused, on every route."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        for route in admin.ROUTES:
            if route.body is None or field in route.body.__struct_fields__:
                continue
            target, body = request(route, "mine", known["mine"])
            refused = await call(app.port, route.method, target, {**body, field: "owner"}, known["operator"])
            assert refused.status == 400, route.action
            assert field in refused.page["error"]["message"]

    on_app(tmp_path, run)


def test_a_body_is_bounded(tmp_path: Path) -> None:
    """An admin request takes far less than a chat may."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        body = json.dumps({"name": "x" * 300_000}).encode()
        refused = await call(app.port, "POST", f"{admin.BASE}/users", body, known["operator"])
        assert refused.status == 413

    on_app(tmp_path, run)


def test_nothing_about_tenants_without_a_token(tmp_path: Path) -> None:
    """Case 185: /metrics, /health, /ready, /openapi.json and the page for people name no account, key or user."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        for path in ("/health", "/ready", "/metrics", "/openapi.json", "/"):
            answer = await call(app.port, "GET", path)
            assert answer.status == 200
            for canary in ("theirs", known["mine"], known["theirs"], "root"):
                assert canary.encode() not in answer.body, path
        for path in ("/docs", "/debug", "/redoc", "/admin", "/admin/v1", "/admin.sock"):
            assert (await call(app.port, "GET", path)).status == 404

    on_app(tmp_path, run)


def test_the_log_says_who_and_from_where(tmp_path: Path) -> None:
    """Case 125: a change over the port is logged under user, token and true peer, whatever headers claim."""

    async def run(app: App) -> None:
        known = await two_tenants(app)
        claims = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9"}
        made = await call(app.port, "POST", f"{admin.BASE}/keys", {"account": "mine"}, known["owner"], claims)
        assert made.status == 201
        assert made.fields["cache-control"] == "no-store"
        row = (await ask(app.platform, "GET", "/audit"))["data"][0]
        assert row["actor"].startswith("owner (")
        assert row["action"] == "POST /keys"
        assert row["target"] == made.page["id"]
        assert row["detail"]["peer"] == "127.0.0.1"
        assert made.page["key"] not in json.dumps(row)

    on_app(tmp_path, run)
