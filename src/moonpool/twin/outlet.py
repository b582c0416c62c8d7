"""How does an answer leave, and what does a script do to it on the way? Pieces wait here and go out one for each turn.

An outlet knows bytes, events and how an answer ends; of providers and models it knows nothing. It is the listener of
its writer: a client that hangs up ends it. It ends exactly once, and says so with `over`: before the last bytes leave,
so that whoever has read them finds the record complete.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from moonpool.relay.writer import Fields
from moonpool.twin.faults import Fault
from moonpool.twin.log import Served
from moonpool.web.answer import Exchange

EVENTS: Final = "text/event-stream; charset=utf-8"
JSON: Final = "application/json"
_GARBAGE: Final = b'data: {"id": \x00\xff\xfe "choices": [[[\n\ndata: <html>\n\n'
_READ_S: Final = 0.02
_NONE: Final = Fault()


class Source(Protocol):
    """Where pieces come from, if they come later."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


class Outlet:
    """One answer. `tokens` of a piece are those that it took to say it: `said` counts what went out."""

    def __init__(
        self,
        exchange: Exchange,
        served: Served,
        fault: Fault | None,
        over: Callable[[str], None],
        fields: Fields,
        *,
        stream: bool = False,
        failure: bytes = b"",
    ) -> None:
        """`failure` is how the provider says, inside an answer, that it failed."""
        self.source: Source | None = None
        self.said = 0
        self.ended = False
        self._exchange = exchange
        self._served = served
        self._fault = fault or _NONE
        self._over = over
        self._fields = fields
        self._stream = stream
        self._failure = failure
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._last = False
        self._started = False
        self._stalled = False
        self._paused = False
        self._beats = math.ceil(self._fault.alive_s / self._fault.alive_every_s)
        self._timer: asyncio.Handle | None = None
        exchange.listen(self)

    # What is to be said.

    def refuse(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        """An answer that is an error."""
        self._when_due(lambda: self._give(status, content_type, [*self._fields, *fields], body, "refused"))

    def page(self, body: bytes, content_type: str = JSON, ended: str = "whole") -> None:
        """An answer that is there at once."""
        self._when_due(lambda: self._give(200, content_type, self._fields, body, ended))

    def hang_up(self, *, reset: bool) -> None:
        """Close without a word."""
        self._when_due(lambda: self._break_off("reset" if reset else "cut"))

    def push(self, data: bytes, tokens: int = 0) -> None:
        """A piece: an event of a stream, or all of a whole answer."""
        self._waiting.append((data, tokens))
        self._soon()

    def finish(self) -> None:
        """There is no more."""
        self._last = True
        self._soon()

    def _when_due(self, act: Callable[[], None]) -> None:
        """Now, or when the script says that something is to come."""
        if self._fault.first_ms:
            self._timer = self._loop.call_later(self._fault.first_ms / 1000, act)
        else:
            act()

    def _give(self, status: int, content_type: str, fields: Fields, body: bytes, ended: str) -> None:
        """A whole answer."""
        if self.ended:
            return
        self._served.status = status
        self._served.sent_bytes = len(body)
        self._end(ended)
        self._exchange.whole(status, content_type, fields, body)

    # Time.

    def _soon(self) -> None:
        if self._timer is None and not self.ended and not self._paused and not self._stalled:
            fault = self._fault
            wait_s = fault.slow_ms / 1000 if self._waiting else 0.0
            if not self._started:
                wait_s += fault.first_ms / 1000
                if self._beats:
                    wait_s = fault.alive_every_s
            self._timer = self._loop.call_later(wait_s, self._step) if wait_s else self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._timer = None
        if self.ended or self._paused:
            return
        if self._beats:
            self._beats -= 1
            self._open()
            self._exchange.write(b": keep-alive\n\n" if self._stream else b"\n")
            self._timer = self._loop.call_later(self._fault.alive_every_s, self._step)
            return
        if self._interrupted():
            return
        if self._waiting:
            self._write(*self._waiting.popleft())
        if self.ended or self._stalled:
            return
        if self._waiting:
            self._soon()
        elif self._last and not self._interrupted():
            self._end("whole")
            self._exchange.end()

    def _interrupted(self) -> bool:
        """Whether the script wants something now, before the next piece."""
        fault, events = self._fault, self._served.events
        if fault.stall_after is not None and events >= fault.stall_after:
            self._stalled = True
        elif fault.cut_after is not None and events >= fault.cut_after:
            self._break_off("cut")
        elif fault.end_after is not None and events >= fault.end_after:
            self._open()
            self._end("ended early")
            self._exchange.end()
        elif fault.garbage_after is not None and (events >= fault.garbage_after or not self._stream):
            self._open()
            self._exchange.write(_GARBAGE)
            self._end("failed")
            self._exchange.end()
        elif fault.error_after is not None and (events >= fault.error_after or not self._stream):
            self._open()
            self._exchange.write(self._failure)
            self._end("failed")
            self._exchange.end()
        else:
            return False
        return True

    def _write(self, data: bytes, tokens: int) -> None:
        fault, served = self._fault, self._served
        if not self._stream:
            self._whole(data, tokens)
            return
        self._open()
        room = None if fault.reset_after_bytes is None else fault.reset_after_bytes - served.sent_bytes
        if room is not None and len(data) > room:
            self._exchange.write(data[:room])
            served.sent_bytes += room
            self._break_off("reset")
            return
        self._exchange.write(data)
        served.sent_bytes += len(data)
        served.events += 1
        self.said += tokens

    def _whole(self, data: bytes, tokens: int) -> None:
        """All of an answer at once, or what a script leaves of it."""
        fault, served = self._fault, self._served
        self.said += tokens
        after = (fault.cut_after, fault.end_after, fault.stall_after)
        if fault.reset_after_bytes is None and not any(after):
            if self._started:
                self._exchange.write(data)
                served.sent_bytes = len(data)
            else:
                self._give(200, JSON, self._fields, data, "whole")
            return
        self._open()
        half = len(data) // 2 if fault.reset_after_bytes is None else min(fault.reset_after_bytes, len(data))
        self._exchange.write(data[:half])
        served.sent_bytes = half
        if fault.reset_after_bytes is not None:
            self._break_off("reset")
        elif fault.cut_after:
            self._break_off("cut")
        elif fault.end_after:
            self._end("ended early")
            self._exchange.end()
        else:
            self._stalled = True

    def _open(self) -> None:
        if self._started:
            return
        self._started = True
        self._served.status = 200
        self._exchange.start(200, EVENTS if self._stream else JSON, self._fields)

    def _break_off(self, how: str) -> None:
        self._end(how)
        if how == "reset" and self._started:
            # What was sent is to be read: a reset that comes with it takes it away from many clients.
            self._loop.call_later(_READ_S, self._exchange.reset)
        elif how == "reset":
            self._exchange.reset()
        else:
            self._exchange.cut()

    def _end(self, how: str) -> None:
        if self.ended:
            return
        self.ended = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.source is not None and how != "whole":
            self.source.close()
        self.source = None
        self._over(how)

    # What the writer tells its listener.

    def gone(self) -> None:
        self._end("gone")

    def pause(self) -> None:
        self._paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.source is not None:
            self.source.pause()

    def resume(self) -> None:
        self._paused = False
        if self.source is not None:
            self.source.resume()
        if self._waiting or self._last:
            self._soon()

    def probe(self) -> None:
        """A client that may be gone: a comment finds out."""
        if self._started and self._stream and not self.ended:
            self._exchange.write(b": keep-alive\n\n")
