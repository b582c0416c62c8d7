"""The client's side of one answer: when it starts, what is said while nothing comes, and how it ends.

First-byte rule: nothing is written before the first meaningful frame (or the first keep-alive), so until then a
failure is an HTTP error with its own status, and afterwards an error event in the stream.
Headers and keep-alive forms: PROVIDERS section 6 (writing to a client), RELIABILITY 3.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from moonpool.dialects.base import Dialect
from moonpool.errors import Problem, Row
from moonpool.relay.writer import Fields, Writer
from moonpool.words import Call, Target

if TYPE_CHECKING:
    from moonpool.relay.trip import Trip

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream; charset=utf-8"
_STREAM_FIELDS: Final[Fields] = [("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no")]
_BEATS: Final = {"comment": b": keep-alive\n\n", "newline": b": keep-alive\n", "off": b""}
_BLANKS: Final = {"comment": b"\n", "newline": b"\n", "off": b""}


class Source(Protocol):
    """Where an answer comes from, as far as the client's side can act on it."""

    def gone(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self, problem: Problem) -> None: ...


class Reply:
    """One answer to one client. Also the writer's listener; what happens there goes on to `source`."""

    __slots__ = (
        "_adjusted",
        "_beat",
        "_drain_s",
        "_model",
        "_pending",
        "_quiet",
        "_quiet_max",
        "_rates",
        "_receipts",
        "_target",
        "_writer",
        "delivered",
        "doomed",
        "id",
        "left_s",
        "opened",
        "over",
        "paused",
        "source",
        "stream",
        "switches",
        "trip",
    )

    def __init__(
        self,
        writer: Writer,
        call: Call,
        switches: Mapping[str, str],
        beat_s: int,
        drain_s: int = 0,
        rates: Fields | None = None,
    ) -> None:
        """`switches`: the key's over the settings' (`keepalive`, `usage`); `beat_s`: seconds of silence, 0 for ever;
        `drain_s`: how long the host of a stream is read on when the client has left. While that lasts `left_s` are the
        seconds that remain, and `delivered` what the client got: characters (ASCII, others, of reasoning).
        `rates`: header fields that every answer gets."""
        self.id = call.id
        self.switches = switches
        self.stream = call.stream
        self._beat = (_BEATS if call.stream else _BLANKS)[switches["keepalive"]]
        self._quiet = 0
        self._quiet_max = beat_s
        self._model = call.model
        self._rates = rates
        self._receipts = call.adjusted
        self._target: Target | None = None
        self._pending = b""
        self._writer = writer
        self._drain_s = drain_s
        self.left_s = 0
        self.delivered = (0, 0, 0)
        self.doomed: Problem | None = None
        self.opened = False
        self.over = False
        self.paused = False
        self.source: Source | None = None
        self.trip: Trip | None = None
        writer.listen(self)

    def serve_from(self, target: Target, adjusted: tuple[str, ...] = ()) -> None:
        """Name the host that answers, what it calls the model if that is another name, and what it needed to be
        different, in the answer's head, as long as that has not gone out. What a host before it began to say and was
        held back is forgotten."""
        self._target = target
        self._adjusted: tuple[str, ...] = adjusted
        self._pending = b""

    def push(self, data: bytes, meaningful: bool) -> None:
        """Bytes of a streamed answer; held back until something meaningful is among them."""
        if not self.opened:
            if not meaningful:
                self._pending += data
                return
            self._open()
            data = self._pending + data
        elif self.over:  # the client has left, and the host is read on
            return
        self._quiet = 0
        self._writer.write(data)

    def finish(self, tail: bytes) -> None:
        """The answer is whole: `tail` is its last bytes (of a stream) or all of them."""
        if self.over:
            return
        self.over = True
        if self.opened:
            self._writer.write(tail)
            self._writer.end()
        elif self.stream:
            self._open()
            self._writer.write(self._pending + tail)
            self._writer.end()
        else:
            self._writer.whole(200, JSON, self._head(), tail)

    def refuse(self, problem: Problem, dialect: Dialect) -> int:
        """Tell the client of a problem, in whatever way is left. The status that was sent is returned."""
        if self.over:
            return problem.status
        self.over = True
        if self.opened:
            self._writer.write(dialect.render_problem(problem, in_stream=self.stream))
            self._writer.end()
            return 200
        return refuse(self._writer, problem, dialect, self._rates)

    def stop(self, problem: Problem) -> None:
        """End it from outside, charged for what was delivered; before its dispatch, if there was none."""
        self.doomed = problem
        if self.source is not None:
            self.source.stop(problem)

    def beat(self) -> None:
        """Called once a second: after `quiet_max` silent ones the client is told that we are alive."""
        if self.over:
            if self.left_s > 0 and self.source is not None:
                if self.left_s == 1:
                    self.source.gone()
                else:
                    self.left_s -= 1
            return
        if not self._beat or not self._quiet_max:
            return
        self._quiet += 1
        if self._quiet >= self._quiet_max:
            if not self.opened:
                self._open()
            self._quiet = 0
            self._writer.write(self._beat)

    def remark(self, text: str) -> None:
        """A comment for people who look at the stream, where the client takes comments at all."""
        if self._beat and self.opened and self.stream and not self.over:
            self._writer.write(b": " + text.encode() + (b"\n\n" if self._beat.endswith(b"\n\n") else b"\n"))

    def _head(self) -> Fields:
        target = self._target
        if target is None:
            return self._rates or []
        fields: Fields = [("x-moonpool-host", target.host.name)]
        if self._rates is not None:
            fields += self._rates
        if target.model != self._model:
            fields.append(("x-moonpool-model", target.model))
        if self._receipts or self._adjusted:
            fields.append(("x-moonpool-adjusted", ", ".join(self._receipts + self._adjusted)))
        return fields

    def _open(self) -> None:
        self.opened = True
        if self.stream:
            self._writer.start(200, EVENTS, _STREAM_FIELDS + self._head())
        else:
            self._writer.start(200, JSON, self._head())

    # What the writer tells its listener.

    def gone(self) -> None:
        if not self.over:
            self.over = True
            if self.source is None:
                return
            trip = self.trip
            if self._drain_s and self.opened and self.stream and trip is not None:
                self.left_s = self._drain_s
                self.delivered = trip.ascii_chars, trip.wide_chars, trip.reasoning_chars
                self.source.resume()  # nothing waits for the client any more
            else:
                self.source.gone()

    def pause(self) -> None:
        self.paused = True
        if self.source is not None:
            self.source.pause()

    def resume(self) -> None:
        self.paused = False
        if self.source is not None:
            self.source.resume()

    def probe(self) -> None:
        if self._beat and self.opened and not self.over:
            self._writer.write(self._beat)


def worth_retrying(row: Row) -> bool:
    """SDKs try again on their own; they may where waiting helps and nothing was spent."""
    return row.retry == "later" or (row.retry == "other_target" and row.charge == "none")


def refuse(writer: Writer, problem: Problem, dialect: Dialect, rates: Fields | None = None) -> int:
    """An error as a whole answer. Header rules: PROVIDERS 5.1 (what SDKs act on), RELIABILITY 4.2's table."""
    fields: Fields = [*rates] if rates is not None else []
    row = problem.row
    if problem.retry_after_s is not None:
        seconds = max(1, min(120, math.ceil(problem.retry_after_s)))
        fields.append(("retry-after", str(seconds)))
    fields.append(("x-should-retry", "true" if worth_retrying(row) else "false"))
    if row.status == 401:
        fields.append(("www-authenticate", "Bearer"))
    writer.whole(row.status, JSON, fields, dialect.render_problem(problem, in_stream=False))
    return row.status
