"""The store of limits is killed, frozen, emptied, replaced: what two nodes then grant, and how soon all is well again.

The nodes are two limiters over one real store. They live by a test's clock, also in what they tell the store; only the
deadline of a call is real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from faults.sink import Clock
from faults.stage import until, within
from moonpool.state.asks import LEASE_S, RENEW_S
from moonpool.state.base_limits import Verdict
from moonpool.state.valkey import BATCH, SHARES_S, TRIM_S, ValkeyLimiter
from moonpool.state.valkey_link import CALL_S, PREFIX, Link
from moonpool.words import Account, Key, Limits
from valkey_server import ValkeyServer, valkey_server

SLACK_S = 0.15
"""What a busy machine may add to a deadline."""
PATIENT_S = 1.0
"""The deadline of calls whose time is not what a test is about."""


@pytest.fixture(scope="module")
def running() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture
def server(running: ValkeyServer) -> Iterator[ValkeyServer]:
    """One that runs and is empty."""
    running.ask("FLUSHALL")
    yield running
    running.kill()
    running.start()


class Node:
    """A process that shares limits with others."""

    def __init__(self, url: str, name: str, clock: Clock, call_s: float) -> None:
        self.clock = clock
        self.lost: list[str] = []
        self.notes: list[dict[str, Any]] = []
        self.limiter = ValkeyLimiter(
            Link(url, store_clock=False, call_s=call_s),
            self.lost.append,
            node=name,
            clock=clock,
            note=lambda event, **facts: self.notes.append(facts),
        )

    async def take(self, request_id: str, limit: int = 100, *, account: str = "a", **more: Any) -> Verdict:
        payer = Account(account, account, True, limit, **more)
        return await self.limiter.take(request_id, payer, Key("k", account), 10, self.clock.at)

    async def fill(self, name: str, count: int, limit: int = 100) -> int:
        """How many of so many at once were granted."""
        said = await asyncio.gather(*(self.take(f"{name}{at}", limit) for at in range(count)))
        return sum(not each.refused for each in said)

    def give(self, request_id: str, account: str = "a") -> None:
        self.limiter.give(request_id, account, 10, self.clock.at)

    async def held(self) -> int:
        return await self.limiter.held("a", self.clock.at)

    async def tick(self) -> None:
        """A second's work, until it is done."""
        self.limiter.tick(self.clock.at)
        await until(lambda: self.limiter._task is None and self.limiter._probe_task is None, "the calls are over")


async def seconds(count: float, *nodes: Node) -> None:
    """Second by second, as the pulse does it."""
    for _ in range(round(count)):
        nodes[0].clock.at += 1.0
        for node in nodes:
            await node.tick()


@contextlib.asynccontextmanager
async def nodes(server: ValkeyServer, count: int = 2, call_s: float = PATIENT_S) -> AsyncIterator[list[Node]]:
    """Nodes that know of each other."""
    clock = Clock(1_700_000_000.0)
    made = [Node(server.url, f"node{at}", clock, call_s) for at in range(count)]
    try:
        for node in made:
            await node.limiter.start(clock.at)
        await seconds(6, *made)
        assert [(node.limiter.nodes, node.limiter.rank) for node in made] == [(count, at) for at in range(count)]
        yield made
    finally:
        for node in made:
            await node.limiter.stop()


def play(server: ValkeyServer, act: Callable[..., Awaitable[None]], count: int = 2, call_s: float = PATIENT_S) -> None:
    async def run() -> None:
        async with nodes(server, count, call_s) as made:
            await act(*made)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_three_hundred_at_once_at_two_nodes(server: ValkeyServer) -> None:
    """Case 93: exactly a hundred of three hundred, whichever node they come to; each place that is given back is taken
    once."""

    async def act(one: Node, other: Node) -> None:
        granted = await asyncio.gather(one.fill("x", 150), other.fill("y", 150))
        assert sum(granted) == 100
        assert await one.held() == await other.held() == 100
        for number in range(7):
            (one if f"x{number}" in one.limiter._held else other).give(f"x{number}")
        gone = 100 - await one.held()
        assert sum(await asyncio.gather(one.fill("v", 10), other.fill("w", 10))) == gone

    play(server, act, call_s=10)


def test_what_comes_meanwhile_goes_with_the_next_call(server: ValkeyServer) -> None:
    """A thousand requests cost a few round trips, none of them larger than allowed."""

    async def act(node: Node) -> None:
        before = int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"])
        assert await node.fill("x", 1000, 10_000) == 1000
        for number in range(1000):
            node.give(f"x{number}")
        await until(lambda: node.limiter._task is None, "all is given back")
        after = int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"])
        assert 2 * 1000 / BATCH <= after - before <= 2 * 1000 / BATCH + 2
        assert await node.held() == 0

    play(server, act, 1, call_s=10)


def test_places_of_one_call(server: ValkeyServer) -> None:
    """What one call takes and gives back follows each other: who has a place has it, a place that became free is taken
    once, and a set that was empty in between is forgotten all the same when nobody renews it."""

    async def act() -> None:
        link = Link(server.url, store_clock=False, call_s=10)
        now, take, give, held = 1_700_000_000.0, 7, 8, (6, "a")
        ends = now + LEASE_S
        ops = [(take, "x", "a", 1), (take, "x", "a", 1), (take, "y", "a", 1), held, (give, "x", "a")]
        assert await link.call([*ops, held, (take, "z", "a", 1), held], now) == [ends, ends, 0, 1, 0, 0, ends, 1]
        assert server.ask("TTL", f"{PREFIX}l:a:a") > LEASE_S
        said = await link.call([(take, "z", "a", 1), (take, "v", "a", 2), (take, "w", "a", 2), held], now + 1)
        assert said == [ends, ends + 1, 0, 2]
        assert await link.call([held, (give, "z", "a"), (take, "w", "a", 2), held], ends) == [1, 0, ends + LEASE_S, 2]
        await link.close()

    asyncio.run(act())


def break_by_kill(server: ValkeyServer) -> None:
    server.kill()


def break_by_freeze(server: ValkeyServer) -> None:
    server.freeze()


def mend_after_kill(server: ValkeyServer) -> None:
    server.start()


def mend_after_freeze(server: ValkeyServer) -> None:
    server.thaw()


BREAKS = {"killed": (break_by_kill, mend_after_kill), "frozen": (break_by_freeze, mend_after_freeze)}


@pytest.mark.parametrize("how", BREAKS)
def test_a_lost_store(server: ValkeyServer, how: str) -> None:
    """Case 60, killed or SIGSTOPped: the first is answered within 100 ms, the next at once; each node grants its share
    for a minute, then nothing; when the store is back it learns what runs, and the limit is exact again."""
    broken, mended = BREAKS[how]

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 30) == 30
        assert await other.fill("y", 30) == 30
        for node in (one, other):
            node.limiter._link._call_s = CALL_S
        broken(server)
        lost_at = one.clock.at
        for node, name in ((one, "x"), (other, "y")):
            with within(CALL_S + SLACK_S):
                assert not (await node.take(f"{name}30")).refused
            assert node.limiter.trouble() is not None
            began = time.perf_counter()
            assert await node.fill(f"{name}.", 100) == 19, "31 run, and half of 100 may"
            assert (time.perf_counter() - began) / 100 < 0.001
            assert (await node.take("more")).refused == "concurrency"
            assert await node.held() == 50
        await seconds(SHARES_S - 1, one, other)
        one.give("x0")
        assert not (await one.take("x50")).refused
        await seconds(1, one, other)
        one.give("x1")
        refused = await one.take("x51")
        assert (refused.refused, one.clock.at - lost_at) == ("unavailable", SHARES_S)
        assert refused.retry_after_s > 0
        assert one.lost == other.lost == [], "what ran within the share runs on"
        mended(server)
        await seconds(1, one, other)
        assert one.limiter.trouble() is other.limiter.trouble() is None
        assert await one.held() == await other.held() == 99
        assert sum([await one.fill("v", 10), await other.fill("w", 10)]) == 1
        assert [set(note) for note in one.notes] == [{"lost", "nodes"}, {"back_after_s"}]

    play(server, act)


def test_who_waits_when_the_store_is_lost(server: ValkeyServer) -> None:
    """Who waits for the call after the one that fails is answered with it, and not asked for again."""

    async def act(node: Node) -> None:
        server.kill()
        assert await node.fill("x", BATCH + 20, 10_000) == BATCH + 20
        await node.tick()
        server.start()
        await seconds(1, node)
        assert await node.held() == BATCH + 20
        for number in range(BATCH + 20):
            node.give(f"x{number}")
        assert await node.held() == 0
        assert [set(note) for note in node.notes] == [{"lost", "nodes"}, {"back_after_s"}]

    play(server, act, 1)


def test_what_nobody_knows_is_given_back(server: ValkeyServer) -> None:
    """A call that failed may have reached the store: what it granted there and was refused here costs nothing."""

    async def act(one: Node, other: Node) -> None:
        assert not (await one.take("r0", 2, tokens_per_minute=60)).refused
        one.limiter._link._call_s = CALL_S
        server.freeze()
        assert (await one.take("r1", 2, tokens_per_minute=60)).refused == "concurrency", "a node's share of two is one"
        one.limiter._link._call_s = PATIENT_S
        server.thaw()
        await one.tick()
        assert one.limiter.trouble() is None
        after = await other.take("r2", 2, tokens_per_minute=60)
        assert after.tokens is not None
        assert (after.refused, after.tokens.remaining) == ("", 60 - 2 * 10)

    play(server, act)


@pytest.mark.parametrize(("later_s", "lost"), [(LEASE_S - 0.001, []), (LEASE_S, ["r1"])])
def test_what_has_ended_when_the_store_is_lost(server: ValkeyServer, later_s: float, lost: list[str]) -> None:
    """A lease ends to the moment after its last renewal, also if that is the moment in which the store is lost."""

    async def act(node: Node) -> None:
        assert not (await node.take("r1")).refused
        node.clock.at += 2.0
        await node.limiter.renew(node.clock.at)
        server.kill()
        node.clock.at += later_s
        assert not (await node.take("r2")).refused
        assert node.lost == lost
        assert await node.held() == 2 - len(lost)

    play(server, act, 1)


def test_an_emptied_store(server: ValkeyServer) -> None:
    """Case 60, FLUSHALL: with the next renewal all that runs has its place again, and the limit is exact."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 60) == 60
        assert await other.fill("y", 40) == 40
        server.ask("FLUSHALL")
        assert await one.held() == 0, "until then others get in: as many as ran, at most"
        await seconds(LEASE_S / 3, one, other)
        assert await one.held() == 100
        assert await one.fill("v", 5) == await other.fill("w", 5) == 0
        assert one.lost == other.lost == []
        await seconds(LEASE_S, one, other)
        assert await other.held() == 100

    play(server, act, call_s=10)


def test_a_store_that_was_replaced(server: ValkeyServer) -> None:
    """Case 60, another one, empty, that does not even know the script: one call fails, and a second later all that runs
    has its place."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 60) == 60
        assert await other.fill("y", 40) == 40
        server.kill()
        server.start()
        assert (await one.take("x60")).refused == "concurrency", "60 run, and half of 100 may"
        assert (await other.take("y40")).refused == ""
        await seconds(1, one, other)
        assert await one.held() == 101
        assert (await one.take("x61")).refused == (await other.take("y41")).refused == "concurrency"
        assert one.lost == other.lost == []

    play(server, act)


def test_a_failover_that_lost_the_last_second(server: ValkeyServer) -> None:
    """Case 61: the leases that the replica never saw come back when they are renewed; until then as many more are let
    in, at most."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 80) == 80
        name = f"{PREFIX}l:a:a"
        replica = server.ask("DUMP", name)
        assert await other.fill("y", 20) == 20
        server.ask("RESTORE", name, 60_000, replica, "REPLACE")
        assert await other.fill("z", 50) == 20
        await seconds(LEASE_S / 3, one, other)
        assert await one.held() == 120
        assert await one.fill("v", 20) == await other.fill("w", 20) == 0
        for number in range(20):
            other.give(f"z{number}")
        assert await one.fill("v", 20) == 0
        one.give("x0")
        assert sum([await one.fill("v", 5), await other.fill("w", 5)]) == 1

    play(server, act, call_s=10)


def test_a_killed_node(server: ValkeyServer) -> None:
    """Case 69: what it held is free 15 s after it last renewed; the other one's leases are untouched, and the share of
    those who are left is the whole."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 60) == 60
        assert await other.fill("y", 40) == 40
        await seconds(LEASE_S - 1, other)
        assert await other.fill("z", 1) == 0
        await seconds(1, other)
        assert await other.fill("z", 100) == 60
        assert other.lost == []
        await seconds(LEASE_S / 3, other)
        assert other.limiter.nodes == 1

    play(server, act, call_s=10)


def test_a_node_that_stood_still(server: ValkeyServer) -> None:
    """Case 70: a process that is stopped for a minute has lost its leases; it is told of each, holds none of them, and
    the others' limit was never exceeded by what they granted."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 60) == 60
        await seconds(60, other)
        assert await other.fill("y", 150) == 100
        await one.tick()
        assert sorted(one.lost) == sorted(f"x{number}" for number in range(60))
        assert await one.held() == 100
        one.give("x0")
        assert (await one.take("x60")).refused == "concurrency"
        other.give("y0")
        assert (await one.take("x61")).refused == ""
        assert (await other.take("y150")).refused == "concurrency"

    play(server, act, call_s=10)


@pytest.mark.parametrize("how", BREAKS)
def test_a_node_that_stood_still_while_the_store_was_lost(server: ValkeyServer, how: str) -> None:
    """Case 70 and 60 together: what the node did not renew by its own clock is lost, and does not come back with the
    store."""
    broken, mended = BREAKS[how]

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 3) == 3
        one.clock.at += 60.0
        broken(server)
        assert (await one.take("x3")).refused == ""
        assert sorted(one.lost) == ["x0", "x1", "x2"]
        await seconds(1, one)
        one.clock.at += 40.0
        await one.tick()
        assert sorted(one.lost) == ["x0", "x1", "x2", "x3"]
        mended(server)
        await seconds(1, one, other)
        assert await one.held() == 0

    play(server, act)


def test_beyond_the_share_ends_before_the_lease(server: ValkeyServer) -> None:
    """A node that is cut off runs on with its share: before others may think its places free, its youngest answers
    beyond that are told to stop."""

    async def act(one: Node, other: Node) -> None:
        key = Key("own", "b", limits=Limits(concurrency=4))
        assert await one.fill("x", 70) == 70
        for number in range(4):
            assert not (await one.limiter.take(f"k{number}", Account("b", "b", True, 0), key, 0, one.clock.at)).refused
        server.kill()
        assert (await one.take("x70")).refused == "concurrency"
        await seconds(TRIM_S - 1, one)
        assert one.lost == []
        await seconds(1, one)
        assert sorted(one.lost) == sorted([f"x{number}" for number in range(50, 70)] + ["k2", "k3"])
        assert await one.held() == 50
        server.start()
        await seconds(1, one, other)
        assert (await other.take("y")).refused == "", "its connection is gone, as it learns now"
        await seconds(1, one, other)
        assert await other.held() == 51
        assert await other.fill("z", 100) == 49

    play(server, act)


def test_the_trim_comes_in_time() -> None:
    """A lease that was renewed right before the loss lives for LEASE_S, one that was about to be for RENEW_S less: what
    is beyond the share ends a second before others may have its place, and no sooner than needed."""
    assert TRIM_S == LEASE_S - RENEW_S - 1.0


def test_a_store_that_was_never_there(server: ValkeyServer) -> None:
    """A node that knows of no other has the whole limit for its share, until it hears of them."""

    async def run() -> None:
        server.kill()
        node = Node(server.url, "alone", Clock(1_700_000_000.0), PATIENT_S)
        await node.limiter.start(node.clock.at)
        assert await node.fill("x", 12, 10) == 10
        assert node.limiter.nodes == 1
        await node.limiter.stop()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_is_beyond_two_shares_ends_once(server: ValkeyServer) -> None:
    """An answer that is too much for its account and for its key is told so once."""

    async def act(one: Node, other: Node) -> None:
        key = Key("own", "a", limits=Limits(concurrency=4))
        for number in range(4):
            assert not (await one.limiter.take(f"x{number}", Account("a", "a", True, 4), key, 0, one.clock.at)).refused
        server.kill()
        await seconds(TRIM_S + LEASE_S / 3, one)
        assert sorted(one.lost) == ["x2", "x3"]

    play(server, act)


def test_a_lease_that_ended_and_is_given_back_meanwhile(server: ValkeyServer) -> None:
    """Its answer came to its end by itself while the renewal was under way: nobody is told."""

    async def act(node: Node) -> None:
        assert await node.fill("x", 1) == 1
        node.clock.at += LEASE_S
        done = node.limiter.renew(node.clock.at)
        await until(lambda: not node.limiter._renewals and not node.limiter._urgent, "the call is made")
        node.give("x0")
        await done
        assert node.lost == []
        assert await node.held() == 0

    play(server, act, 1, call_s=10)


def test_a_share_of_nothing(server: ValkeyServer) -> None:
    """Of a limit of one, one of two nodes has a share and the other has none: it says that it cannot know."""

    async def act(one: Node, other: Node) -> None:
        server.kill()
        assert (await one.take("x", 1)).refused == ""
        assert (await one.take("y", 1)).refused == "concurrency"
        assert (await other.take("z", 1)).refused == "unavailable"
        assert (await other.take("z", 0)).refused == ""
        one.give("x")
        assert (await one.take("y", 1)).refused == ""

    play(server, act)


def test_rates_while_the_store_is_lost(server: ValkeyServer) -> None:
    """Each node has its share of a rate, anew."""

    async def act(one: Node, other: Node) -> None:
        first = await one.take("x0", 0, requests_per_minute=10)
        assert first.requests is not None
        assert (first.requests.limit, first.requests.remaining) == (10, 9)
        server.freeze()
        for node in (one, other):
            said = [await node.take(f"y{number}", 0, requests_per_minute=10) for number in range(6)]
            assert [each.refused for each in said] == [""] * 5 + ["requests"]
        server.thaw()
        await seconds(1, one, other)
        assert (await one.take("z", 0, requests_per_minute=10)).refused == ""

    play(server, act)


def test_what_ended_while_the_store_was_lost(server: ValkeyServer) -> None:
    """What is given back meanwhile is free in the store once it is there again, and not 15 s later; also what the store
    granted and nobody heard of."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 50) == 50
        server.freeze()
        said = asyncio.gather(*(one.take(f"y{number}") for number in range(10)))
        await said
        assert {each.refused for each in said.result()} == {"concurrency"}, "the share was used up"
        one.give("x49")
        for number in range(49):
            one.give(f"x{number}")
        one.give("x0")
        server.thaw()
        await seconds(1, one, other)
        assert await other.held() == 0

    play(server, act)


def test_giving_back_is_what_finds_the_loss(server: ValkeyServer) -> None:
    """Nobody waits for what is given back, and it is not forgotten."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 2) == 2
        server.freeze()
        one.give("x0")
        await until(lambda: one.limiter.trouble() is not None, "the call failed")
        server.thaw()
        await seconds(1, one, other)
        assert await other.held() == 1

    play(server, act)


def test_a_question_while_the_store_is_lost(server: ValkeyServer) -> None:
    """How many run is then what runs here; renewals and leaving wait for nobody."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 2) == 2
        server.kill()
        assert await one.held() == 2
        await one.limiter.renew(one.clock.at)
        with within(PATIENT_S):
            await other.limiter.renew(other.clock.at)
        assert other.limiter.trouble() is not None

    play(server, act)


def test_a_probe_that_finds_nobody(server: ValkeyServer) -> None:
    """The store is asked again each second, once at a time, until it answers."""

    async def act(node: Node) -> None:
        server.freeze()
        assert (await node.take("x")).refused == ""
        for _ in range(2):
            node.clock.at += 1.0
            node.limiter.tick(node.clock.at)
            asked = node.limiter._probe_task
            node.limiter.tick(node.clock.at)
            assert node.limiter._probe_task is asked
            await until(lambda: node.limiter._probe_task is None, "the probe is over")
            assert node.limiter.trouble() is not None
        server.thaw()
        node.clock.at += 1.0
        node.limiter.tick(node.clock.at)
        await node.limiter.stop()
        assert server.ask("ZCARD", f"{PREFIX}l:a:a") == 0

    play(server, act, 1)


def test_a_node_leaves(server: ValkeyServer) -> None:
    """When it stops, what it held is free at once and the others are fewer."""

    async def act(one: Node, other: Node) -> None:
        assert await one.fill("x", 10) == 10
        await one.limiter.stop()
        assert await other.held() == 0
        await seconds(5, other)
        assert other.limiter.nodes == 1

    play(server, act, call_s=10)


def test_renewal_waits_behind_those_who_wait(server: ValkeyServer) -> None:
    """Thousands of leases are renewed in several calls; who asks meanwhile goes before the rest, and what is given back
    meanwhile is not made again."""

    async def act(node: Node) -> None:
        assert await node.fill("x", 3 * BATCH, 10_000) == 3 * BATCH
        node.clock.at += 1.0
        done = node.limiter.renew(node.clock.at)
        for number in range(2 * BATCH, 3 * BATCH):
            node.give(f"x{number}")
        assert (await node.take("y", 10_000)).refused == ""
        assert not done.done()
        await done
        assert await node.held() == 2 * BATCH + 1
        node.clock.at += LEASE_S - 1.0
        assert await node.held() == 2 * BATCH + 1

    play(server, act, 1, call_s=10)


def test_a_process_that_stood_still_does_not_blame_the_store(server: ValkeyServer) -> None:
    """A call that was under way meanwhile is read first: its answer was there in time."""

    async def act(node: Node) -> None:
        answer = node.limiter.take("x", Account("a", "a", True, 5), Key("k", "a"), 0, node.clock.at)
        await until(lambda: node.limiter._task is not None and not node.limiter._urgent, "the call is made")
        until_then = time.monotonic() + 2 * CALL_S
        while time.monotonic() < until_then:
            pass
        assert (await answer).refused == ""
        assert node.limiter.trouble() is None

    play(server, act, 1, CALL_S)


def test_streams_that_come_and_go(server: ValkeyServer) -> None:
    """Case 94, small: thousands start and end at random at two nodes, with renewals and the store's loss in between;
    afterwards a hundred at once again, exactly."""

    async def act(one: Node, other: Node) -> None:
        draw = random.Random(94)
        running: dict[str, Node] = {}
        for turn in range(60):
            asked = {f"{turn}.{number}": draw.choice((one, other)) for number in range(50)}
            said = await asyncio.gather(*(node.take(name) for name, node in asked.items()))
            running |= {name: node for (name, node), each in zip(asked.items(), said, strict=True) if not each.refused}
            assert len(running) <= 100 or turn > 30
            for name in draw.sample(sorted(running), draw.randrange(len(running) + 1)):
                running.pop(name).give(name)
            if turn == 30:
                server.kill()
            if turn == 40:
                server.start()
            await seconds(1, one, other)
        for name, node in running.items():
            node.give(name)
        assert one.lost == other.lost == []
        assert await one.held() == await other.held() == 0
        assert sum(await asyncio.gather(one.fill("v", 80), other.fill("w", 80))) == 100

    play(server, act)
