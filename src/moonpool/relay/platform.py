"""The parts a request may touch, one record, built once in app.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from moonpool.catalog.catalog import Catalogue
from moonpool.dialects.base import Dialect
from moonpool.relay.brake import Brake
from moonpool.relay.fleet import Fleet
from moonpool.relay.journal import Journal
from moonpool.relay.meters import Meters
from moonpool.relay.offer import Offer
from moonpool.relay.once import Answers
from moonpool.relay.resume import Tapes
from moonpool.relay.tariffs import Tariffs
from moonpool.settings import Settings
from moonpool.state.base import Books, Keys, People, Vault
from moonpool.state.base_admin import Office
from moonpool.state.base_limits import Limiter
from moonpool.state.base_prices import Overrides
from moonpool.state.base_reports import Reports
from moonpool.transports.base import Transport

if TYPE_CHECKING:
    from moonpool.relay.reply import Reply


def switches_of(settings: Settings) -> Mapping[str, str]:
    """See `Platform.switches`."""
    streams = settings.streams
    return {
        "keepalive": "comment",
        "usage": streams.usage,
        "conflicts": "adapt",
        "continuation": streams.continuation,
    }


class Platform(Struct, frozen=True):
    """`client` is the dialect clients speak; `clock` gives Unix seconds, `monotonic` spans; `new_id` an id for a
    request; `catalogue` is what `offer` has now, replaced whole when that changes, and nothing else here is; `active`
    are the replies that run now; `tariffs` are the prices that accounts agreed on, `overrides` is where those are kept;
    `vault` is None where no reasoning is remembered."""

    settings: Settings
    catalogue: Catalogue
    offer: Offer
    dialects: Mapping[str, Dialect]
    client: Dialect
    transports: Mapping[str, Transport]
    books: Books
    keys: Keys
    people: People
    reports: Reports
    overrides: Overrides
    tariffs: Tariffs
    office: Office
    vault: Vault | None
    limiter: Limiter
    key_brake: Brake
    token_brake: Brake
    fleet: Fleet
    meters: Meters
    journal: Journal
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    active: set[Reply]
    tapes: Tapes
    answers: Answers
    switches: Mapping[str, str]
    """What a key's switches are where it has none of its own: `keepalive`, `usage`, `conflicts`, `continuation`."""
    beat_s: int
    parts: Callable[[], Mapping[str, Any]]
    """How the parts are that a request does not see, for /ready, /metrics and `doctor`: `store` and `limits` ("ok" or
    a sentence), `loop` (trouble, a sentence or None; stalls; stalled_s),
    `embedded` (None, or state, since, pid), `vault` (None, or stored, lost, trouble), `connections` (open,
    requests)."""


def request_ids() -> Callable[[], str]:
    """Ids of 32 hexadecimal digits that sort by time: milliseconds of the start, 40 random bits, a counter.
    Ids of one process never repeat, and appending them to an index touches its last page only."""
    prefix = f"{time.time_ns() // 1_000_000:012x}{os.urandom(5).hex()}"
    count = 0

    def new_id() -> str:
        nonlocal count
        count += 1
        return f"{prefix}{count:010x}"

    return new_id
