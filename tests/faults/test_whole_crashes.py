"""A real server that dies at named points: each statement of a request's life, each moment of a host's answer, what
happens by itself, and recovery."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.kills import Trial, configure, furnish
from faults.stage import Served, served
from faults.upstream import Upstream

CLIENTS = 14

# name -> what crash_child.py is told
POINTS = {
    "before a hold is written": "before INSERT INTO holds 3",
    "a hold is written, not committed": "after INSERT INTO holds 3",
    "before the commit of a hold": "before COMMIT of INSERT INTO holds 3",
    "a hold is durable, nobody knows": "after COMMIT of INSERT INTO holds 3",
    "before what a hold reserves": "before INSERT INTO reservations 2",
    "before a settlement is written": "before INSERT INTO resolutions 3",
    "in the middle of a settlement: its record": "after INSERT INTO resolutions 3",
    "in the middle of a settlement: its sums": "after INSERT INTO usage 3",
    "in the middle of a settlement: its transfers": "after INSERT INTO transfers 3",
    "in the middle of a settlement: packs": "after INSERT INTO pack_balances 2",
    "in the middle of a settlement: what a key spent": "after INSERT INTO spent 2",
    "before the commit of a settlement": "before COMMIT of INSERT INTO resolutions 3",
    "a settlement is durable, nobody knows": "after COMMIT of INSERT INTO resolutions 3",
    "before the totals": "before UPDATE totals 20",
    "before progress is noted": "before INSERT INTO progress 3",
    "in the middle of progress": "after INSERT INTO progress 3",
    "progress is durable": "after COMMIT of INSERT INTO progress 3",
    "progress is forgotten": "after DELETE FROM progress 1",
    "before a deposit": "before INSERT INTO deposits 2",
    "in the middle of a deposit": "after INSERT INTO deposits 2",
    "a deposit is durable, nobody knows": "after COMMIT of INSERT INTO deposits 2",
    "in the middle of a pack": "after INSERT INTO packs 2",
    "a pack is durable, nobody knows": "after COMMIT of INSERT INTO packs 2",
    "before an hour is settled": "before INSERT INTO settlements 1",
    "in the middle of settling an hour": "after INSERT INTO settlements 1",
    "an hour is settled, nobody knows": "after COMMIT of INSERT INTO settlements 1",
    "at a checkpoint": "before PRAGMA wal_checkpoint 1",
}
# name -> the moment of the host, the how-maniest of its kind
MOMENTS = {
    "at the dial": ("asked", 5),
    "at the head of an answer": ("head", 5),
    "at the first byte": ("word", 1),
    "in the middle of answers": ("word", 40),
    "at the usage": ("usage", 2),
    "at the end mark": ("end", 2),
}
RECOVERY = [
    "start before BEGIN 2",
    "start before INSERT INTO resolutions 1",
    "start after INSERT INTO resolutions 1",
    "start after INSERT INTO usage 1",
    "start after DELETE FROM progress 1",
    "start after INSERT INTO balances 1",
    "start before COMMIT of INSERT INTO resolutions 1",
] * 3
"""While the next start recovers what the kill before left open, one after another: 21 levels deep."""


class Crashing(Served):
    """Dies at `point`, by itself; before that, while it starts, at each of `early`."""

    point = "none"
    running = "none"
    early: Sequence[str] = ()

    def program(self) -> list[str]:
        return [str(Path(__file__).with_name("crash_child.py")), self.point]

    async def start(self) -> None:
        mine = self.point
        for point in self.early:
            self.point = point
            with pytest.raises(AssertionError):
                await super().start()
            assert await self.ended() == -signal.SIGKILL, f"{self.point}: {self.said.decode()}"
        self.early, self.point, self.running = (), mine, mine
        await super().start()
        self.signal(signal.SIGUSR1)


async def _dies(server: Any) -> None:
    """It does so by itself."""
    assert server.process is not None
    try:
        await asyncio.wait_for(server.process.wait(), 30)
    except TimeoutError:
        raise AssertionError(f"it never came to {server.running}") from None


def test_at_every_named_point_a_crash_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Cases 66 and 87: a server that is killed at each of these points, over and over in one home, has after each
    start one record for every dispatch, no open hold and sound books; what was deposited, and which hours were settled,
    is there once. Case 67: the last recovery is killed 22 times itself. Case 79, deposits: what comes again with its
    id, because nobody knows, is booked once."""

    async def run() -> Path:
        trial = Trial(tmp_path, "66", CLIENTS)
        async with Upstream(trial.witness) as host:
            (tmp_path / "home").mkdir(mode=0o700)
            await furnish(tmp_path / "home" / "moonpool.db", CLIENTS)
            server = Crashing(tmp_path, host.base_url)
            configure(server, host.base_url)
            plan: list[tuple[str, tuple[str, int] | None]] = [(point, None) for point in POINTS.values()]
            plan += [("none", moment) for moment in MOMENTS.values()]
            server.point = plan[0][0]
            async with served(tmp_path, host.base_url, made=server):
                for turn, (_, moment) in enumerate(plan):
                    if moment is not None:
                        trial.witness.told = _killer(server, *moment)
                    # It is the next start whose point is set here: this one has been started with its own.
                    server.point = plan[turn + 1][0] if turn + 1 < len(plan) else "none"
                    await trial.round(server, turn, _dies)
                    trial.witness.told = lambda moment: None
                # One more kill, and a recovery that is killed again and again.
                trial.witness.told = _killer(server, "word", 30)
                server.early = [*RECOVERY, "start after COMMIT of INSERT INTO resolutions 1"]
                await trial.round(server, len(plan), _dies)
            assert trial.tally.kills == len(plan) + 1
            return server.path

    path = uvloop.run(run())
    connection = sqlite3.connect(path)
    deposits = {row[0] for row in connection.execute("SELECT id FROM deposits WHERE account = 'a1'")}
    (settled,) = connection.execute("SELECT count(*) FROM settlements").fetchone()
    connection.close()
    told = set((path.parent / "cashier").read_text().split())
    assert told <= deposits
    assert len(told) > 5
    assert settled > 3


def _killer(server: Served, moment: str, times: int) -> Callable[[str], None]:
    left = [times]

    def told(what: str) -> None:
        left[0] -= what == moment
        if left[0] == 0 and what == moment:
            server.signal(signal.SIGKILL)

    return told
