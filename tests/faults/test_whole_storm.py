"""Clients that come and hang up, over and over, on hosts with few places: RELIABILITY case 47, and that nothing of them
is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import DONE, ROLE, Stage, chat, good_stream, last, records, stage, streamed, until, words
from faults.storm import well
from faults.upstream import Peer, Request, Step, gate, stall
from moonpool.settings_hosts import Upstream as Timers

SLOTS = 10
CLIENTS = 20
ROUNDS = 40


async def _some_turns(peer: Peer) -> None:
    """Long enough for others to do something, and not to wait."""
    for _ in range(30):
        await asyncio.sleep(0)


class Host:
    """Answers slowly, or not to the end, while there is a storm; afterwards all at once, when it is let."""

    def __init__(self) -> None:
        self.calm = False
        self.go = asyncio.Event()

    def __call__(self, request: Request) -> list[Step]:
        if self.calm:
            return [gate(self.go), *good_stream()]
        kind = request.number % 4
        if kind == 0:
            return [_some_turns, *good_stream()]
        pieces: list[Step] = []
        for piece in streamed(ROLE, *words(6), last(), DONE)[: 3 + kind]:
            pieces += [piece, _some_turns]
        return [*pieces, stall] if kind < 3 else [_some_turns, *good_stream()]


async def one(here: Stage, chance: random.Random, resumable: bool) -> bool:
    """Ask, and in four of five cases leave at some point: unread, in the line, at the head, in the middle. Whether it
    stayed to the end."""
    stays = chance.random() < 0.2
    fields = {"x-moonpool-resume": "1"} if resumable else {}
    client = await here.open(chat(stream=resumable or chance.random() < 0.8), fields=fields)
    point = chance.randrange(4)
    for _ in range(chance.randrange(60)):
        await asyncio.sleep(0)
    # Half of the answers never end: whoever reads on leaves at last.
    leave = asyncio.get_running_loop().call_later(0.05 if stays else 0.02, client.reset)
    try:
        if stays:
            return (await client.rest()).complete
        if point >= 2:
            await client.head()
            for _ in range(point - 1):
                await client.piece()
    except (OSError, EOFError, ValueError):
        pass
    finally:
        leave.cancel()
    (client.reset if chance.random() < 0.7 else client.close)()
    return False


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("bound", ["account", "pool"])
@pytest.mark.parametrize("resumable", [False, True], ids=["plain", "resumable"])
def test_a_storm_of_cancellations_leaves_every_place_usable(tmp_path: Path, bound: str, resumable: bool) -> None:
    """Case 47: 20 clients at once on 10 places (the host's account, or connections of the pool), 80 % of them leaving
    at random points, for 40 rounds: never more than ten run at the host by our count. Afterwards ten run at once, the
    eleventh waits and is served; no permit, lease, connection, tape, task or descriptor is left."""
    chance = random.Random(47)
    host = Host()

    async def run() -> int:
        options: dict[str, Any] = {"concurrency": 100}
        options |= {"host": {"concurrency": SLOTS}} if bound == "account" else {}
        options |= {"upstream": Timers(connections_max=SLOTS)} if bound == "pool" else {}
        async with stage(tmp_path, host, **options) as here:
            assert well(await here.ask())
            await _nothing_is_left(here)
            tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
            stayed = 0
            for _ in range(ROUNDS):
                stayed += sum(await asyncio.gather(*(one(here, chance, resumable) for _ in range(CLIENTS))))
                place = next(iter(here.app.platform.fleet.sites()))
                assert bound == "pool" or place.running <= SLOTS
                assert bound == "account" or _taken(here)[0] <= SLOTS
            await until(lambda: _nobody_comes_back(here), "all have ended")
            await here.quiet()
            await _nothing_is_left(here)

            host.calm = True
            before = len(here.host.requests)
            clients = [await here.open() for _ in range(SLOTS + 1)]
            await until(lambda: len(here.host.requests) == before + SLOTS, "ten run at once", 2.0)
            await until(lambda: here.app.platform.fleet.waiting + _taken(here)[1] == 1, "the eleventh waits")
            host.go.set()
            assert [well(await client.rest()) for client in clients] == [True] * (SLOTS + 1)
            for client in here.clients:
                await client.closed()
            await here.quiet()
            await _nothing_is_left(here)
            gc.collect()
            await until(lambda: len(here.app.server.connections) == 0, "the clients' connections are closed")
            await until(lambda: len(asyncio.all_tasks()) <= tasks + 2 * SLOTS, "no task is left")
            await until(lambda: _descriptors() <= descriptors + 2 * SLOTS, "no descriptor is left")
            return stayed

    stayed = uvloop.run(run())
    rows = records(tmp_path / "moonpool.db")
    assert len(rows) >= stayed
    assert {row.kind for row in rows} == {"posted", "voided"}
    gone = sum(row.cause == "caller.gone" for row in rows)
    assert gone > ROUNDS * CLIENTS / 4, "it was a storm"


def _nobody_comes_back(here: Stage) -> bool:
    """The time is over in which a resumable stream waits for its client."""
    tapes = here.app.platform.tapes
    for tape in list(tapes.detached.values()):
        tape.deadline = 0.0
    tapes.beat()
    return not here.app.platform.active


def _taken(here: Stage) -> tuple[int, int, int]:
    """Of the pool to the host: slots taken, who waits for one, slots that are idle."""
    transport: Any = here.app.transports["http"]
    pools = list(transport._pools.values())
    return sum(map(len, pools)), sum(pool.waiting for pool in pools), sum(pool.idle for pool in pools)


async def _nothing_is_left(here: Stage) -> None:
    platform, transport = here.app.platform, here.app.transports["http"]
    await until(lambda: not transport.active, "no answer is under way")  # type: ignore[attr-defined]
    for site in platform.fleet.sites():
        assert (site.running, len(site.account.permits), site.health.probing) == (0, 0, False)
    slots, waiting, idle = _taken(here)
    assert (slots, waiting) == (idle, 0)
    assert platform.fleet.waiting == 0
    assert not platform.active
    assert not platform.tapes.detached
    assert await platform.limiter.held("bench", platform.monotonic()) == 0
