"""Prices over the admin API: what each model costs now, and what is agreed with an account, on a real platform."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from moonpool.app import App
from moonpool.errors import Problem
from moonpool.ledger.money import price_of
from moonpool.relay.platform import Platform
from moonpool.settings import load
from moonpool.web import admin

CONFIG = """
[embedded]
enabled = false
[hosts.far]
base_url = "http://127.0.0.1:1/v1"
[models.tiny]
hosts = ["far"]
product = "house"
prices = [{ valid_from = 2026-01-01, prompt_miss = "1", prompt_hit = "0.5", completion = "2", searches = "5" }]
"""
UNKNOWN = {"calendar": "x", "factor": "2"}
AMOUNTS = {
    "prompt_miss": "0.5",
    "prompt_hit": "0.1",
    "completion": "1",
    "peak": {"calendar": "weekdays", "factor": "3"},
}


def on_platform(folder: Path, run: Callable[[Platform], Awaitable[Any]]) -> Any:
    (folder / "moonpool.toml").write_text(CONFIG)
    settings = load(folder / "moonpool.toml", {}, {"home": str(folder), "port": 0})

    async def live() -> Any:
        app = App(settings, {})
        await app.start()
        try:
            return await run(app.platform)
        finally:
            await app.stop()

    return asyncio.run(live())


async def call(platform: Platform, method: str, path: str, query: str = "", body: Any = None) -> Any:
    raw = b"" if body is None else json.dumps(body).encode()
    status, page = await admin.handle(platform, method, path, query, raw)
    assert status == 200
    return json.loads(json.dumps(page))


def test_what_each_model_costs_now(tmp_path: Path) -> None:
    """With its product; a model's own page says it too."""

    async def run(platform: Platform) -> None:
        (row,) = (await call(platform, "GET", "/prices"))["data"]
        assert (row["model"], row["product"], row["completion"], row["searches"]) == ("tiny", "house", "2.00", "5.00")
        assert (row["peak"], row["until"], row["version"]) == (False, None, "models.tiny@2026-01-01")
        page = await call(platform, "GET", "/models/tiny")
        assert page["now"] == {name: value for name, value in row.items() if name not in {"model", "product"}}
        assert page["product"] == "house"

    on_platform(tmp_path, run)


def test_what_is_agreed_holds_at_once_and_is_forgotten_at_once(tmp_path: Path) -> None:
    """Set, shown, replaced, used by the very next request, unset: the list's price again."""

    async def run(platform: Platform) -> None:
        path = "/accounts/default/prices"

        def pays() -> tuple[int, str] | None:
            own = platform.tariffs.of("default").get("tiny")
            if own is None:
                return None
            price = own.at(platform.clock())
            return price.completion, price.version

        assert await call(platform, "GET", path) == {"data": [], "now": {}}
        row = await call(platform, "PUT", f"{path}/tiny", body={"price": {"factor": "0.8"}})
        day = row["valid_from"]
        assert pays() == (price_of("1.6"), f"own:default/tiny@{day}*models.tiny@2026-01-01")
        said = {"price": AMOUNTS, "valid_from": "2026-02-01"}
        await call(platform, "PUT", f"{path}/tiny", body=said)
        await call(platform, "PUT", f"{path}/tiny", body={**said, "valid_from": day})
        page = await call(platform, "GET", path)
        assert [(row["valid_from"], row["price"]) for row in page["data"]] == [("2026-02-01", AMOUNTS), (day, AMOUNTS)]
        assert page["now"]["tiny"]["version"].startswith(f"own:default/tiny@{day}")
        assert await call(platform, "DELETE", f"{path}/tiny", f"valid_from={day}") == {
            "account": "default", "model": "tiny", "deleted": 1,
        }  # fmt: skip
        found = pays()
        assert found is not None
        assert found[1].startswith("own:default/tiny@2026-02-01")
        await call(platform, "DELETE", f"{path}/tiny")
        assert pays() is None

    on_platform(tmp_path, run)


WRONG = [
    ("nobody/prices/tiny", {"price": {"factor": "1"}}, "caller.not_found", "account"),
    ("default/prices/huge", {"price": {"factor": "1"}}, "caller.unknown_model", "model"),
    ("default/prices/tiny", {"price": {"factor": "one"}}, "caller.invalid_value", "price"),
    ("default/prices/tiny", {"price": {}}, "caller.invalid_value", "price"),
    ("default/prices/tiny", {"price": {"factor": "1", "completion": "1"}}, "caller.invalid_value", "price"),
    ("default/prices/tiny", {"price": {"factro": "1"}}, "caller.invalid_value", "price"),
    ("default/prices/tiny", {"price": {"factor": "1"}, "valid_from": "soon"}, "caller.invalid_value", "price"),
    ("default/prices/tiny", {"price": {**AMOUNTS, "peak": UNKNOWN}}, "caller.invalid_value", "price"),
    ("default/prices/tiny", {}, "caller.invalid_value", None),
]


@pytest.mark.parametrize(("path", "body", "code", "param"), WRONG)
def test_what_is_no_price_is_refused(tmp_path: Path, path: str, body: Any, code: str, param: str | None) -> None:
    """With the field that is wrong, and nothing is kept."""

    async def run(platform: Platform) -> None:
        with pytest.raises(Problem) as refused:
            await call(platform, "PUT", f"/accounts/{path}", body=body)
        assert (refused.value.code, refused.value.param) == (code, param)
        assert list(platform.overrides.list()) == []

    on_platform(tmp_path, run)
