"""How does a client that lost its connection come back to its answer? By a tape of what was written.

With `x-moonpool-resume: 1` on a streamed request a `Tape` stands between the reply and the client's connection: a
Writer for the one, a Listener for the other. When the client goes, the reply does not hear of it: the host is read on
for `streams.resume_s`, and whoever comes back with the stream's id and the number of events it has read gets those
after it, and what follows. A client is a subscriber only; request, hold and settlement are one and stay one.

Rules: without the header there is no tape. A client that goes before the head was written knows no id, so that is the
end, as without a tape. What a tape has is what was delivered: the client can still fetch it, so it is paid. Keep-alives
go to whoever is there and are not recorded. Time is looked at once a second, by `beat`.

Sources: DESIGN 7.3; PROVIDERS 5.3 row 1 (why events are counted and carry no `id:`: docs/decisions/0009).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from moonpool.errors import Problem
from moonpool.relay.writer import Fields, Listener, Writer
from moonpool.settings import Streams
from moonpool.words import Arrival, Call

HEADER: Final = "x-moonpool-resume"
ID_HEADER: Final = "x-moonpool-stream"
PIECE_BYTES: Final = 32 * 1024  # of a replay, in one turn of the loop: then the client's pause is heard
FINISHED_MAX: Final = 10_000
_MARK_BYTES: Final = 8  # what the offset of one event takes
_WAITING: Final = -1  # instead of an offset: the client has read more events than there are


class Tape:
    """One answer's bytes, for whoever reads them now.

    Offsets count from the begin of the answer; `_base` is the first that is still kept, `_first` the number of events
    before it, `_ends` where each later event ends.
    """

    __slots__ = (
        "_at", "_base", "_buffer", "_client", "_ends", "_fields", "_first", "_full", "_held", "_listener", "_next_soon",
        "_paused", "_started", "_tapes", "_type", "_wanted", "account", "deadline", "id", "over",
    )  # fmt: skip

    def __init__(self, tapes: Tapes, stream_id: str, account: str, client: Writer) -> None:
        self.id = stream_id
        self.account = account
        self.deadline = 0.0
        self.over = False
        self._tapes = tapes
        self._client: Writer | None = client
        self._listener: Listener | None = None
        self._started = False
        self._type = ""
        self._fields: Fields = []
        self._buffer = bytearray()
        self._ends = array("Q")
        self._base = self._first = 0
        self._at = 0  # how far the client was written to
        self._wanted = 0  # while that is _WAITING: the number of events it has read
        self._paused = False  # the client takes no more for now
        self._held = False  # the reply was told so
        self._full = self._next_soon = False

    @property
    def size(self) -> int:
        """The bytes it takes."""
        return len(self._buffer) + _MARK_BYTES * len(self._ends)

    @property
    def events(self) -> int:
        """How many events there were."""
        return self._first + len(self._ends)

    @property
    def attached(self) -> bool:
        return self._client is not None

    # What the reply does: the Writer.

    def listen(self, listener: Listener | None) -> None:
        self._listener = listener
        if self._client is not None:
            self._client.listen(None if listener is None else self)

    def whole(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        """A refusal before the first byte: nothing to come back to."""
        self.over = True
        self._listener = None
        client = self._leave()
        if client is not None:
            client.whole(status, content_type, fields, body)

    def start(self, status: int, content_type: str, fields: Fields) -> None:
        if self.over or self._client is None:
            return
        self._started = True
        self._type = content_type
        self._fields = [*fields, (ID_HEADER, self.id)]
        self._tapes.begun(self)
        self._client.start(status, content_type, self._fields)

    def write(self, data: bytes) -> None:
        """Whole events, or one comment."""
        if self.over or not data:
            return
        client = self._client
        live = self._at == self._end()
        if data.startswith(b":"):
            if client is not None and (live or self._at == _WAITING):
                client.write(data)
            return
        self._record(data)
        if client is not None:
            if live and not self._paused:
                self._at = self._end()
                client.write(data)
            elif not self._next_soon:
                self._go_on()
            self._balance()
        self._tapes.grown(self)

    def end(self) -> None:
        if self.over:
            return
        self.over = True
        self._listener = None
        self._tapes.ended(self)
        self._go_on()

    def cut(self) -> None:
        """Something of ours is broken: nobody can come back to this."""
        if self.over:
            return
        self.over = True
        self._listener = None
        self._tapes.forget(self)
        client = self._leave()
        if client is not None:
            client.cut()

    # What the client's connection tells: the Listener.

    def gone(self) -> None:
        listener = self._listener
        self._leave()
        if self.over:
            return
        if not self._started:
            self.over = True
            self._listener = None
            if listener is not None:
                listener.gone()
            return
        # Room for what comes now. What was on its way to the client it may not have read.
        self.trim(self._tapes.limits.resume_bytes_max // 2)
        self._balance()
        self._tapes.left(self)

    def pause(self) -> None:
        self._paused = True
        self._balance()

    def resume(self) -> None:
        self._paused = False
        self._go_on()
        self._balance()

    def probe(self) -> None:
        if self._listener is not None:
            self._listener.probe()

    # Who comes back.

    def attach(self, client: Writer, after: int) -> None:
        """Write everything after the event `after` to `client`, then what comes. Whoever was there before is cut: its
        answer has no end mark. Raises caller.invalid_value where those events are no longer kept."""
        if after < self._first:
            raise Problem(
                "caller.invalid_value",
                f"The events up to number {self._first} are no longer kept: after must be at least that.",
                param="after",
            )
        before = self._leave()
        if before is not None:
            before.cut()
        self._client = client
        self._wanted = after
        self._at = _WAITING
        self._tapes.came(self)
        client.start(200, self._type, self._fields)
        client.listen(self)
        self._go_on()
        self._balance()

    def peek(self, client: Writer) -> None:
        """The head alone, and nobody is cut."""
        client.start(200, self._type, self._fields)
        client.end()

    def give_up(self, problem: Problem) -> None:
        """Nobody came back, or there is no room: for the reply the client has gone. What is there can be fetched, and
        ends with an error, so that the client does not ask for more."""
        if self.over:
            return
        listener = self._listener
        self._record(self._tapes.render(problem))
        self.end()
        if listener is not None:
            listener.gone()

    def trim(self, keep: int) -> None:
        """Forget the oldest events, but for what the client lacks and `keep` bytes before that."""
        written = self._end() if self._at == _WAITING else self._at
        count = bisect_right(self._ends, written - keep) if written > keep else 0
        if count:
            before = self.size
            cut = self._ends[count - 1]
            del self._buffer[: cut - self._base]
            del self._ends[:count]
            self._base = cut
            self._first += count
            self._tapes.held += self.size - before

    def _leave(self) -> Writer | None:
        client, self._client = self._client, None
        self._paused = False
        return client

    def _end(self) -> int:
        return self._base + len(self._buffer)

    def _record(self, data: bytes) -> None:
        before = self.size
        at, found = self._end(), data.find(b"\n\n")
        while found >= 0:
            self._ends.append(at + found + 2)
            found = data.find(b"\n\n", found + 2)
        self._buffer += data
        self._tapes.held += self.size - before

    def _go_on(self) -> None:
        """Write the next piece of what the client lacks, or the end."""
        client = self._client
        if client is None:
            return
        end = self._end()
        if self._at == _WAITING:
            if self._wanted <= self.events:
                self._at = self._ends[self._wanted - self._first - 1] if self._wanted > self._first else self._base
            elif self.over:
                self._at = end
            else:
                return
        if self._at < end and not self._paused:
            start = self._at - self._base
            piece = bytes(self._buffer[start : start + PIECE_BYTES])
            self._at += len(piece)
            client.write(piece)
            if self._at < end and not self._next_soon:
                self._next_soon = True
                self._tapes.soon(self._next)
        if self._at == end and self.over:
            self._leave()
            client.end()

    def _next(self) -> None:
        self._next_soon = False
        self._go_on()
        self._balance()

    def _balance(self) -> None:
        """The host is read no further while the client lacks something of what is there, or takes no more."""
        lacks = self._at != _WAITING and self._at != self._end()
        held = self._client is not None and (self._paused or lacks)
        if held != self._held and self._listener is not None:
            self._held = held
            if held:
                self._listener.pause()
            else:
                self._listener.resume()

    def fill(self) -> None:
        """There is no room for more while nobody reads. Not from within a write: the answer may end with it."""
        if not self._full:
            self._full = True
            self._tapes.soon(self._overflow)

    def _overflow(self) -> None:
        self._full = False
        if self._client is None:
            self.give_up(Problem("caller.gone", "The stream had no reader, and grew larger than what is kept."))


class Tapes:
    """All tapes there are. `held` are the bytes of their answers, `detached` those that run with nobody reading.

    `soon` calls in the next turn of the loop; `render` makes an error event.
    """

    def __init__(
        self,
        limits: Streams,
        monotonic: Callable[[], float],
        soon: Callable[[Callable[[], object]], object],
        render: Callable[[Problem], bytes],
    ) -> None:
        self.limits = limits
        self.soon = soon
        self.render = render
        self.held = 0
        self.detached: dict[str, Tape] = {}  # the earliest deadline first, and so the next one
        self._finished: dict[str, Tape] = {}
        self._known: dict[str, Tape] = {}
        self.monotonic = monotonic
        self._stopping = False

    def wrap(self, client: Writer, arrival: Arrival, call: Call, account: str) -> Writer:
        """What the reply writes to: `client` itself, or a tape where the request asks for one."""
        if arrival.headers.get(HEADER) != "1" or not call.stream or not self.limits.resume_s:
            return client
        return Tape(self, arrival.id, account, client)

    def find(self, stream_id: str, account: str) -> Tape:
        """Raises caller.not_found: in the same words whether it is unknown or another account's."""
        tape = self._known.get(stream_id)
        if tape is None or tape.account != account:
            raise Problem("caller.not_found", "There is no such stream, or no longer.")
        return tape

    def beat(self) -> None:
        """Once a second: let go what nobody came back for."""
        now = self.monotonic()
        for tape in list(self.detached.values()):
            if tape.deadline > now:
                break
            tape.give_up(Problem("caller.gone", "Nobody came back for this stream in time."))
        for tape in list(self._finished.values()):
            if tape.deadline > now:
                break
            self.forget(tape)

    def drain(self) -> None:
        """The server stops: nobody can come back any more."""
        self._stopping = True
        for tape in list(self.detached.values()):
            tape.give_up(Problem("platform.stopping"))

    # What tapes tell.

    def begun(self, tape: Tape) -> None:
        self._known[tape.id] = tape

    def left(self, tape: Tape) -> None:
        if self._stopping:
            tape.give_up(Problem("platform.stopping"))
            return
        tape.deadline = self.monotonic() + self.limits.resume_s
        self.detached[tape.id] = tape

    def came(self, tape: Tape) -> None:
        self.detached.pop(tape.id, None)

    def grown(self, tape: Tape) -> None:
        """Look whether there is room for what was recorded: the oldest finished ones make it, else the tape itself."""
        if tape.over:
            return
        if tape.size > self.limits.resume_bytes_max:
            if tape.attached:
                tape.trim(self.limits.resume_bytes_max // 2)
            else:
                tape.fill()
        if self.held > self.limits.resume_total_bytes_max and not self._make_room():
            if tape.attached:
                tape.trim(0)
            else:
                tape.fill()

    def ended(self, tape: Tape) -> None:
        self.detached.pop(tape.id, None)
        tape.deadline = self.monotonic() + self.limits.resume_keep_s
        self._finished[tape.id] = tape
        self._make_room()

    def forget(self, tape: Tape) -> None:
        """Who reads it now still gets it whole."""
        self.detached.pop(tape.id, None)
        self._finished.pop(tape.id, None)
        if self._known.pop(tape.id, None) is not None:
            self.held -= tape.size

    def _make_room(self) -> bool:
        while self._finished and (self.held > self.limits.resume_total_bytes_max or len(self._finished) > FINISHED_MAX):
            self.forget(next(iter(self._finished.values())))
        return self.held <= self.limits.resume_total_bytes_max
