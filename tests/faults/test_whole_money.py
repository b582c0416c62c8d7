"""Money and tenants, asked of a whole server: who pays what under load, and that nobody reads of anybody else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from faults.stage import (
    DONE,
    KEY,
    ROLE,
    Stage,
    answer,
    chat,
    good,
    last,
    only,
    play,
    records,
    streamed,
    whole_body,
    words,
)
from faults.upstream import chunk, gate
from moonpool.settings import Log
from moonpool.state.base import Deposit
from moonpool.words import Account, Key

UNIT = 10**12


async def _account(here: Stage, name: str, **how: Any) -> str:
    """An account with one key; gives the key."""
    secret = f"key-of-{name}-0123456789"
    await here.app.store.keys.save_account(Account(name, name, **how))
    digest = hashlib.sha256(secret.encode()).digest()
    await here.app.store.keys.create(Key(f"{name:.12}", name, name, 0.0), digest)
    return secret


async def _pay(here: Stage, name: str, account: str, amount_pico: int) -> None:
    await here.app.store.books.deposit(Deposit(name, account, "topped_up", amount_pico, "CNY", "", 1.0))


async def _left(here: Stage, account: str) -> int:
    found = await here.app.store.books.balance(account, "CNY")
    assert found is not None
    return found.granted_pico + found.topped_up_pico + found.post_paid_pico


def test_the_rich_have_holds_like_everybody(tmp_path: Path) -> None:
    """Case 78: an account with money for a million requests has a hold for each dispatch, exactly, and is charged for
    each: no path of a trusted balance goes past the books."""

    async def act(here: Stage) -> int:
        key = await _account(here, "rich")
        await _pay(here, "d", "rich", 50_000 * UNIT)
        got = await asyncio.gather(*(here.ask(chat(stream=at % 2 == 0), key=key) for at in range(60)))
        assert [each.status for each in got] == [200] * 60
        assert len(here.host.requests) == 60
        return 50_000 * UNIT - await _left(here, "rich")

    spent, path = play(tmp_path, good, act=act)
    found = records(path)
    assert spent == sum(record.owed_pico for record in found) > 0
    assert len(found) == 60


def test_what_costs_more_than_its_hold_is_charged_in_full(tmp_path: Path) -> None:
    """Case 81: a host that counts far more than could be held: charged in full, below zero; the next request is refused
    with 402 and asks nobody."""
    usage = {"prompt_tokens": 4000, "completion_tokens": 900_000, "total_tokens": 904_000}

    async def act(here: Stage) -> None:
        key = await _account(here, "poor")
        await _pay(here, "d", "poor", UNIT)
        assert (await here.ask(chat(stream=False, max_tokens=1000), key=key)).status == 200
        assert await _left(here, "poor") < 0
        refused = await here.ask(chat(stream=False), key=key)
        assert (refused.status, refused.error["code"]) == (402, "20031")
        assert len(here.host.requests) == 1

    _, path = play(tmp_path, lambda _: [answer(whole_body(usage=usage))], act=act)
    assert only(path).completion == 900_000


def test_arrears_stop_new_requests_and_no_running_one(tmp_path: Path) -> None:
    """Case 88: an account falls into arrears, by the settlement of an hour, while its streams run: each of them ends as
    it would have and is charged; a new request is refused."""
    running = 20
    go = asyncio.Event()

    async def act(here: Stage) -> None:
        key = await _account(here, "hourly", post_paid=True, credit_pico=0)
        assert (await here.ask(chat(stream=False), key=key)).status == 200
        clients = [await here.open(key=key) for _ in range(running)]
        for client in clients:
            await client.until(b"word0")
        owed = await _left(here, "hourly")
        assert owed < 0
        assert await here.app.store.books.settle_hours(here.app.platform.clock()) == 1
        refused = await here.ask(key=key)
        assert (refused.status, refused.error["code"]) == (402, "20031")
        go.set()
        for client in clients:
            assert (await client.rest()).body.endswith(b"data: [DONE]\n\n")
        assert await _left(here, "hourly") == owed * (running + 1)

    def script(request: Any) -> Any:
        if not json.loads(request.body).get("stream"):
            return good(request)
        tail = [chunk(each) for each in (*words(2), last(), DONE)]
        return [*streamed(ROLE, *words(1), end=False), gate(go), *tail, b"0\r\n\r\n"]

    _, path = play(tmp_path, script, act=act)
    assert [record.kind for record in records(path)] == ["posted"] * (running + 1)


def test_money_that_comes_and_goes_at_once(tmp_path: Path) -> None:
    """Case 83: a hundred requests settle while twenty top-ups and grants come, some of them twice: the sum is exact."""

    async def act(here: Stage) -> int:
        key = await _account(here, "busy", concurrency=200)
        await _pay(here, "first", "busy", 100 * UNIT)
        asked = [here.ask(chat(stream=at % 3 == 0), key=key) for at in range(100)]
        paid = [_pay(here, f"d{at % 20}", "busy", UNIT) for at in range(30)]
        got, _ = await asyncio.gather(asyncio.gather(*asked), asyncio.gather(*paid))
        assert [each.status for each in got] == [200] * 100
        return await _left(here, "busy")

    left, path = play(tmp_path, good, act=act)
    assert left == 120 * UNIT - sum(record.owed_pico for record in records(path))


def test_no_tenant_reads_of_another(tmp_path: Path, capfd: Any) -> None:
    """Case 110: two hundred accounts, each with a word of its own in what it asks and in what it is answered, whole and
    streamed, at once, some hanging up in the middle: nobody reads another's word, and no log line has any."""
    tenants = 200
    luck = random.Random(110)

    def word(tenant: int) -> str:
        return f"canary-{tenant:03d}-{hashlib.sha256(str(tenant).encode()).hexdigest()[:12]}"

    def script(request: Any) -> Any:
        asked = json.loads(request.body)
        said = asked["messages"][0]["content"]
        if asked.get("stream"):
            return streamed(ROLE, *words(4, said + "-"), last(), DONE)
        return [answer(whole_body(said))]

    async def one(here: Stage, tenant: int, key: str) -> None:
        body = chat(stream=luck.random() < 0.6, messages=[{"role": "user", "content": word(tenant)}])
        client = await here.open(body, key=key)
        if body["stream"] and luck.random() < 0.3:
            await client.until(word(tenant).encode())
            client.reset()
            return
        got = await client.rest()
        assert got.status == 200
        assert word(tenant).encode() in got.body
        assert got.body.count(b"canary-") == got.body.count(word(tenant).encode())
        client.close()

    async def act(here: Stage) -> None:
        keys = [await _account(here, f"tenant{at:03d}", post_paid=True) for at in range(tenants)]
        for _ in range(2):
            order = list(enumerate(keys))
            luck.shuffle(order)
            for start in range(0, tenants, 50):
                await asyncio.gather(*(one(here, at, key) for at, key in order[start : start + 50]))
        for at in (0, 7, tenants - 1):
            told = await here.get("/user/balance", fields={"Authorization": f"Bearer {keys[at]}"})
            assert told.status == 200
            assert b"canary-" not in told.body
        assert (await here.get("/v1/usage", fields={"Authorization": f"Bearer {KEY}"})).json["data"] == []

    _, path = play(tmp_path, script, act=act, log=Log(requests=True))
    assert len(records(path)) == 2 * tenants
    assert b"canary-" not in path.read_bytes()
    assert "canary-" not in "".join(capfd.readouterr())
