"""A transport that plays recorded answers, with the timing asked for: for tests, demos and the twin.

A recording is the text of `response.http`: a response head as it came, an empty line, the body as a client reads
it (transfer coding removed). A body shorter than the head's Content-Length is one that was cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.transports.base import Inbound, Sink
from moonpool.words import Headers, Host, Outbound


class Timer(Protocol):
    def cancel(self) -> object: ...


Schedule = Callable[[float, Callable[[], None]], Timer]
"""Call the function after so many seconds, from the event loop or from whoever moves the time."""


class Recording(Struct, frozen=True):
    """An answer to play.

    `status` 0 is a host that could not be reached. `problem` is the code the answer ends with, "" when it is
    whole. The body comes in pieces of `chunk_bytes` (0: one SSE event each, of any other body all at once),
    the first after `first_s`, the others `gap_s` apart.
    """

    status: int = 200
    headers: Headers = {}
    body: bytes = b""
    problem: str = ""
    chunk_bytes: int = 0
    first_s: float = 0.0
    gap_s: float = 0.0


def read_recording(
    text: bytes, *, chunk_bytes: int = 0, first_s: float = 0.0, gap_s: float = 0.0, problem: str = ""
) -> Recording:
    """A recording from the bytes of a `response.http`. Raises ValueError when they begin with no response head."""
    line_end = b"\r\n" if text.partition(b"\n")[0].endswith(b"\r") else b"\n"
    head, _, body = text.partition(line_end * 2)
    first, *lines = head.decode("latin-1").rstrip("\r\n").split(line_end.decode())
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise ValueError(f"no status line: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or not name:
            raise ValueError(f"no header field: {line[:80]!r}")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    length = headers.get("content-length", "")
    if length.isdigit():
        if int(length) > len(body):
            problem = problem or "upstream.cut"
        body = body[: int(length)]
    return Recording(int(words[1]), headers, body, problem, chunk_bytes, first_s, gap_s)


class ReplayTransport:
    """A Transport (base.py) that answers with `answers(host, outbound)`.

    `schedule` is the running loop's `call_later` if None; a test gives its own and moves the time by hand. An
    exception from `answers` is the caller's and comes out of `send`.
    """

    def __init__(self, answers: Callable[[Host, Outbound], Recording], schedule: Schedule | None = None) -> None:
        self._answers = answers
        self._schedule = schedule
        self._running: set[_Play] = set()
        self._stopped = False

    def send(self, host: Host, outbound: Outbound, sink: Sink) -> Inbound:
        recording = self._answers(host, outbound)
        if self._stopped:
            recording = Recording(status=0, problem="platform.stopping")
        schedule: Schedule = self._schedule or asyncio.get_running_loop().call_later
        play = _Play(host, recording, sink, schedule, self._running)
        self._running.add(play)
        return play

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        self._stopped = True
        for play in list(self._running):
            play.end(Problem("platform.stopping"))


class _Play:
    """One recording, being played. Each step is one callback: the head, a piece, the end."""

    __slots__ = (
        "_due",
        "_host",
        "_paused",
        "_pieces",
        "_recording",
        "_running",
        "_schedule",
        "_sink",
        "_timer",
        "_told",
    )

    def __init__(self, host: Host, recording: Recording, sink: Sink, schedule: Schedule, running: set[_Play]) -> None:
        self._host = host
        self._recording = recording
        self._sink: Sink | None = sink
        self._schedule = schedule
        self._running = running
        self._pieces = pieces(recording.body, recording.chunk_bytes)
        self._told = False
        self._paused = False
        self._due = False
        self._timer = schedule(recording.first_s, self._step)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._due and self._sink is not None:
            self._due = False
            self._timer = self._schedule(0.0, self._step)

    def close(self) -> None:
        self._sink = None
        self._timer.cancel()
        self._running.discard(self)

    def end(self, problem: Problem | None) -> None:
        sink = self._sink
        if sink is not None:
            self.close()
            sink.end(problem)

    def _step(self) -> None:
        sink, recording = self._sink, self._recording
        if sink is None:
            return
        if self._paused:
            self._due = True
            return
        if not self._told:
            self._told = True
            if recording.status:
                sink.head(recording.status, recording.headers)
        # A head or a piece may have closed us: `_sink` is None then.
        while self._sink is not None:
            piece = next(self._pieces, None)
            if piece is None:
                self.end(self._problem())
                return
            sink.data(piece)
            if recording.gap_s or self._paused:
                break
        if self._sink is None:
            return
        if self._paused:
            self._due = True
        else:
            self._timer = self._schedule(recording.gap_s, self._step)

    def _problem(self) -> Problem | None:
        if not self._recording.problem and self._recording.status:
            return None
        code = self._recording.problem or "upstream.unreachable"
        return Problem(code, detail=f"{self._host.name}: as recorded")


def pieces(body: bytes, chunk_bytes: int = 0) -> Iterator[bytes]:
    """`body` cut into `chunk_bytes` each; for 0 at the blank lines that end SSE events."""
    if chunk_bytes:
        yield from (body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes))
        return
    start = 0
    while start < len(body):
        cut = body.find(b"\n\n", start)
        if cut < 0:
            break
        yield body[start : cut + 2]
        start = cut + 2
    if start < len(body):
        yield body[start:]
