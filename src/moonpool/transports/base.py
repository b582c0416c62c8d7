"""How bytes reach a model and come back: two protocols, and who calls whom.

A transport pushes: `send` returns at once, and everything that happens is told to the `Sink`, from callbacks of
the event loop. There is exactly one `end`, always the last call, and none comes from within `send` itself.
"""

from __future__ import annotations

from typing import Protocol

from moonpool.errors import Problem
from moonpool.words import Headers, Host, Outbound


class Sink(Protocol):
    """Who listens to an answer."""

    def head(self, status: int, headers: Headers) -> None:
        """The response head (1xx are swallowed). Names are lower case."""

    def data(self, chunk: bytes) -> None:
        """Some bytes of the body, any slicing, transfer coding removed."""

    def end(self, problem: Problem | None) -> None:
        """The answer is over: whole (None), or broken (`upstream.unreachable`, `.timeout`, `.cut`, `.too_large`,
        `.nonsense`, `platform.model_failed`). Not called after `Inbound.close`."""

    def alive(self) -> None:
        """Something came that is no body: the host is at work (optional news; resets nothing of ours)."""


class Inbound(Protocol):
    """An answer under way."""

    def pause(self) -> None:
        """Stop reading from the host until `resume`; the gap deadline stands still."""

    def resume(self) -> None: ...

    def close(self) -> None:
        """We want no more of it: the connection is dropped at once, its pool slot is free, the sink hears
        nothing further. Idempotent, and allowed after the end."""


class Transport(Protocol):
    def send(self, host: Host, outbound: Outbound, sink: Sink) -> Inbound: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Close everything; running answers end with `platform.stopping`."""
