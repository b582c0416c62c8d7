"""What happens on one client's connection? Requests in, strictly one after the other; answers out; time limits.

A request that is all there in one read goes straight from `data_received` to the handler: no task, no future, no timer.
All deadlines are looked at by the server's one ticker, so they are right to a tick (a quarter of a second).

A client that sent FIN may only have closed its sending side and still gets its answer; or it is gone, which TCP
shows only to who writes. So we write something that HTTP lets us write (an interim 100), and look at the socket's
state from tick to tick. Whatever breaks the rules gets an answer, then `Connection: close`, then time to read it.

Sources: RFC 9112 sections 9.3 and 9.6; RELIABILITY 3.4, 3.6 and cases 1 to 10, 145 to 154, 161.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Final, cast

from moonpool.errors import Problem
from moonpool.web.answer import CONTINUE, Exchange, retry_after, whole_answer
from moonpool.web.body import Chunked, Sized
from moonpool.web.head import HEAD_BYTES_MAX, Head, Known, check_beginning, know, parse_head
from moonpool.web.hub import Counters, Handler, Hub, Limits
from moonpool.words import Arrival

__all__ = ["Connection", "Counters", "Handler", "Hub", "Limits"]

_READING, _LINGERING, _CLOSING = range(3)
_RESET: Final = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """One client. Given to the loop by `listener.Server`, ticked by it."""

    __slots__ = (
        "_began", "_body", "_buffer", "_deadline", "_exchange", "_half_closed", "_head", "_held", "_idle", "_known",
        "_peer", "_running", "_scanned", "_state", "_transport", "_unsent", "hub", "paused",
    )  # fmt: skip

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._transport: asyncio.Transport
        self._peer = ""
        self._state = _READING
        self._buffer: bytes | bytearray = b""
        self._scanned = 0
        self._head: Head | None = None
        self._known: Known | None = None
        self._body: Sized | Chunked | None = None
        self._exchange: Exchange | None = None
        self._began = 0.0
        self._deadline = 0.0
        self._unsent = 0
        self._running = self._held = self._half_closed = self._idle = False
        self.paused = False
        """More than the high-water mark is waiting for the client."""

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        hub = self.hub
        self._transport = cast(asyncio.Transport, transport)
        self._deadline = hub.now + hub.limits.head_s
        self._transport.set_write_buffer_limits(hub.limits.high_water)
        if not hub.joined(self):
            self._refuse(Problem("platform.overloaded", retry_after_s=1))
            return
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unix"

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSING
        self.hub.left(self)
        self._lose()
        self._buffer = b""
        self._body = self._head = self._known = None

    def data_received(self, data: bytes) -> None:
        hub = self.hub
        hub.counters.bytes_in += len(data)
        if self._state:
            return
        buffer: bytes | bytearray = data
        if self._buffer:
            buffer = self._buffer
            buffer += data
        if self._exchange is not None or self.paused:
            self._keep(buffer, 0)
            return
        known = self._known
        if known is not None and buffer is data and self._body is None:
            # One whole request, with the head of the one before: what `_run` would do with it.
            found = known.match(data, 0)
            if found is not None:
                head, end = found
                if head.length == len(data) - end <= hub.limits.body_bytes_max:
                    self._dispatch(head, data[end:])
                    return
        self._run(buffer)

    def eof_received(self) -> bool:
        if self._state or (self._exchange is None and not self.paused):
            return False
        self._half_closed = True
        if self._exchange is not None:
            self._exchange.probe()
        return True

    def pause_writing(self) -> None:
        self.paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._deadline = self.hub.now + self.hub.limits.stall_s
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None:
            self._exchange.resume()
        elif not self._state:
            self._deadline = self.hub.now + self.hub.limits.idle_s
            self._go_on()

    # Reading.

    def _run(self, buffer: bytes | bytearray) -> None:
        """Serve the requests in `buffer`, in order, until one is not whole, or its answer takes time."""
        self._running = True
        start = 0
        try:
            while start < len(buffer) and self._exchange is None and not self.paused and not self._state:
                body = self._body
                if body is None:
                    found = self._read_head(buffer, start)
                    if found is None:
                        break
                    head, start = found
                    length = head.length
                    if length is None and not head.chunked:
                        self._dispatch(head, b"")
                        continue
                    if length is not None and length <= len(buffer) - start <= self.hub.limits.body_bytes_max:
                        content = bytes(buffer[start : start + length])
                        start += length
                        self._dispatch(head, content)
                        continue
                    body = self._body_begun(head, len(buffer) - start)
                start = body.feed(buffer, start)
                if not body.done:
                    break
                assert self._head is not None
                head, self._head, self._body = self._head, None, None
                self._dispatch(head, bytes(body.data))
        except Problem as problem:
            self._refuse(problem)
        finally:
            self._running = False
        self._keep(buffer, start)

    def _keep(self, buffer: bytes | bytearray, start: int) -> None:
        """Remember what cannot be read yet; too much of it, and reading stops."""
        if self._state or start >= len(buffer):
            self._buffer = b""
        elif isinstance(buffer, bytearray):
            del buffer[:start]
            self._buffer = buffer
        else:
            self._buffer = bytearray(buffer[start:] if start else buffer)
        waits = len(self._buffer) > self.hub.limits.waiting_bytes_max
        if waits != self._held:
            self._held = waits
            if waits:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        if self._half_closed and self._exchange is None and not self.paused and not self._state:
            self._close()

    def _go_on(self) -> None:
        """Serve what waited behind an answer."""
        if not self._state and not self._running and self._exchange is None and not self.paused:
            self._run(self._buffer)

    def _read_head(self, buffer: bytes | bytearray, start: int) -> tuple[Head, int] | None:
        """The head at `start` and where it ends, None if that is still to come. Raises Problem."""
        known = self._known
        found = known.match(buffer, start) if known is not None else None
        if found is None:
            end = buffer.find(b"\r\n\r\n", start + max(0, self._scanned - 3))
            if end < 0 or end + 4 - start > HEAD_BYTES_MAX:
                self._head_begun(buffer, start)
                return None
            block = bytes(buffer[start : end + 2])
            head = parse_head(block)
            self._known = know(block, head)
            found = head, end + 4
        self._scanned = 0
        return found

    def _head_begun(self, buffer: bytes | bytearray, start: int) -> None:
        part = bytes(buffer[start : start + HEAD_BYTES_MAX])
        if self._idle:
            self._idle = False
            self._deadline = self.hub.now + self.hub.limits.head_s
        check_beginning(part, self._scanned)
        if len(buffer) - start >= HEAD_BYTES_MAX:
            raise Problem("caller.head_too_large")
        self._scanned = len(part)

    def _body_begun(self, head: Head, there: int) -> Sized | Chunked:
        limits = self.hub.limits
        if head.length is not None:
            if head.length > limits.body_bytes_max:
                raise Problem("caller.too_large")
            body: Sized | Chunked = Sized(head.length)
        else:
            body = Chunked(limits.body_bytes_max)
        if head.expect and not there:
            self.send(CONTINUE)
        self._head = head
        self._body = body
        self._began = self.hub.now
        self._deadline = self._began + limits.body_s
        return body

    def _dispatch(self, head: Head, body: bytes) -> None:
        """Hand a request on. The edge for whatever a handler lets escape."""
        hub = self.hub
        hub.counters.requests += 1
        request_id = hub.new_id()
        exchange = self._exchange = Exchange(self, request_id, head)
        try:
            hub.handler(
                Arrival(request_id, head.method, head.path, head.query, head.headers, body, self._peer, hub.clock()),
                exchange,
            )
        except Exception as error:
            self._failed(error, exchange)

    def _failed(self, error: Exception, exchange: Exchange) -> None:
        hub = self.hub
        if isinstance(error, Problem):
            problem = error
        else:
            problem = Problem("platform.fault")
            hub.counters.faults += 1
            hub.fault(error, exchange.id)
        if exchange.started:
            exchange.cut()
        else:
            exchange.whole(problem.status, "application/json", retry_after(problem), hub.render(problem))

    # Writing: what an exchange asks for.

    def send(self, data: bytes) -> None:
        self.hub.counters.bytes_out += len(data)
        self._transport.write(data)

    def finished(self, last: bytes, close: bool) -> None:
        """The answer is complete with these bytes, if there are any more."""
        hub = self.hub
        if last:
            hub.counters.bytes_out += len(last)
            self._transport.write(last)
        self._exchange = None
        if close:
            # The client may not know yet that we stop, and have sent more.
            self._linger() if hub.draining else self._close()
            return
        if self._half_closed and not self._buffer and not self._running:
            self._close()
            return
        self._idle = True
        if not self.paused:
            self._deadline = hub.now + hub.limits.idle_s
        if self._buffer and not self._running:
            # Not from in here: the request before is still on the stack.
            hub.soon(self._go_on)

    def cut(self, *, reset: bool) -> None:
        self._exchange = None
        if reset:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _refuse(self, problem: Problem) -> None:
        """Answer what is no request, and read no more of it."""
        hub = self.hub
        problems = hub.counters.problems
        problems[problem.code] = problems.get(problem.code, 0) + 1
        self.send(
            whole_answer(
                problem.status,
                "application/json",
                hub.new_id(),
                retry_after(problem),
                hub.render(problem),
                close=True,
            )
        )
        self._linger()

    def _linger(self) -> None:
        """Close, but go on reading for a while: a reset would take the answer away from the client."""
        self._state = _LINGERING
        self._buffer = b""
        self._head = self._body = None
        if self._half_closed:
            self._close()
            return
        self._unsent = self._transport.get_write_buffer_size()
        self._deadline = self.hub.now + (self.hub.limits.stall_s if self._unsent else self.hub.limits.linger_s)
        self._transport.write_eof()
        if self._held:
            self._held = False
            self._transport.resume_reading()

    def _close(self) -> None:
        """Close once everything is sent; the ticker sees to it that this happens."""
        self._state = _CLOSING
        self._buffer = b""
        self._head = self._body = None
        self._unsent = self._transport.get_write_buffer_size()
        self._deadline = self.hub.now + self.hub.limits.stall_s
        self._transport.close()

    def _abort(self) -> None:
        self._state = _CLOSING
        self._transport.abort()
        self._lose()

    def _lose(self) -> None:
        """Tell the exchange that its client is gone. The edge for what a listener lets escape."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        try:
            exchange.lost()
        except Exception as error:
            self.hub.counters.faults += 1
            self.hub.fault(error, exchange.id)

    # Time.

    def tick(self, now: float) -> None:
        """Look at the clock: the server calls this for each connection, a few times a second."""
        if self._exchange is not None or self.paused:
            if self.paused and not self._takes(now):
                self.hub.counters.cut += 1
                self._abort()
            elif self._half_closed and self._is_gone():
                self._abort()
        elif self._state:
            before = self._unsent
            if not self._takes(now):
                self._abort()
            elif before and not self._unsent and self._state == _LINGERING:
                self._deadline = now + self.hub.limits.linger_s
        elif now > self._deadline:
            if self._body is not None or self._buffer:
                self._refuse(Problem("caller.too_slow"))
            else:
                self._close()
        elif self._body is not None:
            age = now - self._began
            if age > self.hub.limits.body_grace_s and len(self._body.data) < age * self.hub.limits.body_bytes_per_s:
                self._refuse(Problem("caller.too_slow"))

    def drain(self) -> None:
        """The server stops: close if nothing is under way."""
        if not self._state and self._exchange is None and self._body is None and not self._buffer and not self.paused:
            self._close()

    def abort(self) -> None:
        """Drop the connection now; a running exchange hears that its client is gone."""
        self._abort()

    def _takes(self, now: float) -> bool:
        """Whether the client took something of what waits for it within `stall_s`."""
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent = unsent
            self._deadline = now + self.hub.limits.stall_s
            return True
        self._unsent = unsent
        return now <= self._deadline

    def _is_gone(self) -> bool:
        """Whether a client that sent FIN has since answered something of ours with a reset."""
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return bool(poll.poll(0))
