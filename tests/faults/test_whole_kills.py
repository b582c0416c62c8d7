"""A real server, started from its command line, killed at any moment with some two hundred streams open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import uvloop

from faults.kills import NOTED_S, SLACK_S, Tally, Trial, configure, furnish
from faults.stage import Served, served
from faults.upstream import Upstream

KILLS = int(os.environ.get("KILLS", "60"))
SEED = os.environ.get("SEED", "65")
EACH = 15
"""So many kills one home lives through."""


async def _killed(folder: Path, seed: str, kills: int) -> Tally:
    trial = Trial(folder, seed)
    async with Upstream(trial.witness) as host:
        home = folder / "home"
        home.mkdir(mode=0o700)
        await furnish(home / "moonpool.db")
        server = Served(folder, host.base_url)
        configure(server, host.base_url)
        async with served(folder, host.base_url, made=server):
            for turn in range(kills):
                await trial.round(server, turn)
    return trial.tally


@pytest.mark.parametrize("block", range(-(-KILLS // EACH)))
def test_killed_at_any_moment_every_dispatch_has_one_record(block: int, tmp_path: Path) -> None:
    """Case 65: SIGKILL at a random moment with 200 streams open. After each start: no hold is
    open, the books are sound, and each dispatch that the host saw has exactly one record, of the account that asked;
    finished requests are charged what the host issued, to the last unit; a stream that was killed is charged what it
    had come to, less what was issued since the last note (2 s)."""
    kills = min(EACH, KILLS - block * EACH)
    tally = uvloop.run(_killed(tmp_path, f"{SEED}/{block}", kills))
    assert tally.kills == kills
    assert tally.dispatches > 100 * kills, tally
    assert tally.open > 10 * kills, tally
    assert tally.lost_s <= NOTED_S + SLACK_S, tally
    assert kills < EACH or tally.noted > 100, tally
    print(f"seed {SEED}/{block}: {tally}")
