"""Rows of the catalogue over the admin API, on a real platform: set, refused, forgotten; and another node's view."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from admin_rig import CONFIG, ask, call, on_app, on_platform, token_of
from moonpool.app import App
from moonpool.errors import Problem
from moonpool.ledger.money import price_of
from moonpool.relay.offer import Offer
from moonpool.relay.platform import Platform
from moonpool.settings import ConfigError, load
from moonpool.state.base_catalogue import KeptRow
from moonpool.state.sqlite import SqliteStore

DATED = {"valid_from": "2026-01-01", "prompt_miss": "1", "prompt_hit": "0.5", "completion": "2"}
SMALL = {"hosts": ["far"], "prices": [DATED], "window": 4096}


async def put(desk: Any, section: str, name: str, **row: Any) -> Any:
    return await ask(desk, "PUT", f"/catalogue/{section}/{name}", {"row": row})


async def refused(asking: Awaitable[Any]) -> Problem:
    with pytest.raises(Problem) as found:
        await asking
    return found.value


def test_a_row_holds_at_once_and_is_forgotten_at_once(tmp_path: Path) -> None:
    """What is asked of the models, the prices and the hosts says so; a second row replaces the first as a whole."""

    async def run(platform: Platform) -> None:
        before = platform.catalogue
        kept = await put(platform, "models", "small", **SMALL)
        assert (kept["section"], kept["name"], kept["row"], kept["trouble"]) == ("models", "small", SMALL, "")
        assert [row["name"] for row in (await ask(platform, "GET", "/models"))["data"]] == ["small", "tiny"]
        (row, _) = (await ask(platform, "GET", "/prices"))["data"]
        assert row["completion"] == "2.00"
        await put(platform, "models", "small", hosts=["far"])
        (row, _) = (await ask(platform, "GET", "/prices"))["data"]
        assert row["version"] == "free"
        assert (await ask(platform, "GET", "/models/small"))["window"] == 131_072
        await put(platform, "hosts", "far", off=True)
        page = await ask(platform, "GET", "/hosts")
        assert (page["data"], page["absent"]["far"]) == ([], "its row says that it is off")
        assert [row["name"] for row in (await ask(platform, "GET", "/catalogue"))["data"]] == ["far", "small"]
        for section, name in (("hosts", "far"), ("models", "small")):
            gone = await ask(platform, "DELETE", f"/catalogue/{section}/{name}")
            assert gone == {"section": section, "name": name, "deleted": 1}
        assert platform.catalogue == before
        assert (await ask(platform, "GET", "/catalogue"))["data"] == []
        assert (await refused(ask(platform, "DELETE", "/catalogue/models/small"))).code == "caller.not_found"

    on_platform(tmp_path, run)


@pytest.mark.parametrize(
    ("section", "name", "row", "param"),
    [
        ("models", "small", {**SMALL, "windoww": 1}, "models.small.windoww"),
        ("models", "small", {"hosts": ["nowhere"]}, "models.small.hosts"),
        ("models", "tiny", {"window": 0}, "models.tiny.window"),
        ("models", "tiny", {"prices": [{**DATED, "valid_from": "soon"}]}, "models.tiny.prices[0].valid_from"),
        ("hosts", "far", {"api_key": "sk-0123456789abcdef"}, "hosts.far.api_key"),
        ("hosts", "far", {"api_key": "file:/nowhere/key"}, "hosts.far.api_key"),
        ("hosts", "far", {"options": {"dropp": []}}, "hosts.far.options.dropp"),
        ("calendars", "night", {"hours": ["late"]}, "calendars.night.hours[0]"),
        ("weights", "small", {}, "weights"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, section: str, name: str, row: dict[str, Any], param: str
) -> None:
    """400 with the field; nothing is kept, nothing is in the log, and what held is the very same."""

    async def run(app: App) -> None:
        token = await token_of(app.platform, "root", operator=True)
        before, head = app.platform.catalogue, await app.store.office.audit.page(None, 1)
        told = await call(app.port, "PUT", f"/admin/v1/catalogue/{section}/{name}", {"row": row}, token)
        assert (told.status, told.page["error"]["param"]) == (400, param)
        assert b"0123456789abcdef" not in told.body
        assert app.platform.catalogue is before
        assert app.store.kept_rows.list() == ()
        assert await app.store.office.audit.page(None, 1) == head

    on_app(tmp_path, run)


def test_what_others_need_is_not_forgotten(tmp_path: Path) -> None:
    """A host that a kept model is served by, a calendar that an account's own price goes by."""

    async def run(platform: Platform) -> None:
        await put(platform, "hosts", "near", base_url="http://127.0.0.1:1/v1")
        await put(platform, "models", "small", hosts=["near"])
        problem = await refused(ask(platform, "DELETE", "/catalogue/hosts/near"))
        assert (problem.code, problem.param) == ("caller.invalid_value", "models.small.hosts")
        await put(platform, "calendars", "night", hours=["00:00-06:00"])
        price = {"price": {**DATED, "peak": {"calendar": "night", "factor": "2"}}}
        del price["price"]["valid_from"]
        await ask(platform, "PUT", "/accounts/default/prices/tiny", price)
        assert (await refused(ask(platform, "DELETE", "/catalogue/calendars/night"))).code == "caller.invalid_value"
        await ask(platform, "DELETE", "/accounts/default/prices/tiny")
        await ask(platform, "DELETE", "/catalogue/calendars/night")
        assert [row["name"] for row in (await ask(platform, "GET", "/catalogue"))["data"]] == ["near", "small"]

    on_platform(tmp_path, run)


def test_an_agreed_price_follows_the_list(tmp_path: Path) -> None:
    """A factor is of what the list says now; and what was agreed for a model that is there no more waits for it."""

    async def run(platform: Platform) -> None:
        await put(platform, "models", "small", **SMALL)
        await ask(platform, "PUT", "/accounts/default/prices/small", {"price": {"factor": "0.5"}})
        at = platform.clock()
        cost = platform.tariffs.price("default", platform.catalogue.find("small"), at).completion
        assert cost == price_of("1")
        await put(platform, "models", "small", hosts=["far"], prices=[{**DATED, "completion": "20"}])
        found = platform.tariffs.price("default", platform.catalogue.find("small"), at)
        assert found.completion == 10 * cost
        await ask(platform, "DELETE", "/catalogue/models/small")
        assert platform.tariffs.of("default") == {}
        await put(platform, "models", "small", **SMALL)
        assert platform.tariffs.price("default", platform.catalogue.find("small"), at).completion == cost

    on_platform(tmp_path, run)


def test_of_changes_at_once_one_is_made(tmp_path: Path) -> None:
    """Each was right by itself; the others are told, in the log as well, and what is kept is what was checked."""

    async def run(platform: Platform) -> None:
        asked = [put(platform, "models", name, hosts=["far"]) for name in ("one", "two", "three")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        problems = [each for each in found if isinstance(each, Problem)]
        assert [problem.code for problem in problems] == ["caller.conflict"] * 2
        (row,) = (await ask(platform, "GET", "/catalogue"))["data"]
        assert set(platform.catalogue.by_name) == {"tiny", row["name"]}
        log = (await ask(platform, "GET", "/audit"))["data"]
        assert sum("failed" in each["detail"] for each in log) == 2

    on_platform(tmp_path, run)


def test_the_log_says_what_a_row_said(tmp_path: Path) -> None:
    """Who, which, and all of it: so that a price of last year can be explained."""

    async def run(platform: Platform) -> None:
        await put(platform, "models", "small", **SMALL)
        await ask(platform, "DELETE", "/catalogue/models/small")
        rows = (await ask(platform, "GET", "/audit"))["data"]
        assert [(row["action"].split()[0], row["target"], row["detail"]) for row in rows[:2]] == [
            ("DELETE", "models.small", {}),
            ("PUT", "models.small", {"row": SMALL}),
        ]

    on_platform(tmp_path, run)


# Another node over the same rows.


def on_nodes(
    folder: Path, run: Callable[[SqliteStore, Callable[..., Offer]], Awaitable[None]], config: str = CONFIG
) -> None:
    """`run` gets a store and a maker of what nodes with other files and environments make of it."""
    (folder / "moonpool.toml").write_text(config)
    settings = load(folder / "moonpool.toml", {}, {"home": str(folder)})

    async def live() -> None:
        store = SqliteStore(settings.store_path())
        await store.start()
        try:
            await run(store, lambda **environ: Offer(settings, environ))
        finally:
            await store.stop()

    asyncio.run(live())


async def keep(store: SqliteStore, at: float, section: str, name: str, **row: Any) -> None:
    assert await store.kept_rows.set(KeptRow(section, name, json.loads(json.dumps(row)), at), store.kept_rows.revision)


def test_a_variable_that_a_node_has_not(tmp_path: Path) -> None:
    """The host is absent there, as any; elsewhere it serves."""

    async def run(store: SqliteStore, node: Callable[..., Offer]) -> None:
        await keep(store, 1.0, "hosts", "near", base_url="env:NEAR_URL", api_key="env:NEAR_KEY")
        await keep(store, 2.0, "models", "tiny", hosts=["near", "far"])
        here, there = node(), node(NEAR_URL="http://127.0.0.1:1/v1", NEAR_KEY="k")
        for each in (here, there):
            each.open(store.kept_rows, store.overrides)
        assert [target.host.name for target in here.catalogue.find("tiny").targets] == ["far"]
        assert here.catalogue.absent["near"] == "NEAR_KEY is not set in the environment"
        assert [target.host.name for target in there.catalogue.find("tiny").targets] == ["near", "far"]

    on_nodes(tmp_path, run)


def test_a_row_that_a_node_cannot_use_stays_as_it_was_there(tmp_path: Path) -> None:
    """It says which and why, and the others count: a file that it has not takes no price from it. Once it can use the
    row, it does."""
    key = tmp_path / "near.key"

    async def run(store: SqliteStore, node: Callable[..., Offer]) -> None:
        here = node()
        await keep(store, 1.0, "hosts", "near", base_url="http://127.0.0.1:1/v1")
        here.open(store.kept_rows, store.overrides)
        await keep(store, 2.0, "hosts", "near", base_url="http://127.0.0.1:2/v1", api_key=f"file:{key}")
        await keep(store, 3.0, "models", "tiny", hosts=["near"], window=2048)
        here.look()
        (target,) = here.catalogue.find("tiny").targets
        assert (target.host.base_url, here.catalogue.find("tiny").window) == ("http://127.0.0.1:1/v1", 2048)
        (why,) = here.trouble.values()
        assert why == f"hosts.near.api_key: {key} cannot be read (No such file or directory)."
        key.write_text("secret")
        key.chmod(0o600)
        here.look()
        assert here.trouble == {}
        assert here.catalogue.find("tiny").targets[0].host.api_key == "secret"

    on_nodes(tmp_path, run)


def test_a_start_needs_all_rows(tmp_path: Path) -> None:
    """A server with other prices than the rest must not begin: it says which row and how to forget it. Commands can be
    given meanwhile."""

    async def run(store: SqliteStore, node: Callable[..., Offer]) -> None:
        await keep(store, 1.0, "hosts", "near", base_url="http://127.0.0.1:2/v1", api_key="file:/nowhere/key")
        with pytest.raises(ConfigError, match=r"hosts\.near\.api_key: .*moonpool catalogue unset"):
            node().open(store.kept_rows, store.overrides)
        here = node()
        here.open(store.kept_rows, store.overrides, leave_out=True)
        assert list(here.trouble) == [("hosts", "near")]
        assert list(here.catalogue.by_name) == ["tiny"]

    on_nodes(tmp_path, run)
