"""What do the connections of one server share? Its limits, its counters, and what it does for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.web.answer import Exchange
from moonpool.words import Arrival

if TYPE_CHECKING:
    from moonpool.web.protocol import Connection

Handler = Callable[[Arrival, Exchange], object]


class Limits(Struct, frozen=True, kw_only=True):
    """What one connection may use. Times in seconds, sizes in bytes.

    `head_s` counts from the accept, or from the first byte of a later request; `body_s` from the end of the head, and
    after `body_grace_s` the body must have come at `body_bytes_per_s` at least. `stall_s` is how long a client may
    take nothing while more than `high_water` waits for it; `waiting_bytes_max` is how much may wait unread behind a
    running request before we stop reading. `connections_max` 0: as many as descriptors allow.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    body_grace_s: float = 5.0
    body_bytes_per_s: int = 1024
    body_bytes_max: int = 4 * 1024 * 1024
    idle_s: float = 75.0
    stall_s: float = 30.0
    linger_s: float = 2.0
    high_water: int = 32 * 1024
    waiting_bytes_max: int = 64 * 1024
    connections_max: int = 0


class Counters:
    """Since the start: connections accepted and refused, requests handed on, bytes both ways, clients cut for taking
    nothing, faults of handlers, and requests refused here, by error code."""

    __slots__ = ("accepted", "bytes_in", "bytes_out", "cut", "faults", "problems", "refused", "requests")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.cut = 0
        self.faults = 0
        self.problems: dict[str, int] = {}


class Hub(Protocol):
    """What a connection asks of its server. `now` is monotonic and as old as the last tick; `clock` is UTC."""

    handler: Handler
    render: Callable[[Problem], bytes]
    fault: Callable[[BaseException, str], object]
    new_id: Callable[[], str]
    clock: Callable[[], float]
    limits: Limits
    counters: Counters
    now: float
    draining: bool

    def joined(self, connection: Connection) -> bool:
        """False: there are too many; the connection is to say so and close."""

    def left(self, connection: Connection) -> None: ...

    def soon(self, run: Callable[[], object]) -> None:
        """Call it in the next turn of the loop."""

    def flush_later(self, exchange: Exchange) -> None:
        """Call its `flush` when this turn of the loop is over."""
