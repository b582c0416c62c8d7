"""A host that does what a test tells it, and a TCP proxy that harms what goes through it.

`Upstream` answers each request with a script: bytes to send and faults to commit, in order. It is its own witness:
it keeps what it was asked, on how many connections, and how they ended. `FaultProxy` stands between any two that
speak TCP and delays, slices, stalls, cuts, resets, corrupts or half-closes, in either direction.

Both live on the running loop (`async with`), or in a thread of their own for tests of other processes
(`with threaded(Upstream(script)) as upstream`). Nothing here waits for time to pass unless a test asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar


@dataclass(frozen=True)
class Request:
    """What a client asked. `connection` and `number` count from 0, over all connections."""

    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    connection: int
    number: int


class Peer:
    """The client's side of one connection, for steps that need more than to send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Until the client closes. What it sends meanwhile is thrown away."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST: what was sent and not yet read may be lost, as on a crash."""
        reset(self.writer)


Step = bytes | Callable[[Peer], Awaitable[None]]
Script = Callable[[Request], Iterable[Step]]


class Gone(Exception):
    """Raised by a step that ended the connection."""


async def close(peer: Peer) -> None:
    """FIN after everything was sent."""
    raise Gone


async def rst(peer: Peer) -> None:
    await asyncio.sleep(0)
    peer.reset()
    raise Gone


async def half_close(peer: Peer) -> None:
    """FIN from us, while we go on reading until the client closes as well."""
    peer.writer.write_eof()
    await peer.until_gone()
    raise Gone


async def stall(peer: Peer) -> None:
    """Say nothing more, until the client gives up."""
    await peer.until_gone()
    raise Gone


def gate(event: asyncio.Event) -> Step:
    """Go on when the test says so."""

    async def wait(peer: Peer) -> None:
        await event.wait()

    return wait


def sliced(data: bytes, size: int = 1, turns: int = 2) -> Step:
    """`data` in pieces of `size`, the loop turning between them so that a client in it reads each alone."""

    async def send(peer: Peer) -> None:
        for start in range(0, len(data), size):
            await peer.send(data[start : start + size])
            for _ in range(turns):
                await asyncio.sleep(0)

    return send


def flood(piece: bytes, count: int, sent: list[int] | None = None) -> Step:
    """`piece` over and over, as fast as the client reads; `sent[0]` counts the pieces that were taken."""

    async def send(peer: Peer) -> None:
        for done in range(count):
            await peer.send(piece)
            if sent is not None:
                sent[0] = done + 1

    return send


def answer(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream:
    """An HTTP/1.1 host on 127.0.0.1. `script` makes the steps for each request."""

    def __init__(
        self, script: Script, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.most = 0
        self.changed = asyncio.Condition()
        self.host = host
        self.port = port
        self._script = script
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"{'https' if self._context else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._context, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_open(self, count: int) -> None:
        """Until exactly `count` connections are open."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: self.open == count), 10)

    async def until_asked(self, count: int) -> None:
        """Until `count` requests have come, heads and bodies."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: len(self.requests) >= count), 10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self.connections
        self.connections += 1
        await self._count(1)
        peer = Peer(reader, writer)
        try:
            while True:
                request = await self._read(reader, number)
                if request is None:
                    break
                async with self.changed:
                    self.changed.notify_all()
                for step in self._script(request):
                    await (peer.send(step) if isinstance(step, bytes) else step(peer))
        except (Gone, OSError, EOFError):
            pass
        except RuntimeError as error:
            # uvloop's way to say that the client has gone.
            if "closed" not in str(error):
                raise
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            await self._count(-1)
            self._tasks.discard(task)

    async def _count(self, change: int) -> None:
        async with self.changed:
            self.open += change
            self.most = max(self.most, self.open)
            self.changed.notify_all()

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Request | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        request = Request(method, target, fields, body, connection, len(self.requests))
        self.requests.append(request)
        return request


@dataclass
class Harm:
    """What happens to one direction of a connection. Bytes are counted from its begin; None is never. The latency is
    that of its first bytes, or of `each` piece that is read; the jitter is drawn for each connection by itself."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    each: bool = False
    slice_bytes: int = 65536
    slice_delay_s: float = 0.0
    bytes_per_s: float | None = None
    stall_after: int | None = None
    reset_after: int | None = None
    cut_after: int | None = None
    half_close_after: int | None = None
    corrupt_at: int | None = None
    seed: int = 0


@dataclass
class FaultProxy:
    """A TCP proxy to `target`, a port or the path of a UNIX socket. `up` harms what the client sends, `down` what it
    receives. All of it at once can be cut (connections end, new ones too), stalled (they stay, and say nothing), or
    muted (what is asked arrives, what is answered is lost), and healed (what was stalled comes late, as after a cable
    was plugged in again; what was mute has ended). With `context` it ends TLS: the client speaks it, the target not."""

    target: tuple[str, int] | str
    up: Harm = field(default_factory=Harm)
    down: Harm = field(default_factory=Harm)
    host: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    context: ssl.SSLContext | None = None

    async def __aenter__(self) -> FaultProxy:
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._flows_up, self._flows_down = asyncio.Event(), asyncio.Event()
        self._mute_at: bytes | None = None
        self._is_mute = False
        self.heal()
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.context, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        self._is_cut = True
        self._end()

    def stall(self) -> None:
        self._flows_up.clear()
        self._flows_down.clear()

    def mute(self, at: bytes = b"") -> None:
        """No answer comes any more, from that on to the next piece with `at` in it."""
        self._mute_at = at

    def heal(self) -> None:
        if self._is_mute:
            self._end()
        self._is_cut, self._is_mute, self._mute_at = False, False, None
        self._flows_up.set()
        self._flows_down.set()

    def _end(self) -> None:
        for task in self._passing:
            task.cancel()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._end()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._passing.add(task)
        number = self.connections
        self.connections += 1
        there: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            if self._is_cut:
                raise Gone
            if isinstance(self.target, str):
                source, there = await asyncio.open_unix_connection(self.target)
            else:
                source, there = await asyncio.open_connection(*self.target)
            pumps = [
                asyncio.ensure_future(self._pump(reader, there, writer, self.up, self._flows_up, number)),
                asyncio.ensure_future(self._pump(source, writer, there, self.down, self._flows_down, number)),
            ]
            await asyncio.gather(*pumps)
        except (Gone, OSError, asyncio.CancelledError):
            pass
        finally:
            self._passing.discard(task)  # it ends already, and has to come to its end
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for side in (writer, there):
                if side is not None:
                    side.close()
                    with contextlib.suppress(OSError, asyncio.CancelledError):
                        await side.wait_closed()
            self._tasks.discard(task)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        harm: Harm,
        flows: asyncio.Event,
        number: int,
    ) -> None:
        """Bytes from `source` to `sink`; `back` leads to whoever sends."""
        chance = random.Random(f"{harm.seed} {number}")
        passed = 0
        while data := await source.read(harm.slice_bytes):
            await flows.wait()
            if self._mute_at is not None and self._mute_at in data and flows is self._flows_up:
                self._is_mute = True
                self._flows_down.clear()
            delay_s = (
                harm.latency_s + chance.uniform(-harm.jitter_s, harm.jitter_s) if harm.each or passed == 0 else 0.0
            )
            delay_s += harm.slice_delay_s + (len(data) / harm.bytes_per_s if harm.bytes_per_s else 0.0)
            if delay_s > 0:
                await _after(delay_s)
            ends = (harm.stall_after, harm.reset_after, harm.cut_after, harm.half_close_after)
            limit = min(_or_endless(count) for count in ends)
            if harm.corrupt_at is not None and passed <= harm.corrupt_at < passed + len(data):
                at = harm.corrupt_at - passed
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            sink.write(data[: max(0, int(min(limit - passed, len(data))))])
            await sink.drain()
            passed += len(data)
            if passed < limit:
                continue
            if harm.reset_after is not None and passed >= harm.reset_after:
                await asyncio.sleep(0)
                reset(sink)
                reset(back)
                raise Gone
            if harm.half_close_after is not None and passed >= harm.half_close_after:
                break
            if harm.cut_after is not None and passed >= harm.cut_after:
                raise Gone
            await asyncio.Event().wait()
        if sink.can_write_eof():
            sink.write_eof()


async def _after(delay_s: float) -> None:
    """Time on the wire: the one wait here, for tests that ask for a latency or a rate."""
    passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(delay_s, lambda: passed.done() or passed.set_result(None))
    await passed


def _or_endless(count: int | None) -> float:
    return float("inf") if count is None else count


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    plain = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Served = TypeVar("Served", Upstream, FaultProxy)


@contextlib.contextmanager
def threaded(server: Served) -> Iterator[Served]:
    """Run it on a loop of its own in a thread, for tests whose client is another process or blocks."""
    ready = threading.Event()
    failed: list[BaseException] = []
    loop: Any = None

    async def run() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        stopping.append(done)
        try:
            async with server:
                ready.set()
                await done.wait()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    stopping: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    ready.wait(10)
    if failed:
        raise failed[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stopping[0].set)
        thread.join(10)
