"""A whole stage that lives by a test's clock, and twins as its hosts.

`before_twins(home, script, …)` is a stage with one twin for each script, in that order of preference; `by_clock(clock)`
is a `prepare` for any stage: deadlines of hosts, breakers, lines and leases then look at `clock`, and `pass_time` is
what makes it later. Minutes pass in milliseconds, and nothing waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from msgspec.structs import force_setattr

from faults.sink import Clock
from faults.stage import Stage, records, stage
from moonpool.app import App
from moonpool.relay.fleet import Fleet
from moonpool.transports.http import HttpTransport
from moonpool.twin import Twin
from moonpool.twin.log import Served

FLASH = "deepseek-flash"
_STEP_S = 1.0


def by_clock(clock: Clock, **transport: Any) -> Callable[[App], None]:
    """`transport`: what the HTTP transport gets besides (`resolve`)."""

    def prepare(app: App) -> None:
        platform, upstream = app.platform, app.settings.upstream
        app.transports["http"] = HttpTransport(
            now=clock, connections_max=upstream.connections_max, idle_s=upstream.idle_s, **transport
        )
        force_setattr(platform, "monotonic", clock)
        draw = random.Random(0).random
        force_setattr(platform, "fleet", Fleet(platform.settings.routing, clock, platform.journal.note, draw))

    return prepare


async def pass_time(here: Stage, clock: Clock, span_s: float) -> None:
    """Second by second, with all that happens once a second."""
    platform = here.app.platform
    for _ in range(round(span_s / _STEP_S)):
        clock.at += _STEP_S
        platform.limiter.tick(clock.at)
        here.app.transports["http"].tick()  # type: ignore[attr-defined]
        here.beat()
        platform.fleet.tick()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def before_twins(home: Path, *scripts: Any, **options: Any) -> AsyncIterator[tuple[Stage, list[Twin]]]:
    """In the end nothing runs at the twins, none made a mistake, and their record fits the ledger's."""
    async with contextlib.AsyncExitStack() as stack:
        twins = [await stack.enter_async_context(Twin("deepseek", faults=script)) for script in scripts]
        rows = {
            f"twin{at}": {"base_url": twin.base_url, "dialect": "deepseek", "api_key": f"sk-pool.{at}"}
            for at, twin in enumerate(twins)
        }
        options = {"model_name": FLASH, "rows": rows, **options}
        async with stage(home, **options) as here:
            yield here, twins
        for twin in twins:
            await twin.until(lambda twin=twin: all(served.ended for served in twin.served))
            assert twin.faults_of_ours == []
    agree(here.path, [served for twin in twins for served in twin.served])


def agree(path: Path, asked: list[Served]) -> None:
    """Two books that share nothing: each dispatch a twin saw is in the ledger, and what the ledger believes of usage
    is what a twin says it was, token for token."""
    rows = records(path)
    assert len(asked) <= sum(row.attempts for row in rows)
    whole = sorted((at.usage.prompt_miss + at.usage.prompt_hit, at.usage.completion) for at in asked)
    for row in rows:
        if row.kind == "posted" and not row.estimated and row.attempts == 1:
            whole.remove((row.prompt, row.completion))
