"""One request and its answer, as long as it is under way: its deadlines, and the handle that `send` returns.

Deadlines are looked at by the transport's coarse ticker, so an answer that moves costs no timer and no look at
the clock: the connection only sets `moved`, and the ticker notes when it saw that. A deadline is met up to two
ticks late.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from moonpool.errors import Problem
from moonpool.transports.base import Sink
from moonpool.words import Headers, Host

if TYPE_CHECKING:
    from moonpool.transports.connection import Connection
    from moonpool.transports.dial import Dial
    from moonpool.transports.pool import Pool


class _Nobody:
    """The sink of an exchange that is over: breaks the circle between the two."""

    def head(self, status: int, headers: Headers) -> None: ...
    def data(self, chunk: bytes) -> None: ...
    def end(self, problem: Problem | None) -> None: ...
    def alive(self) -> None: ...


_NOBODY: Final = _Nobody()


def tell_end(sink: Sink, problem: Problem | None, report: Callable[[BaseException], None]) -> None:
    try:
        sink.end(problem)
    except Exception as error:  # the edge to the sink: its fault must not reach the event loop's callbacks
        report(error)


class Exchange:
    """Waiting for a connection, dialing one, or running on one; then over, for ever.

    `content`: something else than comments and blank lines has come, so the first deadline is met.
    `moved`: body bytes came since the last tick. `retried`: the one transparent retry was used.
    """

    __slots__ = (
        "_first_until", "_last_at", "_paused_at", "_pool", "_total_until", "connection", "content", "dial", "host",
        "moved", "over", "paused", "request", "retried", "sink",
    )  # fmt: skip

    def __init__(self, pool: Pool, host: Host, request: tuple[bytes, ...], sink: Sink, now: float) -> None:
        self._pool = pool
        self.host = host
        self.request = request
        self.sink = sink
        self.connection: Connection | None = None
        self.dial: Dial | None = None
        self.content = False
        self.moved = False
        self.over = False
        self.paused = False
        self.retried = False
        self._first_until = now + host.first_s
        self._total_until = now + host.total_s
        self._last_at = math.inf
        self._paused_at: float  # while `paused`

    # What the relay does (transports.base.Inbound).

    def pause(self) -> None:
        if self.paused or self.over:
            return
        self.paused = True
        self._paused_at = self._pool.client.now()
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        if not self.paused or self.over:
            return
        self.paused = False
        self._first_until += self._pool.client.now() - self._paused_at
        self.moved = self._last_at != math.inf
        if self.connection is not None:
            self.connection.resume()

    def close(self) -> None:
        if not self.over:
            self._close()
            self._pool.leave(self)

    # What the transport does.

    def end(self, problem: Problem | None) -> None:
        """Tell the sink, once. Whoever calls has freed the connection before."""
        if self.over:
            return
        client = self._pool.client
        sink = self.sink
        # `_close`, without the call: this is the end of every answer.
        self.over = True
        self.sink = _NOBODY
        self.request = ()
        client.active.discard(self)
        tell_end(sink, problem, client.report)

    def stop(self) -> None:
        self._pool.leave(self)
        self.end(Problem("platform.stopping"))

    def fault(self, error: BaseException) -> None:
        """Code of ours failed while it handled this answer: end it, and say so where faults are logged."""
        if not self.over:
            self._pool.client.report(error)
            self.end(Problem("platform.fault", detail=f"{self.host.name}: {type(error).__name__} in the answer's sink"))

    def tick(self, now: float) -> None:
        """End the answer if it is late."""
        host = self.host
        if now >= self._total_until:
            self._late(f"not finished within {host.total_s:g} s")
        elif self.dial is not None and self.dial.is_late(now):
            # Nothing was sent, so nothing can have been spent.
            self._late(f"no connection within {host.connect_s:g} s", "upstream.unreachable")
        elif self.paused:
            return
        elif not self.content and now >= self._first_until:
            self._late(f"no content within {host.first_s:g} s")
        elif self.moved:
            self.moved = False
            self._last_at = now
        elif now - self._last_at >= host.gap_s:
            self._late(f"silent for {host.gap_s:g} s")

    def _late(self, why: str, code: str = "upstream.timeout") -> None:
        self._pool.leave(self)
        self.end(Problem(code, detail=f"{self.host.name}: {why}"))

    def _close(self) -> None:
        self.over = True
        self.sink = _NOBODY
        self.request = ()
        self._pool.client.active.discard(self)
