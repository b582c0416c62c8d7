"""The connections to one origin with one credential: who uses which, and who waits.

A slot is taken from the moment a connection is dialed until it is closed, and is freed by exactly one of
`discard`, `leave` and `undialed`, synchronously, so a storm of cancelled requests leaves every slot usable at
once. Idle connections are used last in, first out, so that the ones not needed grow old and are closed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.transports.dial import Dial, Route
from moonpool.transports.exchange import Exchange
from moonpool.transports.origin import Heads

if TYPE_CHECKING:
    from moonpool.transports.connection import Connection
    from moonpool.transports.http import HttpTransport


class Limits(Struct, frozen=True):
    """Of one pool: connections, and for how long (s) one may be idle. Of one answer: bytes of its head (with
    interim ones), header fields, bytes of its body."""

    connections_max: int
    idle_s: float
    head_bytes_max: int
    fields_max: int
    body_bytes_max: int


class Pool:
    __slots__ = ("_idle", "_open", "_waiting", "client", "heads", "limits", "route")

    def __init__(self, client: HttpTransport, limits: Limits, route: Route, heads: Heads) -> None:
        self.client = client
        self.limits = limits
        self.route = route
        self.heads = heads
        self._idle: deque[Connection] = deque()
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        self._open = 0

    def __len__(self) -> int:
        """Slots taken: connections that run, are idle or are being dialed."""
        return self._open

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    # Exchanges.

    def start(self, exchange: Exchange) -> None:
        """Run it on an idle connection, else on a new one, else let it wait its turn."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            connection.idle = False
            if connection.usable():
                connection.run(exchange)
                return
            self._free(connection)
        if self._open < self.limits.connections_max:
            self._dial(exchange)
        else:
            self._waiting[exchange] = None

    def leave(self, exchange: Exchange) -> None:
        """The exchange wants no more: free what it holds."""
        if exchange.connection is not None:
            connection, exchange.connection = exchange.connection, None
            self.discard(connection)
        elif exchange.dial is not None:
            dial, exchange.dial = exchange.dial, None
            self._open -= 1
            dial.cancel()
            self._serve()
        else:
            self._waiting.pop(exchange, None)

    def _dial(self, exchange: Exchange) -> None:
        self._open += 1
        exchange.dial = Dial(self, exchange)

    def _serve(self) -> None:
        while self._waiting and self._open < self.limits.connections_max:
            self._dial(self._waiting.popitem(last=False)[0])

    # Dials.

    def dialed(self, exchange: Exchange, connection: Connection) -> None:
        """The exchange's slot goes over to its new connection."""
        exchange.dial = None
        connection.counted = True
        self.client.live.add(connection)
        connection.run(exchange)

    def undialed(self, exchange: Exchange, problem: Problem) -> None:
        exchange.dial = None
        self._open -= 1
        self._serve()
        exchange.end(problem)

    # Connections.

    def lost(self, connection: Connection) -> None:
        self.client.forget(connection)

    def give_back(self, connection: Connection) -> None:
        """Its answer is whole: it serves who waits longest, or is idle."""
        if self._waiting:
            connection.run(self._waiting.popitem(last=False)[0])
        else:
            connection.idle = True
            connection.idle_at = self.client.at
            self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """Close it and free its slot, once."""
        if connection.idle:
            connection.idle = False
            self._idle.remove(connection)
        self._free(connection)
        self._serve()

    def replace(self, connection: Connection, exchange: Exchange) -> None:
        """It died under a request that was not answered: the request takes the slot along to a new one."""
        self._free(connection)
        exchange.connection = None
        self._dial(exchange)

    def _free(self, connection: Connection) -> None:
        if connection.counted:
            connection.counted = False
            self._open -= 1
        connection.drop()

    def sweep(self, now: float) -> float | None:
        """Close what was idle too long. Returns when the next one will have been (None: nothing is idle)."""
        idle = self._idle
        while idle:
            until = idle[0].idle_at + self.limits.idle_s
            if until > now:
                return until
            connection = idle.popleft()
            connection.idle = False
            self._free(connection)
        return None
