"""A client of the edge without sockets: a transport in memory, a server whose time is an argument."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from moonpool.errors import Problem
from moonpool.web.answer import Exchange
from moonpool.web.listener import Server
from moonpool.web.protocol import Connection, Limits
from moonpool.words import Arrival

CRLF = b"\r\n"


class Wire(asyncio.Transport):
    """What a transport does, as far as a connection can tell. `stalled`: the client takes nothing."""

    def __init__(self, connection: Connection) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.connection = connection
        self.sent = bytearray()
        self.unsent = bytearray()
        self.writes = 0
        self.stalled = False
        self.high_water = 0
        self.pausing = False
        self.reading = True
        self.eof = False
        self.closing = False
        self.aborted = False
        self.lost = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_water = high or 0

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def write(self, data: bytes) -> None:
        assert not self.eof, "write after write_eof"
        assert not self.lost, "write after connection_lost"
        self.writes += 1
        if not self.stalled:
            self.sent += data
            return
        self.unsent += data
        if len(self.unsent) > self.high_water and not self.pausing:
            self.pausing = True
            self.connection.pause_writing()

    def take(self, count: int | None = None) -> None:
        """The client reads `count` bytes of what waits (None: all, and on from there)."""
        part = self.unsent[:count] if count is not None else self.unsent[:]
        del self.unsent[: len(part)]
        self.sent += part
        self.stalled = count is not None
        if self.pausing and len(self.unsent) <= self.high_water // 4:
            self.pausing = False
            self.connection.resume_writing()
        self._may_be_lost()

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self._may_be_lost()

    def abort(self) -> None:
        self.closing = self.aborted = True
        self.unsent.clear()
        self._may_be_lost()

    def lose(self) -> None:
        """The client is gone (a reset)."""
        self.abort()

    def hang_up(self) -> None:
        """The client closes its sending side."""
        if not self.connection.eof_received():
            self.close()

    def _may_be_lost(self) -> None:
        if self.closing and not self.unsent and not self.lost:
            self.lost = True
            self.connection.connection_lost(None)


def render(problem: Problem) -> bytes:
    row = problem.row
    return json.dumps(
        {"error": {"message": problem.message, "type": row.type, "param": problem.param, "code": row.wire_code}}
    ).encode()


class Edge:
    """A server that was not started: connections are made by hand, `pass_s` moves its clock, `turn` its loop."""

    def __init__(
        self, handler: Callable[[Arrival, Exchange], object] | None = None, limits: Limits | None = None
    ) -> None:
        self.arrivals: list[Arrival] = []
        self.exchanges: list[Exchange] = []
        self.faults: list[BaseException] = []
        self.queue: list[Callable[[], object]] = []
        self._handler = handler
        self.server = Server(
            self._handle, render, lambda error, _: self.faults.append(error), limits=limits, clock=lambda: 1_000.0
        )
        self.server.soon = self.queue.append  # type: ignore[method-assign]

    def _handle(self, arrival: Arrival, exchange: Exchange) -> None:
        self.arrivals.append(arrival)
        self.exchanges.append(exchange)
        if self._handler is not None:
            self._handler(arrival, exchange)

    def connect(self) -> Wire:
        connection = Connection(self.server)
        wire = Wire(connection)
        connection.connection_made(wire)
        return wire

    def turn(self) -> None:
        """Run what was asked to run in the next turn of the loop, and what that asks for."""
        while self.queue:
            self.queue.pop(0)()

    def pass_s(self, seconds: float, step_s: float = 0.25) -> None:
        until = self.server.now + seconds
        while self.server.now < until:
            self.server.tick(min(until, self.server.now + step_s))


def feed(wire: Wire, data: bytes) -> None:
    """Give bytes to the connection as a transport would: not after it closed."""
    if not wire.closing:
        wire.connection.data_received(data)


def echo(arrival: Arrival, exchange: Exchange) -> None:
    """Answer with what arrived."""
    seen = [arrival.method, arrival.path, arrival.query, dict(arrival.headers), arrival.body.decode("latin-1")]
    exchange.whole(200, "application/json", [], json.dumps(seen).encode())


def request(body: bytes = b"", method: str = "POST", path: str = "/v1/chat/completions", fields: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: edge\r\n{fields}{length}\r\n".encode() + body


def answers(data: bytes | bytearray, method: str = "") -> list[tuple[int, dict[str, str], bytes]]:
    """Read answers as strictly as a client could: status, fields, body. Raises when one is not whole."""
    rest, read = bytes(data), []
    while rest:
        head, rest = rest.split(b"\r\n\r\n", 1)
        line, *lines = head.decode("ascii").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = dict(field.split(": ", 1) for field in lines)
        assert len(fields) == len(lines)
        if status == "100":
            continue
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while True:
                size, rest = rest.split(CRLF, 1)
                chunk, rest = rest[: int(size, 16)], rest[int(size, 16) :]
                assert rest.startswith(CRLF)
                rest = rest[2:]
                body += chunk
                if not chunk:
                    break
        elif method != "HEAD" and status not in ("204", "304"):
            length = int(fields["content-length"])
            assert len(rest) >= length
            body, rest = rest[:length], rest[length:]
        read.append((int(status), fields, body))
    return read
