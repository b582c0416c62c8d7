"""The edge over real sockets: clients that hang up, close half, stall, come in crowds; descriptors that run out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from moonpool.web.answer import Exchange
from moonpool.web.listener import Server
from moonpool.web.protocol import Limits
from moonpool.words import Arrival
from unit.web.edge_wire import answers, echo, render, request

BODY = b'{"model":"m"}'
RUNNERS = [uvloop.run, asyncio.run]


DESCRIPTORS = 5_000


@pytest.fixture(autouse=True, scope="module")
def descriptors() -> None:
    """Crowds need more descriptors than many systems give a program at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"this system allows {hard} descriptors, crowds need {DESCRIPTORS}")
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


class Ear:
    """A listener that sets the rig's events."""

    def __init__(self, rig: Rig) -> None:
        self.gone = rig.gone.set
        self.pause = rig.paused.set
        self.resume = rig.resumed.set

    def probe(self) -> None:
        """It has nothing to say that means nothing."""


class Rig:
    """A server on loopback. Handlers may keep exchanges; `gone` is set when a listener hears that its client is."""

    def __init__(self, handler: Callable[[Arrival, Exchange], object] | None, limits: Limits | None) -> None:
        self.exchanges: asyncio.Queue[Exchange] = asyncio.Queue()
        self.faults: list[BaseException] = []
        self.gone = asyncio.Event()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()
        self.port = 0
        self.server = Server(handler or self._keep, render, lambda error, _: self.faults.append(error), limits=limits)

    def _keep(self, _: Arrival, exchange: Exchange) -> None:
        exchange.listen(Ear(self))
        self.exchanges.put_nowait(exchange)

    async def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock


@contextlib.asynccontextmanager
async def rig(
    handler: Callable[[Arrival, Exchange], object] | None = None, limits: Limits | None = None
) -> AsyncIterator[Rig]:
    made = Rig(handler, limits)
    made.port = await made.server.start("127.0.0.1")
    try:
        yield made
    finally:
        await made.server.stop()
        assert not made.server.connections
    assert not made.faults


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def read_all(sock: socket.socket, limit_s: float = 10) -> bytes:
    """Everything until the server closes."""
    loop, got = asyncio.get_running_loop(), b""
    async with asyncio.timeout(limit_s):
        while data := await loop.sock_recv(sock, 65536):
            got += data
    return got


async def within(limit_s: float, waited: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(waited, limit_s)


async def until(true: Callable[[], bool], limit_s: float = 10) -> None:
    """Look again and again, for at most `limit_s`: for what the kernel does and tells nobody."""
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture(params=RUNNERS, ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Both loops: what we promise does not hang on one of them."""
    return request.param  # type: ignore[no-any-return]


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_a_plain_client_is_served(run: Run) -> None:
    """The standard library's client, twice on one connection, with a body in chunks and without one."""

    async def main() -> None:
        async with rig(echo) as edge:

            def client() -> list[int]:
                link = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
                seen = []
                for body in (BODY, None, iter([b"a", b"b"])):
                    link.request("POST" if body else "GET", "/v1/x?y", body)
                    answer = link.getresponse()
                    answer.read()
                    seen.append(answer.status)
                link.close()
                return seen

            assert await asyncio.to_thread(client) == [200, 200, 200]
            assert edge.server.counters.accepted == 1

    run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_half_closed_client_gets_its_answer(run: Run, streamed: bool) -> None:
    """FIN after the request, then reading: the full answer, though it takes longer than a few ticks (case 6)."""

    async def main() -> None:
        async with rig() as edge:
            sock = await edge.connect()
            await send(sock, request(BODY))
            exchange = await within(5, edge.exchanges.get())
            sock.shutdown(socket.SHUT_WR)
            if streamed:
                exchange.start(200, "text/plain", [])
                exchange.write(b"one")
            with pytest.raises(TimeoutError):
                await within(1, edge.gone.wait())
            if streamed:
                exchange.write(b"two")
                exchange.end()
            else:
                exchange.whole(200, "text/plain", [], b"onetwo")
            [(status, _, body)] = answers(await read_all(sock))
            assert (status, body) == (200, b"onetwo")
            sock.close()

    run(main())


@pytest.mark.parametrize("way", ["reset", "close"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_hangs_up_is_noticed_within_a_second(run: Run, way: str, begun: bool) -> None:
    """With RST or FIN, before our head (nothing to write yet) or inside a stream (cases 1, 2, 3)."""

    async def main() -> None:
        async with rig() as edge:
            sock = await edge.connect()
            await send(sock, request(BODY))
            exchange = await within(5, edge.exchanges.get())
            if begun:
                exchange.start(200, "text/plain", [])
                exchange.write(b"data: 1\n\n")
                await asyncio.get_running_loop().sock_recv(sock, 65536)
            if way == "reset":
                reset(sock)
            else:
                sock.close()
            begin = time.monotonic()
            while not edge.gone.is_set() and begun and time.monotonic() - begin < 5:
                exchange.write(b"data: 2\n\n")
                with contextlib.suppress(TimeoutError):
                    await within(0.02, edge.gone.wait())
            await within(1, edge.gone.wait())
            assert time.monotonic() - begin < 1
            assert exchange.gone
            exchange.write(b"more")
            exchange.end()
            await until(lambda: not edge.server.connections)

    run(main())


def test_a_cut_answer_looks_cut(run: Run) -> None:
    """To HTTP/1.1 the end mark is missing; to HTTP/1.0 the connection is reset; what was written arrives in 1.1."""

    async def main() -> None:
        async with rig() as edge:
            sock = await edge.connect()
            await send(sock, request(BODY))
            exchange = await within(5, edge.exchanges.get())
            exchange.start(200, "text/plain", [])
            exchange.write(b"last words")
            exchange.cut()
            assert (await read_all(sock)).endswith(b"\r\na\r\nlast words\r\n")
            sock.close()
            sock = await edge.connect()
            await send(sock, b"GET / HTTP/1.0\r\n\r\n")
            exchange = await within(5, edge.exchanges.get())
            exchange.start(200, "text/plain", [])
            exchange.write(b"half")
            await asyncio.sleep(0)
            exchange.cut()
            with pytest.raises(ConnectionResetError):
                await read_all(sock)
            sock.close()

    run(main())


def test_a_refused_client_reads_why_while_it_sends(run: Run) -> None:
    """413 arrives although megabytes are still on their way: no reset takes it away (case 161)."""

    async def main() -> None:
        async with rig(echo) as edge:
            sock = await edge.connect()
            await send(sock, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
            await send(sock, b"x" * 8_000_000)
            assert answers(await read_all(sock))[0][0] == 413
            sock.close()

    run(main())


def test_a_client_that_stops_reading_is_cut_and_costs_little(run: Run) -> None:
    """Ten megabytes towards a client with a full buffer: the relay is paused, memory stays, then it is cut (case 5)."""

    async def main() -> None:
        async with rig(limits=Limits(stall_s=1)) as edge:
            sock = await edge.connect(receive_buffer=4096)
            await send(sock, request(BODY))
            exchange = await within(5, edge.exchanges.get())
            exchange.start(200, "text/plain", [])
            written = 0
            while not edge.paused.is_set() and written < 10_000_000:
                exchange.write(b"x" * 1024)
                written += 1024
                await asyncio.sleep(0)
            assert edge.paused.is_set()
            [connection] = edge.server.connections
            assert connection._transport.get_write_buffer_size() <= 64 * 1024
            assert written < 2_000_000
            begin = time.monotonic()
            await within(5, edge.gone.wait())
            assert time.monotonic() - begin < 2.5
            assert edge.server.counters.cut == 1
            sock.close()

    run(main())


def test_a_slow_reader_gets_everything(run: Run) -> None:
    """Pause and resume through the kernel's buffers; every byte arrives, in order (case 166)."""

    async def main() -> None:
        async with rig() as edge:
            sock = await edge.connect(receive_buffer=4096)
            await send(sock, request(BODY, fields="Connection: close\r\n"))
            exchange = await within(5, edge.exchanges.get())
            exchange.start(200, "text/plain", [])
            said = b"".join(b"%07d\n" % i for i in range(100_000))
            reading = asyncio.ensure_future(read_all(sock, 30))
            for i in range(0, len(said), 8000):
                exchange.write(said[i : i + 8000])
                if edge.paused.is_set():
                    await within(10, edge.resumed.wait())
                    edge.paused.clear()
                    edge.resumed.clear()
            exchange.end()
            assert answers(await reading)[0][2] == said
            sock.close()

    run(main())


def test_many_clients_at_once() -> None:
    """A thousand connections, each served twice while all are open; afterwards nothing is left (case 171)."""

    async def main() -> None:
        async with rig(echo) as edge:
            socks = await asyncio.gather(*(edge.connect() for _ in range(1000)))
            await until(lambda: len(edge.server.connections) == 1000)
            for _ in range(2):
                for sock in socks:
                    await send(sock, request(BODY))
                for sock in socks:
                    async with asyncio.timeout(10):
                        got = await asyncio.get_running_loop().sock_recv(sock, 65536)
                    assert answers(got)[0][0] == 200
            for sock in socks:
                sock.close()
            await until(lambda: not edge.server.connections)
            assert edge.server.counters.requests == 2000

    uvloop.run(main())


def test_closed_connections_leave_nothing() -> None:
    """Connections, exchanges and sockets are freed without the garbage collector, however they ended (I12)."""

    async def main() -> None:
        async with rig() as edge:

            async def one(ending: int) -> None:
                sock = await edge.connect()
                await send(sock, request(BODY) if ending else b"nonsense\r\n\r\n")
                if ending:
                    exchange = await within(5, edge.exchanges.get())
                    exchange.start(200, "text/plain", [])
                    if ending == 1:
                        exchange.end()
                    elif ending == 2:
                        exchange.cut()
                reset(sock)
                await until(lambda: not edge.server.connections)

            for ending in range(4):
                await one(ending)
            gc.collect()
            gc.disable()
            try:
                before = len(gc.get_objects())
                for _ in range(20):
                    for ending in range(4):
                        await one(ending)
                assert len(gc.get_objects()) - before < 80
            finally:
                gc.enable()

    uvloop.run(main())


def test_a_crowd_is_refused_with_a_503(run: Run) -> None:
    """More than `connections_max`: told at once and closed; room again when others leave."""

    async def main() -> None:
        async with rig(echo, Limits(connections_max=5, linger_s=0.3)) as edge:
            socks = [await edge.connect() for _ in range(5)]
            await until(lambda: len(edge.server.connections) == 5)
            late = await edge.connect()
            assert answers(await read_all(late))[0][0] == 503
            late.close()
            for sock in socks:
                sock.close()
            await until(lambda: not edge.server.connections)
            sock = await edge.connect()
            await send(sock, request(BODY, fields="Connection: close\r\n"))
            assert answers(await read_all(sock))[0][0] == 200
            sock.close()

    run(main())


def test_draining(run: Run) -> None:
    """No new connections, idle ones closed, the running one finishes and closes."""

    async def main() -> None:
        async with rig() as edge:
            idle, busy = await edge.connect(), await edge.connect()
            await send(busy, request(BODY))
            exchange = await within(5, edge.exchanges.get())
            await until(lambda: len(edge.server.connections) == 2)
            edge.server.drain()
            assert await read_all(idle) == b""
            with pytest.raises(ConnectionRefusedError):
                await edge.connect()
            assert not await edge.server.drained(0.05)
            exchange.whole(200, "text/plain", [], b"done")
            [(_, fields, body)] = answers(await read_all(busy))
            assert (fields["connection"], body) == ("close", b"done")
            busy.close()
            assert await edge.server.drained(5)
            idle.close()

    run(main())


def test_a_unix_socket_is_ours_alone(run: Run, tmp_path: Path) -> None:
    """Mode 0600; a dead one is replaced, a living one is not; it is removed at the end."""

    async def main() -> None:
        path = tmp_path / "edge.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with rig(echo) as edge:
            await edge.server.start(path=path)
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(OSError, match="somebody listens"):
                await edge.server.start(path=path)
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, str(path))
            await send(sock, request(BODY, fields="Connection: close\r\n"))
            assert answers(await read_all(sock))[0][0] == 200
            sock.close()
        assert not path.exists()

    run(main())


def test_an_address_that_is_taken_is_an_error(run: Run) -> None:
    """OSError from `start`, nothing left open."""

    async def main() -> None:
        async with rig(echo) as edge:
            with pytest.raises(OSError, match="in use"):
                await edge.server.start("127.0.0.1", edge.port)

    run(main())


_STARVED = """
import asyncio, resource, socket, sys, time
import {loop} as runner
sys.path.insert(0, {tests!r})
from unit.web.edge_wire import echo, render, request
from moonpool.web.listener import Server
from moonpool.web.protocol import Limits

async def main():
    server = Server(echo, render, lambda error, _: print("fault", repr(error)), limits=Limits(connections_max=10_000))
    port = await server.start("127.0.0.1")
    used = len(__import__("os").listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, 10_000))
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    spent = time.process_time()
    await asyncio.sleep(1)
    print("spent", time.process_time() - spent, len(server.connections), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    await server.stop()

runner.run(main())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_running_out_of_descriptors_is_survived(loop: str) -> None:
    """Accepting rests without spinning, connected clients are served, waiting ones later (case 172)."""
    program = textwrap.dedent(_STARVED).format(loop=loop, tests=str(Path(__file__).parents[1]))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            port = int(child.stdout.readline())
            socks = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(60)]
            child.stdin.write("\n")
            child.stdin.flush()
            word, spent, connections = child.stdout.readline().split()
            assert word == "spent"
            assert float(spent) < 0.3
            assert 5 <= int(connections) < 60
            socks[0].sendall(request(BODY))
            assert socks[0].recv(65536).startswith(b"HTTP/1.1 200")
            for sock in socks[:50]:
                sock.close()
            socks[59].sendall(request(BODY))
            assert socks[59].recv(65536).startswith(b"HTTP/1.1 200")
            for sock in socks[50:]:
                sock.close()
            child.stdin.write("\n")
            child.stdin.flush()
            rest = child.stdout.read()
            assert rest == ""
            assert child.wait(20) == 0
        finally:
            child.kill()


def test_open_streams_cost_little_memory() -> None:
    """Two thousand open streams: at most 24 KiB each, client's sockets not counted (case 171)."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async def main() -> None:
        async with rig() as edge:
            socks = await asyncio.gather(*(edge.connect() for _ in range(2000)))
            await until(lambda: len(edge.server.connections) == 2000)
            gc.collect()
            before = resident()
            for sock in socks:
                await send(sock, request(b"x" * 2000))
            exchanges = [await within(5, edge.exchanges.get()) for _ in socks]
            for _ in range(3):
                for exchange in exchanges:
                    exchange.start(200, "text/event-stream", []) if not exchange.started else None
                    exchange.write(b"data: {}\n\n")
                await asyncio.sleep(0)
            gc.collect()
            assert (resident() - before) / len(socks) < 24 * 1024
            for sock in socks:
                sock.close()

    uvloop.run(main())
