"""The parts a request may touch, one record, built once in app.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from moonpool.catalog.catalog import Catalogue
from moonpool.dialects.base import Dialect
from moonpool.relay.fleet import Fleet
from moonpool.relay.journal import Journal
from moonpool.relay.meters import Meters
from moonpool.relay.resume import Tapes
from moonpool.settings import Settings
from moonpool.state.base import Books, Keys, Limiter, Vault
from moonpool.transports.base import Transport

if TYPE_CHECKING:
    from moonpool.relay.reply import Reply


class Platform(Struct, frozen=True):
    """`client` is the dialect clients speak; `clock` gives Unix seconds, `monotonic` spans; `new_id` an id for a
    request; `active` are the replies that run now; `vault` is None where no reasoning is remembered."""

    settings: Settings
    catalogue: Catalogue
    dialects: Mapping[str, Dialect]
    client: Dialect
    transports: Mapping[str, Transport]
    books: Books
    keys: Keys
    vault: Vault | None
    limiter: Limiter
    fleet: Fleet
    meters: Meters
    journal: Journal
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    active: set[Reply]
    tapes: Tapes
    switches: Mapping[str, str]
    """What a key's switches are where it has none of its own: `keepalive`, `usage`, `conflicts`, `continuation`."""
    beat_s: int
    parts: Callable[[], Mapping[str, Any]]
    """How the parts are that a request does not see, for /ready, /metrics and `doctor`: `store` ("ok" or a sentence),
    `embedded` (None, or state, since, pid), `vault` (None, or stored, lost, trouble), `connections` (open,
    requests)."""
