"""Each change is one row of the audit log, is there before the change, and is not made where it cannot be logged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from admin_rig import CONFIG, ask, call, on_app, token_of
from faults.disk import Disk, broken
from moonpool.app import App
from moonpool.cli.alone import Alone, desk_over
from moonpool.errors import Problem
from moonpool.relay.offer import Offer
from moonpool.settings import load
from moonpool.state.sqlite import SqliteStore
from moonpool.web import admin
from unit.web_admin.test_admin_access import BODIES, request


def on_disk(folder: Path, run: Callable[[Alone, Disk], Awaitable[Any]]) -> None:
    """A desk without a server over a disk that fails when it is told to."""
    (folder / "moonpool.toml").write_text(CONFIG)
    settings = load(folder / "moonpool.toml", {}, {"home": str(folder)})
    disk = Disk()

    async def live() -> None:
        store = SqliteStore(settings.store_path(), connection_class=disk.connection_class)
        store.office.alerts.seal_with(lambda: "a secret of a test, longer than a guess")
        await store.start()
        offer = Offer(settings, {})
        offer.open(store.kept_rows, store.overrides)
        desk = desk_over(store, settings, offer, {}, {})
        try:
            await run(desk, disk)
        finally:
            disk.fail = lambda text: None
            await store.stop()

    asyncio.run(live())


async def rows(desk: Any) -> list[dict[str, Any]]:
    """The log, oldest first."""
    page = await ask(desk, "GET", "/audit", query="limit=1000")
    return list(reversed(page["data"]))


async def ready(desk: Any) -> dict[str, str]:
    """What the routes are about: an account, a key, a user with a token, a code, and an alert's id."""
    await ask(desk, "POST", "/accounts", {"name": "mine"})
    key = (await ask(desk, "POST", "/keys", {"account": "mine"}))["id"]
    await ask(desk, "PUT", "/accounts/mine/prices/tiny", BODIES["PUT /accounts/{name}/prices/{model}"])
    await ask(desk, "PUT", "/catalogue/models/mine", BODIES["PUT /catalogue/{section}/{name}"])
    user = (await ask(desk, "POST", "/users", {"name": "owner"}))["id"]
    token = (await ask(desk, "POST", "/tokens", {"user": user}))["id"]
    gift = {"gift": {"fund": "granted", "amount": "2", "currency": "CNY"}}
    code = (await ask(desk, "POST", "/codes", gift))["data"][0]["code"]
    alert = (await ask(desk, "POST", "/accounts/mine/alerts", BODIES["POST /accounts/{name}/alerts"]))["id"]
    return {"key": key, "user": user, "token": token, "code": code, "alert": alert}


def the(route: admin.Route, known: dict[str, str]) -> tuple[str, Any]:
    other = {"users": "user", "tokens": "token"}.get(route.path.split("/")[1], "alert")
    target, body = request(route, "mine", known["key"], known[other])
    return target, {"code": known["code"]} if route.path.endswith("/redeem") else body


CHANGES = [route for route in admin.ROUTES if route.logged]


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: route.action)
def test_each_change_is_one_row(tmp_path: Path, route: admin.Route) -> None:
    """I15: whatever route changes something, one row says who, which, of what; no secret of the answer is in it."""

    async def run(app: App) -> None:
        known = await ready(app.platform)
        before = await rows(app.platform)
        target, body = the(route, known)
        page = await ask(app.platform, route.method, target, body)
        (row,) = (await rows(app.platform))[len(before) :]
        assert (row["actor"], row["action"]) == ("socket", route.action)
        assert row["target"]
        secrets = [page.get(name) for name in ("key", "token", "secret")] if isinstance(page, dict) else []
        secrets += [each.get("code") for each in page.get("data", [])]
        for secret in filter(None, secrets):
            assert secret not in str(row)
        assert (await ask(app.platform, "GET", "/audit/verify"))["ok"] is True

    on_app(tmp_path, run)


@pytest.mark.parametrize("route", [route for route in admin.ROUTES if not route.logged], ids=lambda r: r.action)
def test_reading_is_no_row(tmp_path: Path, route: admin.Route) -> None:
    """What changes nothing is not logged."""

    async def run(app: App) -> None:
        known = await ready(app.platform)
        before = await rows(app.platform)
        target, body = the(route, known)
        path, _, query = target.replace("/models/mine", "/models/tiny").partition("?")
        await ask(app.platform, route.method, path, body, query)
        assert await rows(app.platform) == before

    on_app(tmp_path, run)


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: route.action)
def test_what_cannot_be_logged_is_not_done(tmp_path: Path, route: admin.Route) -> None:
    """Case 126: with a log that cannot be written each change is refused with 503, and nothing is written at all."""

    async def run(desk: Alone, disk: Disk) -> None:
        known = await ready(desk)
        target, body = the(route, known)
        begun = len(disk.statements)
        disk.fail = lambda text: broken() if text.startswith("INSERT INTO audit") else None
        with pytest.raises(Problem) as refused:
            await ask(desk, route.method, target, body)
        assert refused.value.code == "platform.storage"
        tables = {"accounts", "keys", "users", "members", "tokens", "codes", "deposits", "packs", "alerts", "overrides"}
        wrote = [text for text in disk.statements[begun:] if text.split()[0] in {"INSERT", "UPDATE", "DELETE"}]
        assert not [text for text in wrote if set(text.replace('"', " ").split()[1:3]) & tables]

    on_disk(tmp_path, run)


def test_a_change_that_fails_after_its_row_says_so(tmp_path: Path) -> None:
    """The log is written first; where the change then fails, a second row says that it was not made."""

    async def run(desk: Alone, disk: Disk) -> None:
        disk.fail = lambda text: broken() if text.startswith("INSERT INTO accounts") else None
        with pytest.raises(Problem, match="storage"):
            await ask(desk, "POST", "/accounts", {"name": "new"})
        made, failed = (await rows(desk))[-2:]
        assert failed["detail"] == {"failed": "platform.storage", "row": made["seq"]}
        assert made["target"] == failed["target"] == "new"

    on_disk(tmp_path, run)


def test_what_the_file_declares_is_logged_once(tmp_path: Path) -> None:
    """Declared accounts and keys, and the first key, are changes at the start that makes them, and none at the next."""
    declared = '[[accounts]]\nname = "team"\nkeys = ["a-long-declared-key-of-a-team"]\n'

    async def run(app: App) -> list[dict[str, Any]]:
        return await rows(app.platform)

    first = on_app(tmp_path, run, declared)
    assert [(row["actor"], row["action"]) for row in first] == [
        ("start", "declare account"),
        ("start", "declare key"),
        ("start", "first key"),
    ]
    assert "a-long-declared-key" not in str(first)
    assert on_app(tmp_path, run, declared) == first
    assert len(on_app(tmp_path, run, declared + "concurrency = 7\n")) == len(first) + 1


def test_a_change_with_an_idempotency_key_is_one(tmp_path: Path) -> None:
    """The same request of the same user twice is one key, one row of the log and one answer; the same words of another
    user are another."""

    async def run(app: App) -> None:
        await ask(app.platform, "POST", "/accounts", {"name": "mine"})
        tokens = [await token_of(app.platform, name, mine="owner") for name in ("a", "b")]
        before = await rows(app.platform)
        answers = [
            await call(
                app.port, "POST", f"{admin.BASE}/keys", {"account": "mine"}, token, {"idempotency-key": "the same"}
            )
            for token in (*tokens, tokens[0])
        ]
        assert [answer.status for answer in answers] == [201, 201, 201]
        assert answers[0].body == answers[2].body != answers[1].body
        assert answers[2].fields["cache-control"] == "no-store"
        assert len(await rows(app.platform)) == len(before) + 2

    on_app(tmp_path, run)
