"""What happens by itself, once a second: keep-alives, streams nobody came back for, leases, how far streams have come,
holds that are past their time, what was used on credit.

One clock for all of it, instead of a timer for each request.
"""

from __future__ import annotations

import contextlib
from typing import Final

from moonpool.errors import Problem
from moonpool.relay.once import Answers
from moonpool.relay.platform import Platform
from moonpool.relay.reply import Reply
from moonpool.relay.resume import Tapes

PULSE_S: Final = 1.0
NOTE_EVERY: Final = 2
"""A killed process loses at most what its streams delivered since the last note (RELIABILITY T2)."""
SWEEP_EVERY: Final = 5
EXPIRE_EVERY: Final = 60


async def beat(platform: Platform, turn: int) -> None:
    """The turn of this number. Raises nothing but what is our own fault."""
    parts: tuple[Tapes | Answers | Reply, ...] = (platform.tapes, platform.answers, *platform.active)
    for part in parts:
        try:
            part.beat()
        except Exception as error:  # one answer's fault must not stop the pulse of all others
            platform.journal.fault("pulse", error)
    platform.fleet.tick()
    platform.limiter.tick(platform.monotonic())
    if turn % NOTE_EVERY == 0:
        note_progress(platform)
    if turn % EXPIRE_EVERY == 0:
        now = platform.clock()
        if platform.vault is not None:
            platform.vault.sweep(now)
        platform.answers.store.sweep(now)


async def sweep(platform: Platform, turn: int) -> None:
    """What waits for the database: holds of processes that died (of others over the same database, too), and now and
    then those past their time and what was used on credit. Not in `beat`, which must never wait."""
    now = platform.clock()
    with contextlib.suppress(Problem):
        await platform.books.recover(now)
        if turn % EXPIRE_EVERY == 0:
            await platform.books.expire(now)
            await platform.books.settle_hours(now)


def note_progress(platform: Platform) -> None:
    """Tell the books how far running streams have come."""
    now = platform.clock()
    trips = [reply.trip for reply in platform.active if reply.trip is not None]
    rows = [row for trip in trips if (row := trip.progress(now)) is not None]
    if rows:
        platform.books.progress(rows)
