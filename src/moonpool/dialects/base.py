"""The three protocols of a dialect. Pure: no I/O, no clock, no database; ids and times come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from moonpool.dialects.runs import Run
from moonpool.errors import Problem
from moonpool.words import Call, Event, Frame, Headers, Operation, Outbound, Target


class Identity(Struct, frozen=True, gc=False):
    """What we call an answer where the host gives no name: `id`, `created` (Unix seconds), model as asked for,
    fingerprint (who spoke)."""

    id: str
    created: int
    model: str
    fingerprint: str | None = None


class Decoder(Protocol):
    """Bytes of one answer in, frames out. Lives for one answer, may keep state, is fed any slicing of the bytes
    and gives the same events for each.

    A frame with a `Failed` event is the last. Raises only Problem (`upstream.nonsense`, `upstream.too_large`).
    """

    next: Outbound | None
    """Set by `finish` when the answer goes on: the relay sends this to the same target and feeds what comes
    back into the same decoder (several passes make one answer: thinking first, then the answer)."""

    done: bool
    """The end mark of a stream was read: nothing more will come, whether or not the host closes."""

    def start(self, status: int, headers: Headers) -> None:
        """A response head has come (once for each pass)."""

    def feed(self, data: bytes) -> list[Frame]: ...

    def read(self, data: bytes) -> Sequence[Frame | Run]:
        """As `feed`, but a decoder may give frames that come alike as runs (runs.py)."""

    def finish(self) -> list[Frame]:
        """The body ended cleanly. Raises Problem("upstream.cut") when the answer was not whole."""


class Encoder(Protocol):
    """Frames of one answer in, or runs of them, the client's bytes out."""

    def feed(self, frame: Frame | Run) -> bytes: ...

    def finish(self) -> bytes:
        """What ends the answer: `data: [DONE]` in a stream, the whole body otherwise."""


class Dialect(Protocol):
    """How a family of clients or hosts speaks. Seven methods for ever: a new endpoint is a value of `operation`."""

    name: str
    family: str

    def parse_call(self, operation: Operation, raw: bytes, call_id: str) -> Call:
        """Raises Problem (`caller.*`), its `param` naming the field."""

    def render_call(self, call: Call, target: Target) -> Outbound: ...

    def decoder(self, call: Call, target: Target) -> Decoder: ...

    def encoder(self, call: Call, identity: Identity, verbatim: bool, switches: Mapping[str, str]) -> Encoder:
        """`verbatim`: host and client are of one family, so a frame's own bytes may be handed on, under the name
        that was asked for. `switches`: the key's (words.Key)."""

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        """What an answer with an error status means."""

    def render_problem(self, problem: Problem, *, in_stream: bool) -> bytes:
        """The body of an error as this family says it to its own clients, or the last event of a stream."""

    def status_of(self, problem: Problem) -> int:
        """The HTTP status that goes with it."""


__all__ = ["Decoder", "Dialect", "Encoder", "Event", "Identity"]
