"""What becomes of a request with an `Idempotency-Key`? It is done once, and whoever asks again reads the same answer.

A `Kept` stands between the reply and the client's connection, as a tape does (resume.py): a Writer for the one, a
Listener for the other. It notes what is sent; when the request is settled, that is stored, or the key is let go:
stored is whatever was paid, and every other end but one that costs nothing and tells the client to try again
(`x-should-retry: true`), which would be no use if it got the same again. Refusals before the hold are never stored.

A client that goes does not end the answer: it has said that it will ask again. The host is read on for
`idempotency.finish_s`; who comes meanwhile, to this process, takes the place of the one that left and misses nothing.
While a client is there, others with its key are told to wait. Why: docs/decisions/0015.

Rules: keep-alives are not noted. Time is looked at once a second, by `beat`. An answer too long to be noted is paid and
known to have been given, but cannot be read again; without a client it ends there.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from moonpool.errors import ERRORS, Problem
from moonpool.relay.reply import EVENTS, worth_retrying
from moonpool.relay.writer import Fields, Listener, Writer
from moonpool.settings import Idempotency
from moonpool.state.base import Asking, Begun, Once, Told
from moonpool.words import Arrival

HEADER: Final = "idempotency-key"
REPLAYED: Final = ("x-moonpool-replayed", "true")
KEY_CHARS_MAX: Final = 255
RUNNING_S: Final = 1.0
_UNSAID: Final = 499
_UNTOLD: Final = frozenset(("caller.gone", "account.revoked"))
"""What says nothing of the request itself."""


def asking(arrival: Arrival, scope: str, now: float, *, repeatable: bool) -> Asking:
    """What this request, which carries the header, asks under which key. Raises caller.invalid_value."""
    key = arrival.headers[HEADER]
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable():
        raise Problem(
            "caller.invalid_value",
            f"An Idempotency-Key is 1 to {KEY_CHARS_MAX} printable ASCII characters.",
            param="Idempotency-Key",
        )
    target = f"{arrival.path}?{arrival.query}" if arrival.query else arrival.path
    digest = sha256(f"{arrival.method} {target}\n".encode("utf-8", "surrogateescape") + arrival.body).digest()
    return Asking(scope, key, digest, arrival.id, now, repeatable)


def refused(found: Begun) -> Problem:
    """What a request is told that may not begin."""
    if found == "running":
        return Problem("caller.idempotency_running", retry_after_s=RUNNING_S)
    return Problem("caller.idempotency_mismatch" if found == "mismatch" else "platform.answer_lost")


def replay(writer: Writer, told: Told) -> int:
    """Give the answer again, as it was given, and say so. The status that was sent is returned."""
    assert told.body is not None
    fields = [*told.fields, REPLAYED]
    if told.content_type == EVENTS:
        writer.start(told.status, told.content_type, fields)
        writer.write(told.body)
        writer.end()
    else:
        writer.whole(told.status, told.content_type, fields, told.body)
    return told.status


class Kept:
    """One answer that is noted while it goes out."""

    __slots__ = (
        "_answers", "_buffer", "_client", "_extra", "_fields", "_listener", "_paused", "_started", "_status", "_type",
        "asking", "deadline", "full", "over",
    )  # fmt: skip

    def __init__(self, answers: Answers, request: Asking, client: Writer) -> None:
        self.asking = request
        self.deadline = 0.0
        self.over = False
        self._answers = answers
        self._client: Writer | None = client
        self._listener: Listener | None = None
        self._buffer = bytearray()
        self._status = 0
        self._type = ""
        self._fields: Fields = []
        self._extra: Fields = []  # what the head has besides, for a client that came back
        self._started = False
        self._paused = False
        self.full = False
        """It is longer than what is noted; nothing of it is."""

    @property
    def attached(self) -> bool:
        return self._client is not None

    # What the reply does: the Writer.

    def listen(self, listener: Listener | None) -> None:
        self._listener = listener
        if self._client is not None:
            self._client.listen(None if listener is None else self)

    def whole(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        if self.over:
            return
        self._head(status, content_type, fields)
        self._note(body)
        self.over = True
        self._listener = None
        client, self._client = self._client, None
        if client is not None:
            client.whole(status, content_type, fields + self._extra, body)

    def start(self, status: int, content_type: str, fields: Fields) -> None:
        if self.over:
            return
        self._head(status, content_type, fields)
        self._started = True
        if self._client is not None:
            self._client.start(status, content_type, fields + self._extra)

    def write(self, data: bytes) -> None:
        """Whole events, or a keep-alive: a comment in a stream, blank before any other answer."""
        if self.over or not data:
            return
        if not data.startswith(b":") if self._type == EVENTS else not data.isspace():
            self._note(data)
        if self._client is not None:
            self._client.write(data)

    def end(self) -> None:
        if self.over:
            return
        self.over = True
        self._listener = None
        client, self._client = self._client, None
        if client is not None:
            client.end()

    def cut(self) -> None:
        """Something of ours is broken."""
        self.over = True
        self._listener = None
        client, self._client = self._client, None
        if client is not None:
            client.cut()

    # What the client's connection tells: the Listener.

    def gone(self) -> None:
        self._client = None
        if self.over:
            return
        self._answers.left(self)
        if self._paused:
            self._paused = False
            if self._listener is not None:
                self._listener.resume()

    def pause(self) -> None:
        self._paused = True
        if self._listener is not None:
            self._listener.pause()

    def resume(self) -> None:
        self._paused = False
        if self._listener is not None:
            self._listener.resume()

    def probe(self) -> None:
        if self._listener is not None:
            self._listener.probe()

    # Who asks again, and the end.

    def join(self, client: Writer) -> None:
        """Take the place of the client that left: all that was said, and what comes."""
        self._answers.came(self)
        self._extra = [REPLAYED]
        self._client = client
        if self._started:
            client.start(self._status, self._type, self._fields + self._extra)
            client.write(bytes(self._buffer))
        client.listen(self)

    def give_up(self, problem: Problem) -> None:
        """Nobody came back, or there is no room: for the reply the client has gone. What was said of a stream stays,
        and ends with an error; of another answer nobody can use a part."""
        if self.over:
            return
        if self._started and self._type == EVENTS:
            self._note(self._answers.render(problem))
        self.over = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.gone()

    def close(self, begun: bool, paid: bool, cause: str) -> None:
        """The request is settled: it had begun, or was refused before; something is owed for it, or nothing; `cause` is
        how it ended, perhaps a row of the error table."""
        answers = self._answers
        answers.forget(self, len(self._buffer))
        row = ERRORS.get(cause)
        let_go = row is not None and not paid and (cause in _UNTOLD or worth_retrying(row))
        if begun and not let_go:
            body = bytes(self._buffer) if self._status and not self.full else None
            answers.store.finish(self.asking, Told(self._status or _UNSAID, self._type, self._fields, body))
        else:
            answers.store.drop(self.asking)
        self._buffer = bytearray()

    def _head(self, status: int, content_type: str, fields: Fields) -> None:
        self._status = status
        self._type = content_type
        self._fields = fields

    def _note(self, data: bytes) -> None:
        if self.full:
            return
        if self._answers.has_room(len(self._buffer), len(data)):
            self._buffer += data
            return
        self.full = True
        self._answers.held -= len(self._buffer)
        self._buffer = bytearray()
        if self._client is None:
            self._answers.soon(self._overflow)

    def _overflow(self) -> None:
        """Not from within a write: the answer may end with it, or somebody come."""
        if self._client is None:
            self.give_up(Problem("caller.gone", "The answer had no reader, and grew larger than what is kept."))


class Answers:
    """All requests with a key that run here. `held` are the bytes that were noted of them.

    `soon` calls in the next turn of the loop; `render` makes an error event.
    """

    def __init__(
        self,
        store: Once,
        limits: Idempotency,
        monotonic: Callable[[], float],
        soon: Callable[[Callable[[], object]], object],
        render: Callable[[Problem], bytes],
    ) -> None:
        self.store = store
        self.soon = soon
        self.render = render
        self.held = 0
        self._limits = limits
        self.monotonic = monotonic
        self._running: dict[tuple[str, str], Kept] = {}
        self.detached: dict[tuple[str, str], Kept] = {}  # the earliest deadline first, and so the next one

    async def begin(self, request: Asking, client: Writer) -> Kept | int:
        """What the reply writes to; or the status of an answer that went to `client` already. Raises
        caller.idempotency_*, platform.answer_lost, platform.storage."""
        name = (request.scope, request.key)
        kept = self._running.get(name)
        if kept is not None:
            if kept.asking.digest != request.digest:
                raise refused("mismatch")
            if kept.attached or kept.full:
                raise refused("running")
            kept.join(client)
            return 200
        found = await self.store.begin(request)
        if found == "new":
            kept = self._running[name] = Kept(self, request, client)
            return kept
        if isinstance(found, Told):
            return replay(client, found)
        raise refused(found)

    def beat(self) -> None:
        """Once a second: let go what nobody came back for."""
        now = self.monotonic()
        for kept in list(self.detached.values()):
            if kept.deadline > now:
                break
            kept.give_up(Problem("caller.gone", "Nobody asked for this answer again in time."))

    def has_room(self, there: int, more: int) -> bool:
        """Count `more` bytes for an answer that has `there`, if there is room for them."""
        limits = self._limits
        if there + more > limits.answer_bytes_max or self.held + more > limits.memory_bytes_max:
            return False
        self.held += more
        return True

    # What a Kept tells.

    def left(self, kept: Kept) -> None:
        if kept.full or not self._limits.finish_s:
            kept.give_up(Problem("caller.gone"))
            return
        kept.deadline = self.monotonic() + self._limits.finish_s
        self.detached[kept.asking.scope, kept.asking.key] = kept

    def came(self, kept: Kept) -> None:
        self.detached.pop((kept.asking.scope, kept.asking.key), None)

    def forget(self, kept: Kept, size: int) -> None:
        self.came(kept)
        self._running.pop((kept.asking.scope, kept.asking.key), None)
        self.held -= size
