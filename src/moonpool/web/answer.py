"""How does an answer look on the wire? The one implementation of `relay.writer.Writer`.

An `Exchange` lives for one request. Its head is put together from parts that were made once; a whole answer is
one write, and so is everything that is streamed in one turn of the loop: it leaves as one chunk at the end of the
turn, since a system call costs more than all else here. When it is over, or the client is gone, it forgets its
connection and every further call does nothing, so whoever holds on to it cannot write into the next answer.

Sources: RFC 9112 sections 6 and 7; RELIABILITY 3.6.
"""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from moonpool.errors import Problem
from moonpool.relay.writer import Fields, Listener
from moonpool.web.head import Head

if TYPE_CHECKING:
    from moonpool.web.protocol import Connection

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
_UNSEEN: Final = re.compile(r"[^\x20-\x7e]+")
_NAMELESS: Final = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_CLOSE: Final = "\r\nconnection: close"
_END: Final = b"0\r\n\r\n"
_CHUNKED: Final = "\r\ntransfer-encoding: chunked"
_CACHED_MAX: Final = 1024

_prefixes: dict[tuple[int, str], str] = {}
_lines: dict[tuple[str, str], str] = {}


def _prefix(status: int, content_type: str) -> str:
    """The head up to the request's id."""
    begin = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nserver: moonpool\r\n"
    if content_type:
        begin += f"content-type: {_UNSEEN.sub(' ', content_type)}\r\n"
    made = f"{begin}x-request-id: "
    if len(_prefixes) >= _CACHED_MAX:
        _prefixes.clear()
    _prefixes[status, content_type] = made
    return made


def _field(name: str, value: str) -> str:
    """A header line with the line end before it; nothing in it can end the line or the head."""
    made = f"\r\n{_NAMELESS.sub('', name)}: {_UNSEEN.sub(' ', value).strip()}"
    if len(_lines) >= _CACHED_MAX:
        _lines.clear()
    _lines[name, value] = made
    return made


def head_of(status: int, content_type: str, request_id: str, fields: Fields) -> str:
    """Status line and fields, without the end of the last line. All ASCII, but perhaps the request's id."""
    made = (_prefixes.get((status, content_type)) or _prefix(status, content_type)) + request_id
    for field in fields:
        made += _lines.get(field) or _field(*field)
    return made


def whole_answer(
    status: int, content_type: str, request_id: str, fields: Fields, body: bytes, close: bool, bodyless: bool = False
) -> bytes:
    """A complete answer as bytes; `bodyless` (to HEAD) has the length but not the body."""
    head = head_of(status, content_type, request_id, fields)
    last = _CLOSE if close else ""
    if status == 204 or status == 304:  # noqa: PLR1714 (twice as fast as a tuple)
        return f"{head}{last}\r\n\r\n".encode("ascii", "replace")
    made = f"{head}\r\ncontent-length: {len(body)}{last}\r\n\r\n".encode("ascii", "replace")
    return made if bodyless else made + body


def retry_after(problem: Problem) -> Fields:
    """The header field that goes with a problem, in whole seconds, never early."""
    if problem.retry_after_s is None:
        return []
    return [("retry-after", str(max(0, math.ceil(problem.retry_after_s))))]


class Exchange:
    """One request's answer: a `relay.writer.Writer`. `id` is the request's; `gone` says that the client is."""

    __slots__ = (
        "_bodyless",
        "_close",
        "_connection",
        "_head",
        "_http10",
        "_listener",
        "_pieces",
        "_started",
        "gone",
        "id",
    )

    def __init__(self, connection: Connection, request_id: str, head: Head) -> None:
        """`head`: of the request."""
        self.id = request_id
        self.gone = False
        self._connection: Connection | None = connection
        self._listener: Listener | None = None
        self._bodyless = head.method == "HEAD"
        self._http10 = head.http10
        self._close = not head.keep_alive
        self._started = False
        # What waits for the end of the turn; not set before the start.
        self._head: bytes
        self._pieces: list[bytes]

    @property
    def started(self) -> bool:
        """Whether a head was sent; from then on a failure cannot have a status of its own."""
        return self._started

    def listen(self, listener: Listener | None) -> None:
        """Say who is told from now on. If the client is gone already, the listener hears so at once."""
        self._listener = listener
        if listener is None:
            return
        connection = self._connection
        if connection is None:
            if self.gone:
                listener.gone()
        elif connection.paused:
            listener.pause()

    def whole(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        """A complete answer with its length, in one write. RuntimeError after `start`."""
        connection = self._connection
        if connection is None:
            return
        if self._started:
            raise RuntimeError("this answer was started before")
        close = self._close or connection.hub.draining
        self._connection = self._listener = None
        connection.finished(whole_answer(status, content_type, self.id, fields, body, close, self._bodyless), close)

    def start(self, status: int, content_type: str, fields: Fields) -> None:
        """The head of an answer whose length is not known: chunked, for HTTP/1.0 ended by the close."""
        connection = self._connection
        if connection is None:
            return
        if self._started:
            raise RuntimeError("this answer was started before")
        self._started = True
        head = head_of(status, content_type, self.id, fields)
        self._close = self._close or connection.hub.draining
        made = f"{head}{'' if self._http10 else _CHUNKED}{_CLOSE if self._close else ''}\r\n\r\n"
        self._head = made.encode("ascii", "replace")
        self._pieces = []
        connection.hub.flush_later(self)

    def write(self, data: bytes) -> None:
        """Some bytes of the body. They leave at the end of this turn of the loop; only then may `pause` be called."""
        connection = self._connection
        if connection is None or not data or self._bodyless:
            return
        if not self._started:
            raise RuntimeError("this answer was not started")
        pieces = self._pieces
        if not pieces and not self._head:
            connection.hub.flush_later(self)
        pieces.append(data)

    def flush(self) -> None:
        """Send what was written so far; the server calls it at the end of the turn."""
        connection = self._connection
        if connection is not None:
            waiting = self._take()
            if waiting:
                connection.send(waiting)

    def _take(self) -> bytes:
        """What waits to be sent, as bytes of the wire. Nothing does before the start."""
        if not self._started:
            return b""
        head, pieces = self._head, self._pieces
        if head:
            self._head = b""
        if not pieces:
            return head
        if len(pieces) == 1:
            body = pieces.pop()
        else:
            body = b"".join(pieces)
            pieces.clear()
        return head + body if self._http10 else b"%b%x\r\n%b\r\n" % (head, len(body), body)

    def end(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if not self._started:
            raise RuntimeError("this answer was not started")
        self._connection = self._listener = None
        last = self._take()
        if not (self._http10 or self._bodyless):
            last += _END
        connection.finished(last, self._close or connection.hub.draining)

    def cut(self) -> None:
        """Close without the end mark. What was written before still goes out."""
        connection = self._connection
        if connection is None:
            return
        self._connection = self._listener = None
        waiting = self._take()
        if waiting:
            connection.send(waiting)
        # Without chunks a plain close would look like the end of the answer.
        connection.cut(reset=self._http10 and self._started)

    def reset(self) -> None:
        """Close with RST, as a host that crashed. What was written before is sent first and may be lost all the same.
        Only who plays a host wants this."""
        connection = self._connection
        if connection is None:
            return
        self._connection = self._listener = None
        waiting = self._take()
        if waiting:
            connection.send(waiting)
        connection.cut(reset=True)

    # What the connection tells its exchange.

    def lost(self) -> None:
        """The client is gone: nobody writes any more, and the listener is told, once."""
        if self._connection is None:
            return
        listener = self._listener
        self._connection = self._listener = None
        self.gone = True
        if listener is not None:
            listener.gone()

    def probe(self) -> None:
        """Write something that means nothing, if there is such a thing here: a client that is gone resets it."""
        if self._connection is None:
            return
        if not self._started:
            if not self._http10:
                self._connection.send(CONTINUE)
        elif self._listener is not None:
            self._listener.probe()

    def pause(self) -> None:
        if self._listener is not None:
            self._listener.pause()

    def resume(self) -> None:
        if self._listener is not None:
            self._listener.resume()
