"""`moonpool serve` as a process of its own: asked to stop, and killed, with streams open."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from typing import Any

import uvloop

from faults.auditor import audit
from faults.stage import DONE, ROLE, Client, Served, chat, good, last, records, served, sound, streamed, words
from faults.upstream import STREAM_HEAD, Upstream, chunk, gate, stall

STREAMS = 50
KILLS = 10


def test_asked_to_stop_it_drains_then_ends_what_runs(tmp_path: Path) -> None:
    """Case 68: on SIGTERM no new connection; a stream that ends in time ends well, the others with an error event
    within drain_s; exit 0; all settled."""
    drain_s = 1.0

    def script(request: Any) -> Any:
        if request.number == 0:
            return [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), *map(chunk, [last(), DONE]), b"0\r\n\r\n"]
        if request.number < STREAMS:
            return [*streamed(ROLE, *words(2), end=False), stall]
        return [stall]

    go = asyncio.Event()

    async def run() -> Served:
        async with Upstream(script) as host, served(tmp_path, host.base_url, drain_s=drain_s) as server:
            first = await server.open()
            await first.until(b"word0")
            clients = [await server.open() for _ in range(STREAMS - 1)]
            for client in clients:
                await client.until(b"word1")
            silent = [await server.open(chat(number == 0)) for number in range(2)]
            await host.until_asked(STREAMS + 2)
            began = asyncio.get_running_loop().time()
            server.signal(signal.SIGTERM)
            refused = await _until_refused(server.port)
            assert refused, "a new connection was served while draining"
            go.set()
            got = await first.rest()
            assert got.failure is None
            for client in clients:
                got = await client.rest()
                assert got.failure is not None
                assert (got.failure["code"], got.complete) == ("overloaded", True)
                assert got.text == "word0 word1 "
            for client in silent:
                assert (await client.rest()).status == 503
            assert await server.ended() == 0
            taken = asyncio.get_running_loop().time() - began
            assert taken < drain_s + 5, f"{taken:.1f} s"
            for client in [first, *clients, *silent]:
                await client.closed()
            return server

    server = uvloop.run(run())
    sound(server.path)
    found = records(server.path)
    assert len(found) == STREAMS + 2
    assert [record.kind for record in found] == ["posted"] * STREAMS + ["voided"] * 2
    assert sum(record.estimated for record in found) == STREAMS - 1
    assert b'"stopped"' in server.said
    assert b"Traceback" not in server.said


async def _until_refused(port: int) -> bool:
    """Whether connections come to be refused (or closed unserved) before anything is answered on them."""
    async with asyncio.timeout(10):
        while True:
            try:
                client = Client(*await asyncio.open_connection("127.0.0.1", port))
            except OSError:
                return True
            try:
                client.send("GET", "/health", fields={"Connection": "close"})
                await client.head()
            except (OSError, EOFError):
                return True
            finally:
                await client.closed()


def test_killed_at_any_moment_it_loses_no_record(tmp_path: Path) -> None:
    """Case 65: SIGKILL with streams open, over and over: after each start no hold is open, and in the end there is one
    record for each dispatch that the host saw."""
    chance = random.Random(65)

    def script(request: Any) -> Any:
        kind = request.number % 3
        if kind == 0 or b"at last" in request.body:
            return good(request)
        if kind == 1:
            return [*streamed(ROLE, *words(3), end=False), stall]
        return [stall]

    async def one(server: Served, number: int) -> None:
        try:
            client = await server.open(chat(number % 5 > 0))
        except OSError:
            return
        try:
            await client.rest()
        except (OSError, EOFError, ValueError):
            pass
        finally:
            await client.closed()

    async def run() -> tuple[Path, int]:
        async with Upstream(script) as host, served(tmp_path, host.base_url) as server:
            for turn in range(KILLS):
                tasks = [asyncio.ensure_future(one(server, number)) for number in range(STREAMS)]
                await host.until_asked(len(host.requests) + chance.randrange(1, STREAMS))
                server.signal(signal.SIGKILL)
                await server.ended()
                await asyncio.gather(*tasks)
                assert audit(server.path) == [], turn
                await server.start()
                sound(server.path)
            client = await server.open(chat(False, user="at last"))
            assert (await client.rest()).status == 200
            await client.closed()
            server.signal(signal.SIGTERM)
            assert await server.ended() == 0
            return server.path, len(host.requests)

    path, asked = uvloop.run(run())
    sound(path)
    found = records(path)
    assert sum(record.attempts if record.kind != "recovered" else 1 for record in found) >= asked
    assert sum(record.kind == "recovered" for record in found) > 0
    assert {record.kind for record in found} <= {"posted", "voided", "recovered"}
    assert not any(record.owed_pico for record in found if record.kind == "recovered")
