"""Two nodes over one PostgreSQL: what is said of the catalogue at one holds at the other within a second."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from faults.auditor import audit_at
from faults.cluster import Cluster, Host, Node, asks, cluster, eventually
from faults.stage import HOST_KEY, MODEL
from faults.upstream import Upstream

ACME = '[[accounts]]\nname = "acme"\nkeys = ["key-of-acme"]\npost_paid = true\nconcurrency = 100\n'
SOON_S = 1.0


def play(folder: Path, act: Callable[[Cluster, Upstream, Host], Awaitable[None]]) -> None:
    """`act` gets the nodes and a second host, which no file knows; then the ledger is sound, and nothing is open."""

    async def run() -> None:
        first, second = Host(), Host()
        first.gate = asyncio.Event()
        async with cluster(folder, first, ACME) as here, Upstream(second) as other:
            await act(here, other, second)
            await eventually(lambda: here.open_holds() == 0, "all is booked")
            assert audit_at(here.address) == []

    uvloop.run(run())


def priced(amount: int) -> list[dict[str, str]]:
    amounts = dict.fromkeys(("prompt_miss", "prompt_hit", "completion"), str(amount))
    return [{"valid_from": "2026-01-01", **amounts}]


async def put(here: Cluster, node: Node, section: str, name: str, **row: Any) -> float:
    """When it was answered."""
    told = await here.admin(node, "PUT", f"/catalogue/{section}/{name}", {"row": row})
    assert told.status == 200, told.body
    return time.monotonic()


async def within_a_second(at: float, seen: Callable[[], Awaitable[bool]], what: str) -> None:
    await eventually(seen, what)
    assert time.monotonic() - at <= SOON_S, what


async def status(node: Node, tag: str, model: str = MODEL) -> int:
    client = await node.open({**asks(tag, stream=False), "model": model})
    try:
        return (await client.rest()).status
    finally:
        client.reset()


async def now(here: Cluster, node: Node, model: str = MODEL) -> str:
    """The name of the price there."""
    rows = (await here.admin(node, "GET", "/prices")).page["data"]
    return next((row["version"] for row in rows if row["model"] == model), "")


def test_a_price_is_changed(tmp_path: Path) -> None:
    """At one node; the other charges it within a second, three times in a row, each under its own name. It is in the
    log once, and a node that starts anew knows it."""

    async def act(here: Cluster, other: Upstream, second: Host) -> None:
        assert here.host.gate is not None
        here.host.gate.set()
        one, two = here.nodes
        names = []
        for amount in (10, 20, 30):
            before = await now(here, two)
            at = await put(here, one, "models", MODEL, prices=priced(amount))

            async def changed(before: str = before) -> bool:
                return await now(here, two) != before

            await within_a_second(at, changed, "the other node has the price")
            assert await status(two, f"acme/price{amount}") == 200
            names.append(await now(here, one))
        await eventually(lambda: here.open_holds() == 0, "all is booked")
        rows = here.ask("SELECT price, owed_pico / (prompt_miss + completion) FROM resolutions ORDER BY hold_seq")
        assert rows == [(name, amount * 10**6) for name, amount in zip(names, (10, 20, 30), strict=True)]
        assert len(set(names)) == 3
        logged = here.ask("SELECT target FROM audit WHERE action = 'PUT /catalogue/{section}/{name}'")
        assert logged == [(f"models.{MODEL}",)] * 3
        two.signal(signal.SIGTERM)
        assert await two.ended() == 0
        await two.start()
        assert await now(here, two) == names[-1]

    play(tmp_path, act)


def test_models_and_hosts_come_and_go(tmp_path: Path) -> None:
    """A host and a model that no file knows, said at one node, serve at the other; the host is switched under a model
    that serves, and a stream that runs at the first of them ends there; what is taken away is refused. Each within a
    second."""

    async def act(here: Cluster, other: Upstream, second: Host) -> None:
        assert here.host.gate is not None
        one, two = here.nodes
        running = await here.open(two, "acme/runs")
        await running.until(b"word0")
        (tmp_path / "second.key").write_text(HOST_KEY)
        (tmp_path / "second.key").chmod(0o600)
        row = {"base_url": other.base_url, "dialect": "deepseek", "api_key": f"file:{tmp_path}/second.key"}
        await put(here, one, "hosts", "second", **row)
        at = await put(here, one, "models", "fresh", hosts=["second"])

        async def fresh() -> bool:
            return await status(two, "acme/fresh", "fresh") == 200

        await within_a_second(at, fresh, "the other node serves the model")
        at = await put(here, one, "models", MODEL, hosts=["second"])

        async def switched() -> bool:
            rows = (await here.admin(two, "GET", "/models")).page["data"]
            return bool(next(row["hosts"] for row in rows if row["name"] == MODEL) == ["second"])

        await within_a_second(at, switched, "the other node goes to the other host")
        before = len(here.host.dispatches)
        assert await status(two, "acme/switched") == 200
        await put(here, two, "hosts", "mine", off=True)
        at = time.monotonic()
        assert (await here.admin(one, "DELETE", "/catalogue/models/fresh")).status == 200

        async def gone() -> bool:
            return await status(two, "acme/gone", "fresh") == 400

        await within_a_second(at, gone, "nobody can ask for the model")
        assert len(here.host.dispatches) == before
        assert {each.tag for each in second.dispatches} >= {"acme/fresh", "acme/switched"}
        here.host.gate.set()
        assert (await running.rest()).failure is None

    play(tmp_path, act)


def test_what_is_refused_at_one_is_not_heard_of_at_the_other(tmp_path: Path) -> None:
    """A row that cannot be used, and the later of two changes at once: nothing of it is kept, and both nodes go on."""

    async def act(here: Cluster, other: Upstream, second: Host) -> None:
        assert here.host.gate is not None
        here.host.gate.set()
        one, two = here.nodes
        bad = {"row": {"hosts": ["nowhere"]}}
        refused = await here.admin(one, "PUT", f"/catalogue/models/{MODEL}", bad)
        assert (refused.status, refused.page["error"]["param"]) == (400, f"models.{MODEL}.hosts")
        rows = [{"row": {"prices": priced(amount)}} for amount in (1, 2)]
        told = await asyncio.gather(
            *(
                here.admin(node, "PUT", f"/catalogue/models/{MODEL}", row)
                for node, row in zip(here.nodes, rows, strict=True)
            )
        )
        assert sorted(each.status for each in told) in ([200, 200], [200, 409])
        kept = here.ask('SELECT "row" FROM catalogue_rows')
        assert len(kept) == 1

        async def agree() -> bool:
            return await now(here, one) == await now(here, two) != ""

        await eventually(agree, "both have the same price")
        assert [await status(node, "acme/after") for node in here.nodes] == [200, 200]

    play(tmp_path, act)
