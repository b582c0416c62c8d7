"""`moonpool serve --workers 2`: processes that share a port, a database and a store of limits, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from faults.auditor import audit_at, written_at
from faults.stage import Client
from moonpool.twin import Twin
from postgres import server
from valkey_server import valkey_server

MOONPOOL = Path(sys.executable).with_name("moonpool")
FLASH = "deepseek-flash"
_CONFIG = """
workers = 2
store = "env:MOONPOOL_TEST_STORE"
limits = "{limits}"
[embedded]
enabled = false
[edge]
drain_s = 5.0
[hosts.twin]
base_url = "{twin}"
dialect = "deepseek"
api_key = "sk-pool.1"
[models.{model}]
hosts = ["twin"]
"""


async def _until(true: Callable[[], Any], within_s: float = 20.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


class _Served:
    """A server with two workers before a twin."""

    def __init__(self, folder: Path, twin: Twin, limits: str) -> None:
        self.home = folder / "home"
        self.config = folder / "moonpool.toml"
        self.config.write_text(_CONFIG.format(limits=limits, twin=twin.base_url, model=FLASH))
        self.database = server().empty()
        self._said = folder / "said.txt"
        self.port = 0
        self.key = ""

    async def start(self) -> None:
        with self._said.open("wb") as said:
            self.process = await asyncio.create_subprocess_exec(
                str(MOONPOOL), *self._words("serve"), "--port", "0",
                stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said, env=self._environ(),
            )  # fmt: skip
        found = await _until(
            lambda: re.search(r"http://127.0.0.1:(\d+)/v1\s+API key +(\S+)", self.said()) or self._dead()
        )
        self.port, self.key = int(found[1]), found[2]
        await self.listening(2)

    def _dead(self) -> None:
        assert self.process.returncode is None, self.said()

    def said(self) -> str:
        return self._said.read_text()

    def workers(self) -> list[int]:
        return _children(self.process.pid)

    async def listening(self, times: int) -> None:
        """Until so many workers began to listen, since the server was started."""
        await _until(lambda: self.said().count('"event":"started"') >= times)

    async def command(self, *words: str) -> Any:
        done = await asyncio.create_subprocess_exec(
            str(MOONPOOL), *self._words(*words), "--json", stdout=asyncio.subprocess.PIPE, env=self._environ()
        )
        out, _ = await done.communicate()
        assert done.returncode == 0
        return json.loads(out)

    async def ask(self, key: str = "") -> int:
        """The status of one request over a connection of its own."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        body = json.dumps({"model": FLASH, "messages": [{"role": "user", "content": "Hi"}]}).encode()
        client.send("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key or self.key}"})
        try:
            return (await client.rest()).status
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        finally:
            await client.closed()

    async def answers(self, count: int, key: str = "") -> set[int]:
        return {await self.ask(key) for _ in range(count)}

    def _words(self, *words: str) -> list[str]:
        return [*words, "--home", str(self.home), "--config", str(self.config)]

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "MOONPOOL_TEST_STORE": self.database}


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _play(folder: Path, act: Callable[[_Served], Any]) -> _Served:
    async def run() -> _Served:
        with valkey_server() as valkey:
            async with Twin("deepseek") as twin:
                served = _Served(folder, twin, valkey.url)
                await served.start()
                try:
                    await act(served)
                finally:
                    if served.process.returncode is None:
                        served.process.terminate()
                    await served.process.wait()
        return served

    return uvloop.run(run())


def test_two_of_them(tmp_path: Path) -> None:
    """Clients reach both workers; a key that is made or deleted is known to both within a second; after SIGTERM both
    end, with exit code 0, and every request has its record."""

    async def act(here: _Served) -> None:
        deadline = time.monotonic() + 20
        while _nodes_that_held(here.database) < 2:
            assert await here.ask() == 200
            assert time.monotonic() < deadline
        made = await here.command("keys", "create", "--name", "more")
        await asyncio.sleep(0)
        since = time.monotonic()
        while await here.answers(8, made["key"]) != {200}:
            assert time.monotonic() < since + 2
        await here.command("keys", "delete", made["id"])
        since = time.monotonic()
        while await here.answers(8, made["key"]) != {401}:
            assert time.monotonic() < since + 2
        assert await here.answers(4) == {200}
        here.process.terminate()
        assert await asyncio.wait_for(here.process.wait(), 15) == 0

    here = _play(tmp_path, act)
    assert audit_at(here.database) == []
    ids, resolved = written_at(here.database)
    assert ids == set(resolved)
    assert set(resolved.values()) == {"posted"}
    assert here.said().count("Moonpool is running") == 1


def test_one_of_them_dies(tmp_path: Path) -> None:
    """Case 69: whichever worker is killed, the other goes on serving, and another takes its place, the socket for
    commands included."""

    async def act(here: _Served) -> None:
        for turn, victim in enumerate(here.workers()):
            os.kill(victim, signal.SIGKILL)
            since = time.monotonic()
            await _until(lambda victim=victim: victim not in here.workers())  # type: ignore[misc]
            while await here.answers(6) != {200}:
                assert time.monotonic() < since + 5
            await here.listening(3 + turn)
        assert (await here.command("keys", "list"))[0]["name"] == "first"
        assert here.said().count('"event":"worker ended"') == 2

    here = _play(tmp_path, act)
    assert audit_at(here.database) == []


def test_who_looks_after_them_is_killed(tmp_path: Path) -> None:
    """Workers without the process that looks after them end as after SIGTERM, and leave nothing open."""

    async def act(here: _Served) -> None:
        assert await here.answers(8) == {200}
        workers = here.workers()
        here.process.kill()
        await here.process.wait()
        await _until(lambda: not any(Path(f"/proc/{each}").exists() for each in workers))

    here = _play(tmp_path, act)
    assert audit_at(here.database) == []
    ids, resolved = written_at(here.database)
    assert ids == set(resolved)


def _nodes_that_held(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM totals WHERE holds > 0").fetchone()
        assert row is not None
        return int(row[0])
