"""A whole server whose catalogue changes while it serves: prices, models and hosts that are said at run time.

Amounts are checked against the database with plain sqlite3, and against sums written by hand.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from admin_rig import ask
from faults.stage import DONE, MODEL, ROLE, Answer, Stage, chat, good, last, play, words
from faults.upstream import LAST_CHUNK, STREAM_HEAD, chunk, gate

MILLION = 10**6


def priced(factor: int) -> list[dict[str, str]]:
    amounts = {"prompt_miss": 10 * factor, "prompt_hit": factor, "completion": 100 * factor}
    return [{"valid_from": "2026-01-01", **{name: str(amount) for name, amount in amounts.items()}}]


def owed(factor: int) -> int:
    """What stage.USAGE costs by `priced(factor)`."""
    return factor * (8 * 10 + 3 * 1 + 7 * 100) * MILLION


async def put(here: Stage, section: str, name: str, **row: Any) -> None:
    await ask(here.app.platform, "PUT", f"/catalogue/{section}/{name}", {"row": row})


async def forget(here: Stage, section: str, name: str) -> None:
    await ask(here.app.platform, "DELETE", f"/catalogue/{section}/{name}")


async def whole(here: Stage, model: str = MODEL) -> Answer:
    return await here.ask(chat(stream=False, model=model))


def booked(path: Path) -> list[tuple[str, int, str]]:
    """(host, what is owed, by which price), oldest first."""
    with sqlite3.connect(path) as connection:
        return list(connection.execute("SELECT host, owed_pico, price FROM resolutions ORDER BY hold_seq"))


def test_a_model_that_is_said_at_run_time(tmp_path: Path) -> None:
    """The next request is served and charged by it; another price holds from the next on, under another name in the
    books; once it is taken away, nobody can ask for it. A restart changes none of that."""

    async def act(here: Stage) -> list[int]:
        statuses = [(await whole(here, "fresh")).status]
        for factor in (1, 3):
            await put(here, "models", "fresh", hosts=["host0"], prices=priced(factor))
            statuses.append((await whole(here, "fresh")).status)
        return statuses

    async def again(here: Stage) -> list[int]:
        statuses = [(await whole(here, "fresh")).status]
        await forget(here, "models", "fresh")
        statuses.append((await whole(here, "fresh")).status)
        return statuses

    async def after(here: Stage) -> list[int]:
        return [(await whole(here, "fresh")).status]

    assert play(tmp_path, good, act=act)[0] == [400, 200, 200]
    assert play(tmp_path, good, act=again)[0] == [200, 400]
    statuses, path = play(tmp_path, good, act=after)
    assert statuses == [400]
    rows = booked(path)
    assert [amount for _, amount, _ in rows] == [owed(1), owed(3), owed(3)]
    first, second, third = (price for _, _, price in rows)
    assert second == third != first
    assert first.startswith("models.fresh#")
    assert second.endswith("@2026-01-01")


def test_what_runs_keeps_what_it_found(tmp_path: Path) -> None:
    """A stream whose model, host and price are all taken away under it ends as it began, and is charged as it was said
    then; meanwhile others are answered elsewhere, at what holds now."""
    go = asyncio.Event()

    def slow(request: Any) -> Any:
        if json.loads(request.body).get("stream"):
            return [
                STREAM_HEAD,
                chunk(ROLE + words(1)[0]),
                gate(go),
                chunk(b"".join(words(3)) + last() + DONE),
                LAST_CHUNK,
            ]
        return good(request)

    async def act(here: Stage) -> Answer:
        running = await here.open(chat())
        await running.until(b"word0")
        await put(here, "models", MODEL, hosts=["host1"], prices=priced(2))
        await put(here, "hosts", "host0", off=True)
        assert (await whole(here)).status == 200
        await put(here, "models", MODEL, off=True)
        refused = await whole(here)
        assert (refused.status, refused.error["param"]) == (400, "model")
        go.set()
        return await running.rest()

    answer, path = play(tmp_path, slow, good, act=act, model={"hosts": ["host0", "host1"], "prices": priced(1)})
    assert (answer.complete, answer.failure) == (True, None)
    assert answer.text == "word0 word0 word1 word2 "
    rows = booked(path)
    assert [(host, amount) for host, amount, _ in rows] == [("host0", owed(1)), ("host1", owed(2))]
    assert rows[0][2] == f"models.{MODEL}@2026-01-01"


def test_who_waits_for_a_host_that_is_switched_off_goes_elsewhere(tmp_path: Path) -> None:
    """What waited in its line is answered by the other at once, and not one request more comes to it."""
    go = asyncio.Event()

    def full(request: Any) -> Any:
        return [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), chunk(last() + DONE), LAST_CHUNK]

    async def act(here: Stage) -> None:
        await put(here, "hosts", "host0", concurrency=1)
        running = await here.open(chat())
        await running.until(b"word0")
        waiting = [await here.open(chat(stream=False)) for _ in range(3)]
        fleet = here.app.platform.fleet
        async with asyncio.timeout(10):
            while fleet.waiting < len(waiting):  # noqa: ASYNC110 - a plain number
                await asyncio.sleep(0)
        await put(here, "models", MODEL, hosts=["host1"])
        assert [(await client.rest()).status for client in waiting] == [200] * 3
        assert [len(host.requests) for host in here.hosts] == [1, 3]
        go.set()
        assert (await running.rest()).failure is None

    play(tmp_path, full, good, act=act, model={"hosts": ["host0"]})


def test_a_bad_row_changes_nothing(tmp_path: Path) -> None:
    """It is refused over the socket of commands as well, while requests go on at what held."""

    async def act(here: Stage) -> None:
        platform = here.app.platform
        before = platform.catalogue
        for row in ({"hosts": ["nowhere"]}, {"prices": [{"completion": "1"}]}, {"window": "x"}, {"can": ["fly"]}):
            reader, writer = await asyncio.open_unix_connection(here.app.settings.socket_path())
            body = json.dumps({"row": row}).encode()
            head = f"PUT /admin/v1/catalogue/models/{MODEL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            await writer.wait_closed()
            assert platform.catalogue is before
            assert (await whole(here)).status == 200
        assert platform.offer.rows.list() == ()

    _, path = play(tmp_path, good, act=act, model={"prices": priced(1)})
    assert [amount for _, amount, _ in booked(path)] == [owed(1)] * 4
