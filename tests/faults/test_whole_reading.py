"""What a key reads of its account, asked of a whole server: balances, New API's numbers, usage, tables; and whose."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.stage import KEY, Answer, Client, Stage, chat, good, play
from moonpool.ledger.money import UNIT_PICO
from moonpool.state.base import Deposit, Pack
from moonpool.words import Account, Key, Limits

PRICES = [{"valid_from": "2020-01-01", "prompt_miss": "1000", "prompt_hit": "1000", "completion": "2000"}]
COST = "0.025"
"""11 tokens of a question and 7 of an answer, at those prices."""
MODEL_ROW = {"prices": PRICES}


async def an_account(here: Stage, name: str, **more: Any) -> dict[str, str]:
    """An account with a key; gives the header fields of who has that key."""
    await here.app.store.keys.save_account(Account(name, name, **more))
    return await a_key(here, name, f"key-of-{name}")


async def a_key(here: Stage, account: str, secret: str, **more: Any) -> dict[str, str]:
    key = Key(secret[-12:], account, secret, 0.0, **more)
    await here.app.store.keys.create(key, hashlib.sha256(secret.encode()).digest())
    return {"Authorization": f"Bearer {secret}"}


async def deposit(here: Stage, account: str, fund: Any, units: int, currency: str = "CNY") -> None:
    name = f"{account}-{fund}-{currency}"
    await here.app.store.books.deposit(Deposit(name, account, fund, units * UNIT_PICO, currency, "", 1.0))


async def used(here: Stage, fields: dict[str, str], times: int = 1) -> None:
    """Ask so often, and wait until it is in the books on disk."""
    for _ in range(times):
        got = await here.ask(chat(stream=False), key=fields["Authorization"].split()[1])
        assert got.status == 200, got.body
    await here.quiet()
    async with asyncio.timeout(10):
        while (await here.app.store.books.totals())["open"]:  # noqa: ASYNC110 - the books set no event for it
            await asyncio.sleep(0)
        # What was read after this was written before: jobs are done in order.
        await here.app.store.reports.balances("bench")


def test_balance_as_deepseek_writes_it(tmp_path: Path) -> None:
    """CONTRACT 6: the shape to the letter, at each base URL, in every currency the account has; who has nothing left is
    not available, who has packs, credit or money is."""

    async def act(here: Stage) -> None:
        rich = await an_account(here, "rich")
        await deposit(here, "rich", "granted", 10)
        await deposit(here, "rich", "topped_up", 100)
        for path in ("/user/balance", "/v1/user/balance", "/beta/user/balance"):
            got = await here.get(path, fields=rich)
            assert got.body == (
                b'{"is_available":true,"balance_infos":[{"currency":"CNY","total_balance":"110.00",'
                b'"granted_balance":"10.00","topped_up_balance":"100.00"}]}'
            )
        await deposit(here, "rich", "topped_up", 3, "USD")
        got = await here.get("/user/balance", fields=rich)
        assert [info["currency"] for info in got.json["balance_infos"]] == ["CNY", "USD"]
        assert got.json["balance_infos"][1]["total_balance"] == "3.00"

        poor = await an_account(here, "poor")
        nothing = {"total_balance": "0.00", "granted_balance": "0.00", "topped_up_balance": "0.00"}
        got = await here.get("/user/balance", fields=poor)
        assert got.json == {"is_available": False, "balance_infos": [{"currency": "CNY", **nothing}]}
        await here.app.store.books.add_pack(Pack("p", "poor", "trial", "", "tokens", 5, "", 1.0, 4e9))
        assert (await here.get("/user/balance", fields=poor)).json["is_available"] is True

    play(tmp_path, good, act=act)


def test_balance_of_who_is_on_credit(tmp_path: Path) -> None:
    """What is used on credit is seen at once, before the hour is settled; in arrears nothing is available."""

    async def act(here: Stage) -> None:
        fields = await an_account(here, "later", post_paid=True, credit_pico=0)
        await used(here, fields, 2)
        for settled in (False, True):
            got = (await here.get("/user/balance", fields=fields)).json
            assert got["is_available"] is not settled
            assert got["balance_infos"] == [
                {
                    "currency": "CNY",
                    "total_balance": "-0.05",
                    "granted_balance": "0.00",
                    "topped_up_balance": "-0.05",
                }
            ]
            await here.app.store.books.settle_hours(here.app.platform.clock() + 3600)
        assert (await here.ask(chat(stream=False), key="key-of-later")).status == 402

    play(tmp_path, good, act=act, model=MODEL_ROW)


async def new_api(here: Stage, fields: dict[str, str]) -> tuple[float, float, dict[str, Any]]:
    """(hard limit, used, the token's data), as the three queries say it."""
    limit = (await here.get("/v1/dashboard/billing/subscription", fields=fields)).json
    assert set(limit) == {
        "object",
        "has_payment_method",
        "soft_limit_usd",
        "hard_limit_usd",
        "system_hard_limit_usd",
        "access_until",
    }
    dates = "?start_date=2020-01-01&end_date=2020-02-01"
    usage = (await here.get("/dashboard/billing/usage" + dates, fields=fields)).json
    assert usage["object"] == "list"
    token = (await here.get("/api/usage/token", fields=fields)).json
    assert (token["code"], token["message"], token["data"]["object"]) == (True, "ok", "token_usage")
    return limit["hard_limit_usd"], usage["total_usage"] / 100, token["data"]


def test_new_apis_three_numbers_agree(tmp_path: Path) -> None:
    """PROVIDERS 4.3: what is left is hard_limit_usd - total_usage/100, whatever dates are asked for; the token's own
    numbers say the same in its units; who has no limit has 100000000."""

    async def act(here: Stage) -> None:
        rich = await an_account(here, "rich")
        await deposit(here, "rich", "topped_up", 10)
        await used(here, rich, 3)
        limit, spent, token = await new_api(here, rich)
        assert (round(limit - spent, 6), spent) == (9.925, 0.075)
        assert (token["total_used"], token["total_available"], token["total_granted"]) == (37_500, 4_962_500, 5_000_000)
        assert (token["unlimited_quota"], token["expires_at"], token["model_limits_enabled"]) == (False, 0, False)
        # Another key of the account shares its money, and has used nothing itself.
        other = await a_key(here, "rich", "another-key")
        limit, spent, _ = await new_api(here, other)
        assert (limit, spent) == (9.925, 0.0)
        endless = await an_account(here, "endless", post_paid=True)
        limit, _, token = await new_api(here, endless)
        assert limit == 100_000_000
        assert token["unlimited_quota"] is True

    play(tmp_path, good, act=act, model=MODEL_ROW)


def test_limits_of_a_key_are_its_quota(tmp_path: Path) -> None:
    """A key that may spend so much in a month has that, less what it spent, whatever its account has."""

    async def act(here: Stage) -> None:
        await an_account(here, "rich", post_paid=True)
        limits = Limits(month_pico=100 * UNIT_PICO, expires_at=4e9, models=frozenset({"deepseek-chat"}))
        fields = await a_key(here, "rich", "limited-key", limits=limits)
        await used(here, fields)
        limit, spent, token = await new_api(here, fields)
        assert (limit, spent) == (100.0, 0.025)
        assert (token["expires_at"], token["model_limits"]) == (4_000_000_000, {"deepseek-chat": True})
        fields = await a_key(here, "rich", "day-limited", limits=Limits(month_pico=UNIT_PICO, day_pico=UNIT_PICO // 2))
        assert (await new_api(here, fields))[0] == 0.5

    play(tmp_path, good, act=act, model=MODEL_ROW)


def test_usage_is_the_keys_own(tmp_path: Path) -> None:
    """I10: a key reads what it used itself; with the switch what its account used; of another account nothing, neither
    by asking for its key nor by any other parameter. The account is never asked for."""

    async def act(here: Stage) -> None:
        one = await an_account(here, "one", post_paid=True)
        two = await a_key(here, "one", "second-of-one")
        sees = await a_key(here, "one", "sees-all-one", switches={"sees": "account"})
        canary = await an_account(here, "canary", post_paid=True)
        await used(here, one, 2)
        await used(here, two)
        await used(here, canary, 5)

        async def rows(fields: dict[str, str], query: str = "") -> list[Any]:
            got = await here.get("/v1/usage?group_by=key,model" + query, fields=fields)
            assert got.status == 200, got.body
            assert b"canary" not in got.body or fields is canary
            return [(row["key"], row["requests"], row["amount"]) for row in got.json["data"]]

        assert await rows(one) == [("key-of-one", 2, "0.05")]
        assert await rows(two) == [("econd-of-one", 1, COST)]
        assert await rows(sees) == [("econd-of-one", 1, COST), ("key-of-one", 2, "0.05")]
        assert await rows(sees, "&key=key-of-one") == [("key-of-one", 2, "0.05")]
        assert await rows(sees, "&key=key-of-canary") == []
        assert await rows(canary) == [("ey-of-canary", 5, "0.125")]
        for query in ("key=key-of-canary", "key=econd-of-one", "key="):
            got = await here.get(f"/v1/usage?{query}", fields=one)
            assert (got.status, got.error["param"]) == (403, "key")
        for query in (
            "account=canary",
            "host=host0",
            "group_by=account",
            "group_by=host",
            "limit=0",
            "start=x",
            "after=x",
        ):
            got = await here.get(f"/v1/usage?{query}", fields=one)
            assert (got.status, got.error["param"]) == (400, query.partition("=")[0])
        assert (await here.get("/v1/usage", fields={})).status == 401
        assert (await here.get("/v1/usage", "POST", fields=one)).status == 405

    play(tmp_path, good, act=act, model=MODEL_ROW)


def test_usage_adds_up_and_tells_no_costs(tmp_path: Path) -> None:
    """Tokens by their class, money by its fund, in Beijing's days; what the host costs us is not in it."""

    async def act(here: Stage) -> None:
        fields = await an_account(here, "one")
        await deposit(here, "one", "granted", 100)
        await deposit(here, "one", "topped_up", 1)
        await used(here, fields, 2)
        got = (await here.get("/usage?group_by=day", fields=fields)).json
        assert (got["object"], got["group_by"], got["next"]) == ("list", ["day"], None)
        (row,) = got["data"]
        assert len(row.pop("day")) == 10
        assert row == {
            "requests": 2,
            "posted": 2,
            "estimated": 0,
            "prompt_tokens": 22,
            "prompt_cache_hit_tokens": 6,
            "prompt_cache_miss_tokens": 16,
            "completion_tokens": 14,
            "reasoning_tokens": 0,
            "searches": 0,
            "pack_units": 0,
            "currency": "CNY",
            "amount": "0.05",
            "granted": "0.05",
            "topped_up": "0.00",
            "on_credit": "0.00",
        }
        assert (await here.get("/usage?end=2020-01-01", fields=fields)).json["data"] == []

    play(tmp_path, good, act=act, model=MODEL_ROW)


def table(got: Answer) -> list[dict[str, str]]:
    assert got.status == 200
    assert got.complete
    assert got.fields["content-type"] == "text/csv; charset=utf-8"
    assert got.fields["content-disposition"].startswith("attachment")
    return list(csv.DictReader(io.StringIO(got.body.decode(), newline="")))


def test_usage_as_csv(tmp_path: Path) -> None:
    """The same rows as a table, for who asks for one by name or by what is accepted; a refusal is JSON all the same."""

    async def act(here: Stage) -> None:
        fields = await an_account(here, "one", post_paid=True)
        await used(here, fields, 2)
        for got in (
            await here.get("/v1/usage?group_by=model&format=csv", fields=fields),
            await here.get("/v1/usage?group_by=model", fields={**fields, "Accept": "text/csv"}),
        ):
            (row,) = table(got)
            assert (row["model"], row["requests"], row["amount"]) == ("deepseek-chat", "2", "0.05")
        empty = await here.get("/v1/usage?format=csv&end=2020-01-01", fields=fields)
        assert empty.body.startswith(b"requests,posted,")
        assert table(empty) == []
        got = await here.get("/v1/usage?format=csv&limit=1&group_by=x", fields=fields)
        assert got.error["param"] == "group_by"
        head = await here.get("/v1/usage?format=csv", "HEAD", fields=fields)
        assert (head.status, head.body) == (200, b"")

    play(tmp_path, good, act=act, model=MODEL_ROW)


async def admin(here: Stage, path: str) -> Answer:
    """Ask at the socket in the home."""
    client = Client(*await asyncio.open_unix_connection(str(here.app.settings.socket_path())))
    here.clients.append(client)
    client.send("GET", f"/admin/v1{path}")
    return await client.rest()


def test_operators_read_everything(tmp_path: Path) -> None:
    """Sums of all accounts with costs, calls one by one in pages, an account's own without hosts and costs, a
    statement that adds up; and each as a table."""

    async def act(here: Stage) -> None:
        one = await an_account(here, "one", post_paid=True)
        await deposit(here, "one", "topped_up", 1)
        two = await an_account(here, "two", post_paid=True)
        await used(here, one, 3)
        await used(here, two)
        got = (await admin(here, "/usage?group_by=account,host")).json["data"]
        assert [(row["account"], row["host"], row["requests"]) for row in got] == [
            ("one", "host0", 3),
            ("two", "host0", 1),
        ]
        assert {"cost", "cost_currency"} <= got[0].keys()
        assert len(table(await admin(here, "/usage?group_by=account&account=one&format=csv"))) == 1

        seen = list(_all(await _pages(here, "/calls?limit=3")))
        assert [row["account"] for row in seen] == ["two", "one", "one", "one"]
        assert seen[1]["paid"] == [{"source": "topped_up", "unit": "CNY", "amount": COST}]
        assert (seen[0]["kind"], seen[0]["cause"], seen[0]["host"]) == ("posted", "stop", "host0")
        assert len(table(await admin(here, "/calls?format=csv&account=one"))) == 3
        assert table(await admin(here, "/calls?format=csv"))[1]["paid"] == f"topped_up={COST}"

        got = (await admin(here, "/accounts/one/usage?group_by=key")).json["data"]
        assert [(row["key"], row["requests"]) for row in got] == [("key-of-one", 3)]
        assert "cost" not in got[0]
        assert (await admin(here, "/accounts/one/usage?group_by=host")).status == 400
        got = (await admin(here, "/accounts/one/calls")).json["data"]
        assert len(got) == 3
        assert not {"host", "cost"} & got[0].keys()

        month = (await here.get("/usage?group_by=day", fields=one)).json["data"][0]["day"][:7]
        got = (await admin(here, f"/accounts/one/statement?month={month}")).json
        assert got["opening"] == [
            {"currency": "CNY", "granted": "0.00", "topped_up": "1.00", "post_paid": "0.00", "total": "1.00"}
        ]
        assert got["closing"][0]["total"] == "0.925"
        assert [(line["what"], line["fund"], line["amount"]) for line in got["lines"]] == [
            ("usage", "topped_up", "-0.075")
        ]
        rows = table(await admin(here, f"/accounts/one/statement?month={month}&format=csv"))
        assert [row["amount"] for row in rows] == ["-0.075"]
        for path in ("/accounts/nobody/usage", "/usage?account=nobody", "/accounts/nobody/statement?month=2026-11"):
            assert (await admin(here, path)).status == 404
        assert (await admin(here, "/accounts/one/statement")).json["month"] == month
        for path in ("/accounts/one/statement?month=11", "/usage?accounts=one"):
            assert (await admin(here, path)).status == 400

    play(tmp_path, good, act=act, model=MODEL_ROW)


async def _pages(here: Stage, path: str) -> list[Any]:
    pages = [(await admin(here, path)).json]
    while pages[-1]["next"] is not None:
        pages.append((await admin(here, f"{path}&after={pages[-1]['next']}")).json)
    return pages


def _all(pages: list[Any]) -> Iterator[Any]:
    for page in pages:
        yield from page["data"]


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "-2+3"])
def test_names_are_no_formulas_in_tables(tmp_path: Path, name: str) -> None:
    """Case 114: an account with a formula for a name is a text in every export."""

    async def act(here: Stage) -> None:
        await used(here, await an_account(here, name, post_paid=True))
        for path in ("/usage?group_by=account&format=csv", "/calls?format=csv"):
            assert table(await admin(here, path))[0]["account"] == "'" + name

    play(tmp_path, good, act=act, model=MODEL_ROW)


def test_questions_of_an_account_wait_for_each_other(tmp_path: Path) -> None:
    """Many at once are answered all the same, up to a bound; beyond it 429 says when to come back, and other accounts
    are not concerned."""

    async def act(here: Stage) -> None:
        one, two = await an_account(here, "one"), await an_account(here, "two")
        got = await asyncio.gather(
            *(here.get("/v1/usage?start=0&group_by=hour", fields=one) for _ in range(12)),
            here.get("/v1/usage", fields=two),
        )
        assert [answer.status for answer in got] == [200] * 13
        got = await asyncio.gather(*(here.get("/v1/usage?start=0&group_by=hour", fields=one) for _ in range(40)))
        for answer in got:
            assert answer.status in {200, 429}
            if answer.status == 429:
                assert answer.fields["retry-after"] == "1"
        assert (await here.get("/v1/usage", fields={"Authorization": f"Bearer {KEY}"})).status == 200
        assert json.loads((await here.get("/v1/usage", fields=one)).body)["data"] == []

    play(tmp_path, good, act=act)
