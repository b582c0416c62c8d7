"""One connection to a host: the bytes of one answer at a time, taken apart and handed on.

Two rules. Nobody is told anything while the parser runs: what one read brought is collected, then told as at most
one `head`, one `data` and one `end`, so a read of fifty events is one call. And whoever is told may close the
answer at any point: after each call the connection looks whether it is still its own.

Sources: RFC 9112 (framing, and when a message is incomplete), RFC 9110 section 15.2 (interim answers), WHATWG HTML
"Server-sent events" (comments and blank lines).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from moonpool.errors import Problem

if TYPE_CHECKING:
    from moonpool.transports.exchange import Exchange
    from moonpool.transports.pool import Pool

_BODYLESS: Final = (204, 304)

# Blank lines and comment lines, to the end of the bytes: life, but no content. The last comment may be unfinished.
# No possessive groups: Python 3.11.2, which Debian 12 has, finds no match with one that captures.
_LIFE: Final = re.compile(rb"(?:[ \t\r\n\f\v]|:[^\r\n]*[\r\n])*(:[^\r\n]*)?\Z")
_QUIET: Final = b" \t\r\n\f\v:"
_REST_OF_COMMENT: Final = re.compile(rb"[^\r\n]*+")

_NAMES_MAX: Final = 512


class _Names(dict[bytes, str]):
    """Names of fields as they come, and in lower case: remembered, for hosts use few."""

    def __missing__(self, name: bytes) -> str:
        text = name.decode("latin-1").lower()
        if len(self) < _NAMES_MAX and len(name) < 64:
            self[name] = text
        return text


_NAMES: Final = _Names()


class _Nonsense(HttpParserError):
    """Also raised inside the parser's callbacks; the parser hides it there, so `Connection._wrong` keeps its text."""


class Connection(asyncio.Protocol):
    """Belongs to one pool. Idle (no exchange) or with one exchange under way; after `drop` it is nobody's."""

    __slots__ = (
        "_bare_bytes", "_body_left", "_chunks", "_comment", "_done", "_dropped", "_exchange", "_fields", "_fields_left",
        "_framed", "_head_left", "_interim", "_keep", "_parser", "_pool", "_reused", "_status", "_told", "_transport",
        "_wrong", "counted", "idle", "idle_at", "on_body",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: Any = None
        self._exchange: Exchange | None = None
        self._chunks: list[bytes] = []
        # The parser calls the list itself: no frame of ours for each chunk.
        self.on_body = self._chunks.append
        self._parser: Any = HttpResponseParser(self)
        self._dropped = False
        self._reused = False
        self.counted = False
        self.idle = False
        self.idle_at = 0.0
        # As they are after each answer but the connection's last.
        self._interim = False
        self._keep = True
        self._wrong = ""
        self._reset()

    def _reset(self) -> None:
        """Ready for the head of an answer."""
        limits = self._pool.limits
        self._bare_bytes = 0
        self._body_left = limits.body_bytes_max
        self._comment = False
        self._done = False
        self._fields: dict[str, str] = {}
        self._fields_left = limits.fields_max
        self._framed = True
        self._head_left = limits.head_bytes_max
        self._status = 0
        self._told = False

    # What the pool does.

    def usable(self) -> bool:
        return self._transport is not None and not self._dropped and not self._transport.is_closing()

    def run(self, exchange: Exchange) -> None:
        """Send its request; the answer goes to the exchange's sink. Only on an idle, usable connection."""
        self._exchange = exchange
        exchange.connection = self
        request = exchange.request
        if len(request) == 1:
            self._transport.write(request[0])
        else:
            self._transport.writelines(request)
        if exchange.paused:
            self._transport.pause_reading()

    def drop(self) -> None:
        """Close at once and forget whom it served. Idempotent; tells nobody."""
        self._exchange = None
        self._dropped = True
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self.usable():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.usable():
            self._transport.resume_reading()

    # What the event loop tells.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._dropped:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Bytes that nobody asked for: an answer to come would be mistaken for another's.
            self._pool.discard(self)
            return
        try:
            if self._status or len(data) <= self._head_left:
                self._parser.feed_data(data)
            else:
                self._feed_long_head(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._wrong = self._wrong or str(error) or type(error).__name__
        if self._status:
            self._tell(exchange, data)
        elif self._wrong:
            self._fail(exchange, "upstream.nonsense", self._wrong)
        else:
            self._head_left -= len(data)

    def eof_received(self) -> None:
        self._over(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._over(exc)
        self._pool.lost(self)
        self._transport = None
        self._parser = None

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self._done:
            # The first answer is whole, but what follows is nobody's and the connection not to be trusted.
            raise self._nonsense("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        left = self._fields_left
        if not left:
            if self._status:
                return  # trailers
            raise self._nonsense(f"more than {self._pool.limits.fields_max} header fields")
        self._fields_left = left - 1
        key = _NAMES[name]
        fields = self._fields
        text = value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        fields = self._fields
        if status < 200:
            if status == 101:
                raise self._nonsense("it wants to switch protocols")
            self._interim = True
            fields.clear()
            return
        if "content-encoding" in fields and fields["content-encoding"].strip().lower() not in ("", "identity"):
            raise self._nonsense(f"content-encoding {fields['content-encoding']!r:.40} was not asked for")
        if "transfer-encoding" in fields:
            if fields["transfer-encoding"].strip().lower() != "chunked":
                raise self._nonsense(f"transfer-encoding {fields['transfer-encoding']!r:.40}")
        elif "content-length" not in fields and status not in _BODYLESS:
            self._framed = False
        self._status = status
        self._fields_left = 0

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif not self._done:
            self._done = True
            if not self._parser.should_keep_alive():
                self._keep = False

    # Parts of the above.

    def _nonsense(self, why: str) -> _Nonsense:
        self._wrong = why
        return _Nonsense(why)

    def _feed_long_head(self, data: bytes) -> None:
        """The read is longer than what a head may still have: see that the head ends in time."""
        self._parser.feed_data(data[: self._head_left])
        if not self._status:
            raise self._nonsense(f"a head of more than {self._pool.limits.head_bytes_max} bytes")
        self._parser.feed_data(data[self._head_left :])

    def _tell(self, exchange: Exchange, data: bytes) -> None:
        """Tell the sink what the read of `data` brought."""
        try:
            if not self._told:
                self._told = True
                exchange.request = ()
                exchange.sink.head(self._status, self._fields)
                if self._exchange is not exchange:
                    return
            chunks = self._chunks
            if chunks:
                if len(chunks) == 1:
                    chunk = chunks.pop()
                else:
                    chunk = b"".join(chunks)
                    chunks.clear()
                self._bare_bytes = 0
                left = self._body_left = self._body_left - len(chunk)
                if left < 0:
                    limit = self._pool.limits.body_bytes_max
                    self._fail(exchange, "upstream.too_large", f"more than {limit} bytes")
                    return
                exchange.moved = True
                if not exchange.content:
                    if (chunk[0] in _QUIET or self._comment) and self._is_life(chunk):
                        exchange.sink.alive()
                        if self._exchange is not exchange:
                            return
                    else:
                        exchange.content = True
                exchange.sink.data(chunk)
                if self._exchange is not exchange:
                    return
            elif not self._done:
                # Chunk extensions and trailers are read and thrown away, but not without end.
                self._bare_bytes += len(data)
                if self._bare_bytes > self._pool.limits.head_bytes_max:
                    self._wrong = "much framing and no body"
        except Exception as error:  # the edge to the sink: its fault must not cost us the connection's bookkeeping
            if self._exchange is exchange:
                self._pool.discard(self)
            exchange.fault(error)
            return
        if self._done:
            self._finish(exchange)
        elif self._wrong:
            self._fail(exchange, "upstream.nonsense", self._wrong)

    def _finish(self, exchange: Exchange) -> None:
        """The answer is whole: the connection is free again before the sink hears of it."""
        self._exchange = None
        transport = self._transport
        if self._keep and not self._wrong and not transport.is_closing() and not transport.get_write_buffer_size():
            if exchange.paused:
                transport.resume_reading()
            self._reused = True
            self._reset()
            self._pool.give_back(self)
        else:
            self._pool.discard(self)
        exchange.end(None)

    def _fail(self, exchange: Exchange, code: str, why: str) -> None:
        self._pool.discard(self)
        exchange.end(Problem(code, detail=f"{exchange.host.name}: {why}"))

    def _over(self, exc: BaseException | None) -> None:
        """No more bytes will come."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self._pool.discard(self)
            return
        answered = self._told or self._head_left < self._pool.limits.head_bytes_max
        if self._reused and not answered and not exchange.retried:
            # It was closing while we wrote: the host has not begun to answer.
            exchange.retried = True
            self._pool.replace(self, exchange)
            return
        self._pool.discard(self)
        if exc is None and self._told and not self._framed:
            exchange.end(None)
            return
        how = "closed" if exc is None else getattr(exc, "strerror", None) or type(exc).__name__
        got = self._pool.limits.body_bytes_max - self._body_left
        where = f"after {got} bytes of its body" if self._told else "before its head was complete"
        exchange.end(Problem("upstream.cut", detail=f"{exchange.host.name}: the connection broke ({how}) {where}"))

    def _is_life(self, chunk: bytes) -> bool:
        """Is this, at the begin of a body, only blank lines and comments? Remembers an unfinished comment."""
        start = 0
        if self._comment:
            rest = _REST_OF_COMMENT.match(chunk)
            start = rest.end() if rest is not None else 0
            if start == len(chunk):
                return True
        found = _LIFE.match(chunk, start)
        if found is None:
            return False
        self._comment = found.group(1) is not None
        return True
