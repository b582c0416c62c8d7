"""Two nodes over one PostgreSQL: what people are told is told once, and what is changed at both is one log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from faults.cluster import Cluster, Host, cluster, eventually

ACCOUNTS = """[alerts]
private = true
every_s = 0.1
[vault]
key = "file:{}"
[[accounts]]
name = "acme"
keys = ["key-of-acme"]
post_paid = true
"""


class _Hook:
    """Who is told."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        self.got.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()


def _on_two(folder: Path, act: Any) -> None:
    key = folder / "vault.key"
    key.write_text("k" * 40)
    key.chmod(0o600)

    async def run() -> None:
        async with cluster(folder, Host(), ACCOUNTS.format(key)) as here:
            await act(here)

    uvloop.run(run())


def test_an_alert_is_told_once(tmp_path: Path) -> None:
    """Both look at the same thresholds ten times a second and deliver what is due: each alert fires once, at one of
    them, and each message arrives once."""

    async def act(here: Cluster) -> None:
        hook = _Hook()
        listening = await asyncio.start_server(hook.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/money"
        new = {"kind": "balance_below", "threshold": "1", "currency": "CNY", "url": url}

        async def tell_me(number: int) -> str:
            made = await here.admin(here.nodes[number % 2], "POST", "/accounts/acme/alerts", new)
            assert made.status == 201, made.body
            return str(made.page["id"])

        await here.admin(here.nodes[0], "GET", "/accounts")  # the token is made once
        alerts = list(await asyncio.gather(*(tell_me(number) for number in range(12))))
        await eventually(lambda: len(hook.got) >= 12, "all are told")
        # Whoever looks and delivers once more has seen what the first left.
        for number in range(12, 15):
            alerts.append(await tell_me(number))
            await eventually(lambda number=number: len(hook.got) > number, "one more is told")
        delivered = "SELECT count(*), sum(tries), count(done_at) FROM deliveries"
        await eventually(lambda: here.ask(delivered) == [(15, 15, 15)], "all is written down")
        assert Counter(each["alert"] for each in hook.got) == Counter(alerts)
        assert len({each["id"] for each in hook.got}) == 15
        listening.close()

    _on_two(tmp_path, act)


def test_one_log_of_what_is_changed_at_both(tmp_path: Path) -> None:
    """Changes at both nodes at once are rows of one chain, each after the one before; both find it whole, and that one
    row was altered."""

    async def act(here: Cluster) -> None:
        await here.admin(here.nodes[0], "GET", "/accounts")

        async def change(number: int) -> int:
            made = await here.admin(here.nodes[number % 2], "POST", "/accounts", {"name": f"account-{number}"})
            return made.status

        assert set(await asyncio.gather(*(change(number) for number in range(40)))) == {201}
        for node in here.nodes:
            said = (await here.admin(node, "GET", "/audit/verify")).page
            assert said["ok"], said
            assert said["rows"] >= 40
        (last,) = here.ask("SELECT max(seq) FROM audit")
        here.ask(f"UPDATE audit SET target = 'somebody else' WHERE seq = {last[0] - 5}")
        for node in here.nodes:
            said = (await here.admin(node, "GET", "/audit/verify")).page
            assert not said["ok"]

    _on_two(tmp_path, act)
