"""Many requests at once, and what to say of them all."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from msgspec.structs import force_setattr

from faults.stage import Answer, Stage, chat
from moonpool.relay.fleet import Fleet


async def storm(here: Stage, count: int, at_once: int, **more: Any) -> list[tuple[Answer, float]]:
    """So many requests, so many at once; each answer and how long it took."""
    loop, left, found = asyncio.get_running_loop(), itertools.count(), []

    async def worker() -> None:
        while next(left) < count:
            began = loop.time()
            got = await here.ask(chat(**more))
            found.append((got, loop.time() - began))

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return found


def forget(here: Stage) -> None:
    """From now on the hosts have no past."""
    platform = here.app.platform
    force_setattr(platform, "fleet", Fleet(platform.settings.routing, time.monotonic, platform.journal.note))


def well(got: Answer) -> bool:
    """A whole answer, with status 200 and no error inside."""
    return got.status == 200 and got.complete and (not got.events or got.failure is None)


def served(found: list[tuple[Answer, float]]) -> float:
    """The share of those that were."""
    return sum(well(got) for got, _ in found) / len(found)


def middle(found: list[tuple[Answer, float]]) -> float:
    return sorted(took for _, took in found)[len(found) // 2]
