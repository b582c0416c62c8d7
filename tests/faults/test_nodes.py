"""Two nodes over one PostgreSQL and one Valkey: one limit, one code, one word about a key, and what a node does that is
cut off from either, stopped, or killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from faults.auditor import audit_at
from faults.cluster import Cluster, Host, Node, asks, cluster, eventually, stop
from faults.stage import Client

_ACME = '[[accounts]]\nname = "acme"\nkeys = ["key-of-acme"]\npost_paid = true\nconcurrency = {}\n'


def _play(
    folder: Path,
    act: Callable[[Cluster], Awaitable[Any]],
    *,
    concurrency: int,
    count: int = 2,
    stopped: bool = True,
    call_s: float = 0.1,
) -> Host:
    """Run `act` with an account `acme` on credit; then the ledger is sound, and nothing of it is open."""

    async def run() -> Host:
        host = Host()
        host.gate = asyncio.Event()
        async with cluster(folder, host, _ACME.format(concurrency), count, call_s=call_s) as here:
            await act(here)
            for client in here.clients:
                client.reset()
            if stopped:
                await stop(here)
            assert here.open_holds() == 0
            assert audit_at(here.address) == []
        return host

    return uvloop.run(run())


async def _opened(here: Cluster, node: Node, count: int, tag: str) -> tuple[list[Client], list[str]]:
    """So many streams at once: those that run, and the codes that the others were refused with."""
    clients = [await here.open(node, f"acme/{tag}{number}") for number in range(count)]
    running, refused = [], []
    for client in clients:
        if await client.head() == 200:
            await client.until(b"word0")
            running.append(client)
        else:
            refused.append((await client.rest()).error["code"])
    return running, refused


async def _codes(here: Cluster, node: Node, count: int, tag: str) -> Counter[str]:
    return Counter((await _opened(here, node, count, tag))[1])


def _kinds(here: Cluster) -> Counter[tuple[str, str]]:
    return Counter(here.ask("SELECT kind, cause FROM resolutions"))


def test_three_hundred_at_once(tmp_path: Path) -> None:
    """Case 93: of 300 streams at once, half at each of two nodes, exactly 100 run at the host, and 200 read 429 with
    20034. They all end, and a hundred more can run."""

    async def act(here: Cluster) -> None:
        for turn in range(2):
            here.host.gate = asyncio.Event()
            found = await asyncio.gather(*(_opened(here, node, 150, f"{turn}-") for node in here.nodes))
            refused = Counter(code for _, codes in found for code in codes)
            # A node that is kept too busy to confirm its keys for a second says so; that is no verdict of the limits.
            assert refused["20034"] + refused["storage_unavailable"] == 200
            assert refused["storage_unavailable"] < 100
            assert here.host.running["acme"] == 100
            here.host.gate.set()
            for running, _ in found:
                for client in running:
                    assert (await client.rest()).failure is None
            await eventually(lambda: here.open_holds() == 0, "all is booked")
        assert _kinds(here) == {("posted", "stop"): 200}

    host = _play(tmp_path, act, concurrency=100, call_s=10)
    assert host.peak["acme"] == 100
    assert len(host.dispatches) == 200


def test_one_code_and_fifty_sessions(tmp_path: Path) -> None:
    """Case 79: redeemed from 50 sessions over two nodes, for two accounts, all at once: one credit. Whoever has it
    reads so again; the others, that the code is not valid."""

    async def act(here: Cluster) -> None:
        assert (await here.admin(here.nodes[0], "POST", "/accounts", {"name": "late"})).status == 201
        await eventually(lambda: _knows(here, "late"), "the other node knows of the account")
        gift = {"fund": "granted", "amount": "5", "currency": "CNY"}
        for _ in range(3):
            made = await here.admin(here.nodes[1], "POST", "/codes", {"gift": gift})
            body = {"code": made.page["data"][0]["code"]}
            path = [f"/accounts/{('acme', 'late')[each // 2 % 2]}/redeem" for each in range(50)]
            answers = await asyncio.gather(
                *(here.admin(here.nodes[each % 2], "POST", path[each], body) for each in range(50))
            )
            said = Counter((each.status, each.page.get("again")) for each in answers)
            (winner,) = {where for where, each in zip(path, answers, strict=True) if each.status == 200}
            assert said == {(200, False): 1, (200, True): path.count(winner) - 1, (400, None): 50 - path.count(winner)}
        assert here.ask("SELECT count(*), sum(amount_pico) FROM deposits") == [(3, 15 * 10**12)]

    _play(tmp_path, act, concurrency=10)


async def _knows(here: Cluster, name: str) -> bool:
    return all([(await here.admin(node, "GET", f"/accounts/{name}")).status == 200 for node in here.nodes])


def test_a_key_is_deleted_under_load(tmp_path: Path) -> None:
    """Case 98: while four nodes are asked with it without a pause. Where it was deleted nobody is let in after the
    answer; elsewhere nobody a second later. Its running streams end within a second on all, and what they delivered is
    posted."""

    async def act(here: Cluster) -> None:
        assert here.host.gate is not None
        made = (await here.admin(here.nodes[0], "POST", "/keys", {"account": "acme"})).page
        for node in here.nodes:
            await eventually(lambda node=node: _lets_in(here, node, made["key"]), "the key is known")
        streams = [await here.open(node, "acme/stream", key=made["key"]) for node in here.nodes for _ in range(5)]
        for client in streams:
            await client.until(b"word0")
        seen: list[tuple[Node, float, int]] = []
        done = asyncio.Event()

        async def press(node: Node) -> None:
            while not done.is_set():
                at = time.monotonic()
                seen.append((node, at, await _streamed(here, node, made["key"])))

        load = [asyncio.ensure_future(press(node)) for node in here.nodes for _ in range(4)]
        await eventually(lambda: len(seen) > 100, "it is used")
        deleted = await here.admin(here.nodes[0], "DELETE", f"/keys/{made['id']}")
        at = time.monotonic()
        assert deleted.status == 200
        failures = [(await asyncio.wait_for(client.rest(), 2)).failure for client in streams]
        cut_s = time.monotonic() - at
        late = len(seen)
        await eventually(lambda: len(seen) > late + 100 and time.monotonic() > at + 1.2, "it is tried again")
        done.set()
        await asyncio.gather(*load)
        assert all(failures)
        assert cut_s <= 1.0
        assert {status for node, asked, status in seen if node is here.nodes[0] and asked > at} == {401}
        assert {status for _, asked, status in seen if asked > at + 1.0} == {401}
        assert {status for _, asked, status in seen if asked < at - 1.0} <= {200}
        assert {node for node, _, _ in seen} == set(here.nodes)
        await eventually(lambda: here.open_holds() == 0, "all is booked")
        assert _kinds(here)["posted", "account.revoked"] >= 20

    _play(tmp_path, act, concurrency=100, count=4)


def test_a_key_is_deleted_while_a_node_stands_still(tmp_path: Path) -> None:
    """Case 98: a stopped process that wakes up does not believe what it remembers: of requests that came to it with a
    key that had been deleted for a second, not one is let in."""

    async def act(here: Cluster) -> None:
        one, two = here.nodes
        for turn in range(3):
            made = (await here.admin(one, "POST", "/keys", {"account": "acme"})).page
            await eventually(lambda: _lets_in(here, two, made["key"]), "the key is known")  # noqa: B023
            two.signal(signal.SIGSTOP)
            assert (await here.admin(one, "DELETE", f"/keys/{made['id']}")).status == 200
            at = time.monotonic()
            await eventually(lambda: time.monotonic() > at + 1.0, "a second is over")  # noqa: B023
            clients = [await here.open(two, f"acme/dead{turn}-{each}", key=made["key"]) for each in range(20)]
            two.signal(signal.SIGCONT)
            assert {await client.head() for client in clients} <= {401, 503}
            await eventually(lambda: _refuses_key(two, made["key"]), "it knows that the key is deleted")  # noqa: B023

    host = _play(tmp_path, act, concurrency=100)
    assert not [each for each in host.dispatches if each.tag.startswith("acme/dead")]


async def _refuses_key(node: Node, key: str) -> bool:
    return await node.status("acme/probe", key) == 401


async def _streamed(here: Cluster, node: Node, key: str) -> int:
    """Of a stream that is left once it has begun."""
    client = await node.open(asks("acme/load"), key=key)
    try:
        return await client.head()
    finally:
        client.reset()


async def _lets_in(here: Cluster, node: Node, key: str) -> bool:
    return await _streamed(here, node, key) == 200


def test_cut_from_the_limits_only(tmp_path: Path) -> None:
    """Case 193: a node that cannot reach Valkey goes on with its share of the limit, half of it; the other goes on as
    before. When the way is free again the limit is exact again, by itself."""

    async def act(here: Cluster) -> None:
        one, two = here.nodes
        await here.acquainted()
        for harm, heal in ((one.limits.cut, one.limits.heal), (one.limits.stall, one.limits.heal)):
            harm()
            assert await _codes(here, one, 20, "cut") == {"20034": 15}
            assert here.host.running["acme"] == 5
            assert await _codes(here, two, 20, "whole") == {"20034": 10}
            assert here.host.running["acme"] == 15
            await _leave(here)
            heal()
            await eventually(lambda: _exact(here), "the limit is exact again")

    host = _play(tmp_path, act, concurrency=10, call_s=1)
    assert host.peak["acme"] == 15


async def _leave(here: Cluster) -> None:
    """All streams are left, and booked."""
    for client in here.clients:
        client.reset()
    here.clients.clear()
    await eventually(lambda: here.host.running["acme"] == 0, "the host is left alone")


async def _exact(here: Cluster) -> bool:
    """Of twenty streams at each node, do exactly ten run?"""
    refused = [await _opened(here, node, 20, "exact") for node in here.nodes]
    count, running = sum(len(each) for _, each in refused), here.host.running["acme"]
    await _leave(here)
    await eventually(lambda: not here.store.ask("KEYS", "moonpool:l:*"), "the limits have all places back")
    return (count, running) == (30, 10)


def test_cut_from_the_database(tmp_path: Path) -> None:
    """Case 193: a node that cannot reach PostgreSQL, or neither, sends nothing to any host and says 503; what runs
    there goes on, and is booked when it is back, which nobody has to help. The other node serves meanwhile."""

    async def act(here: Cluster) -> None:
        one, two = here.nodes
        for turn, (links, stalled) in enumerate([((one.database,), True), ((one.database, one.limits), False)]):
            here.host.gate = asyncio.Event()
            running, _ = await _opened(here, one, 3, f"runs{turn}-")
            for link in links:
                (link.stall if stalled else link.cut)()
            await eventually(lambda: _refuses(one), "it says that the storage is away")
            before = len(here.host.dispatches)
            refused = [(await (await here.open(one, f"acme/no{turn}")).rest()) for _ in range(10)]
            assert {(each.status, each.error["code"]) for each in refused} == {(503, "storage_unavailable")}
            assert len(here.host.dispatches) == before
            here.host.gate.set()
            for client in running:
                assert (await client.rest()).failure is None
            assert await two.status("acme/two") == 200
            for link in links:
                link.heal()
            await eventually(lambda: _serves(one), "it serves again")
            await eventually(lambda: here.open_holds() == 0, "what ran is booked")

    _play(tmp_path, act, concurrency=10)


async def _refuses(node: Node) -> bool:
    return await node.status("acme/probe") == 503


async def _serves(node: Node) -> bool:
    return await node.status("acme/probe") == 200


def test_a_node_that_is_stopped(tmp_path: Path) -> None:
    """Case 70: while a process stands still its leases end, and others take their places. Woken up, it ends its
    streams, which are billed once, and from then on no more than the limit runs."""

    async def act(here: Cluster) -> None:
        one, two = here.nodes
        stood, refused = await _opened(here, one, 7, "stood")
        assert refused == ["20034"] * 2
        assert await _codes(here, two, 1, "early") == {"20034": 1}
        await eventually(lambda: here.ask("SELECT count(*) FROM progress") == [(5,)], "it is noted how far they came")
        one.signal(signal.SIGSTOP)
        taken = await eventually(lambda: _takes(here, two, 5), "its places are free", 25)
        # As long again as it takes others to think that it is dead.
        await eventually(lambda: here.open_holds() == 5, "its holds are ended by the other", 25)
        one.signal(signal.SIGCONT)
        for client in stood:
            failure = (await client.rest()).failure
            assert failure is not None
            assert failure["code"] == "limits_unavailable"
        await eventually(lambda: here.host.running["acme"] == 5, "the host is left by them")
        assert await _codes(here, two, 3, "over") == {"20034": 3}
        await eventually(lambda: _full(here, one), "the one that woke says the same")
        assert here.host.running["acme"] == 5
        assert here.host.peak["acme"] == 10
        assert here.host.gate is not None
        here.host.gate.set()
        for client in taken:
            assert (await client.rest()).failure is None
        await eventually(lambda: here.open_holds() == 0, "all is booked")
        kinds = Counter(here.ask("SELECT kind, cause, estimated, completion > 0, owed_pico > 0 FROM resolutions"))
        # Those that were left because not all of them could run are none of ours.
        kinds = Counter({each: count for each, count in kinds.items() if each[1] != "caller.gone"})
        assert kinds == {("recovered", "recovered", True, True, True): 5, ("posted", "stop", False, True, True): 5}

    _play(tmp_path, act, concurrency=5, call_s=1)


async def _takes(here: Cluster, node: Node, count: int) -> list[Client]:
    """All of so many streams, or none."""
    running, refused = await _opened(here, node, count, "taken")
    if not refused:
        return running
    for client in running:
        client.reset()
    return []


async def _full(here: Cluster, node: Node) -> bool:
    return await _codes(here, node, 1, "woken") == {"20034": 1}


def test_a_node_that_is_killed(tmp_path: Path) -> None:
    """Case 195: the survivor and the node that comes back look for what a killed one left open, at once: each hold is
    resolved once, with what its stream was known to have come to."""

    async def act(here: Cluster) -> None:
        one, two = here.nodes
        await _opened(here, one, 20, "left")
        stays, _ = await _opened(here, two, 5, "stays")
        await eventually(lambda: here.ask("SELECT count(*) FROM progress") == [(25,)], "it is noted how far they came")
        await one.kill()
        node = here.ask("SELECT node FROM holds GROUP BY node HAVING count(*) = 20")[0][0]
        here.ask(f"UPDATE totals SET seen_at = seen_at - 16 WHERE id = {node}")
        await one.start()
        await eventually(lambda: here.open_holds() == 5, "the others ended them")
        assert here.ask("SELECT kind, completion > 0, count(*) FROM resolutions GROUP BY 1, 2") == [
            ("recovered", True, 20)
        ]
        assert here.host.gate is not None
        here.host.gate.set()
        for client in stays:
            assert (await client.rest()).failure is None
        await eventually(lambda: here.open_holds() == 0, "all is booked")
        assert _kinds(here)[("posted", "stop")] == 5

    _play(tmp_path, act, concurrency=100)
