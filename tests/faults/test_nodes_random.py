"""Random work at two nodes while a nemesis harms them, in the manner of Jepsen. What is wanted and what is harmed comes
from a seed; MOONPOOL_TEST_NODES_SEED and MOONPOOL_TEST_NODES_S choose another, and for how long."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import uvloop

from faults.auditor import audit_at
from faults.cluster import Cluster, Host, Node, cluster, eventually, stop
from faults.history import ACCOUNTS, CODES, GIFT, LIMIT, Work, wrong

SEED = int(os.environ.get("MOONPOOL_TEST_NODES_SEED", "192"))
FOR_S = float(os.environ.get("MOONPOOL_TEST_NODES_S", "20"))
_CLIENTS = 8
_ACCOUNT = '[[accounts]]\nname = "{0}"\nkeys = ["key-of-{0}"]\npost_paid = false\nconcurrency = {1}\n'


def test_whatever_happens(tmp_path: Path) -> None:
    """Case 192: 8 clients chat, stream, hang up, pay in, redeem codes, make, use and delete keys at random, while nodes
    are killed, stopped, and cut off from PostgreSQL, Valkey or both. Healed, both serve again without help; the books
    are sound; each dispatch has its one record; no money came twice or went; no deleted key was let in; no more ran at
    once than the limits allow, and as much as they allow runs again."""

    async def run() -> None:
        pace = random.Random(SEED)
        host = Host(lambda: pace.uniform(0.005, 0.12))
        accounts = "".join(_ACCOUNT.format(name, LIMIT) for name in ACCOUNTS)
        async with cluster(tmp_path, host, accounts) as here:
            work = Work(here, SEED, await _prepared(here))
            clients = [asyncio.ensure_future(work.client(number)) for number in range(_CLIENTS)]
            await work.nemesis(FOR_S)
            work.over = True
            print(f"seed {SEED}", *work.harmed, sep="\n")
            await asyncio.gather(*clients)
            peak = dict(host.peak)
            for node in here.nodes:
                await work.heal(node)
            await _recovered(here)
            await work.finish()
            await stop(here)
            found = [f"{here.open_holds()} holds are open"] if here.open_holds() else []
            found += audit_at(here.address) + wrong(work)
            # A node that lost the store runs what it ran, and its share; the other all that the store allows.
            found += [f"{count} of {name} ran at once" for name, count in peak.items() if count > 2 * LIMIT]
            done = Counter((op.what, op.outcome, op.status) for op in work.ops)
            assert not found, "\n".join([*found[:20], *map(str, sorted(done.items()))])
            assert {op.outcome for op in work.ops} == {"ok", "failed", "unknown"}

    uvloop.run(run())


async def _prepared(here: Cluster) -> list[str]:
    """Some money, and codes."""
    for name, amount in zip(ACCOUNTS, ("100", "0.005"), strict=True):
        body = {"fund": "topped_up", "amount": amount, "currency": "CNY", "id": f"first.{name}"}
        assert (await here.admin(here.nodes[0], "POST", f"/accounts/{name}/deposits", body)).status < 300
    made = await here.admin(here.nodes[0], "POST", "/codes", {"gift": GIFT, "count": CODES})
    await here.acquainted()
    return [each["code"] for each in made.page["data"]]


async def _recovered(here: Cluster) -> None:
    """Without help: both serve, nothing is open, and of many streams exactly as many run as may."""
    for node in here.nodes:
        await eventually(lambda node=node: _serves(node), "it serves again", 30)  # type: ignore[misc]
    await eventually(lambda: here.open_holds() == 0, "what dead nodes left open is ended", 30)
    here.host.gate = asyncio.Event()
    await eventually(lambda: _exact(here), "the limit is exact again", 30)
    here.host.gate.set()


async def _serves(node: Node) -> bool:
    return await node.status("acme/after") == 200


async def _exact(here: Cluster) -> bool:
    clients = [await here.open(node, "acme/exact") for _ in range(2 * LIMIT) for node in here.nodes]
    count = Counter([await client.head() for client in clients])
    for client in clients:
        if client.status == 200:
            await client.until(b"word0")
    running = here.host.running["acme"]
    for client in clients:
        client.reset()
    await eventually(lambda: here.host.running["acme"] == 0, "the host is left alone")
    return (running, count) == (LIMIT, {200: LIMIT, 429: 3 * LIMIT})
