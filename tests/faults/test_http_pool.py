"""The pool under pressure: reuse, bounds, cancellation, back-pressure, the one retry, and sinks that misbehave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from faults.sink import CHAT, Clock, Recorder, host_at, turns, until
from faults.upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    FaultProxy,
    Harm,
    Peer,
    Request,
    Step,
    Upstream,
    answer,
    chunk,
    close,
    flood,
    gate,
    rst,
    stall,
)
from moonpool.transports.http import HttpTransport
from moonpool.transports.pool import Pool
from moonpool.words import Host, Outbound

LOOPS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
Run = Callable[..., Any]


def pool_of(transport: HttpTransport, host: Host) -> Pool:
    pool = transport.pool(host)
    assert pool is not None
    return pool


def ask(transport: HttpTransport, host: Host, body: bytes = b"{}", **on: Callable[[], Any]) -> Recorder:
    sink = Recorder(**on)
    transport.send(host, Outbound("/x", body), sink)
    return sink


@pytest.mark.parametrize("run", LOOPS)
def test_reuse(run: Run) -> None:
    """Requests one after the other use one connection; the freshest of several idle ones is taken first."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"%d" % request.connection)]) as upstream:
            transport = HttpTransport()
            host = host_at(upstream.base_url)
            for _ in range(20):
                assert (await ask(transport, host).over()).code == ""
            assert upstream.connections == 1
            first, second = ask(transport, host), ask(transport, host)
            await first.over()
            await second.over()
            assert (upstream.connections, pool_of(transport, host).idle) == (2, 2)
            last = max(first, second, key=lambda sink: int(sink.body))
            assert (await ask(transport, host).over()).body == last.body
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_free_before_end(run: Run) -> None:
    """When the sink hears the end the connection is already free: a request from there goes out on it at once."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")]) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            idle: list[int] = []
            following: list[Recorder] = []

            def again() -> None:
                idle.append(pool_of(transport, host).idle)
                following.append(ask(transport, host))

            await ask(transport, host, end=again).over()
            await following[0].over()
            assert (idle, upstream.connections, following[0].code) == ([1], 1, "")
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_bound_and_order(run: Run) -> None:
    """No more connections than allowed, and those who wait are served in the order they came."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(request.body)]) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            sinks = [ask(transport, host, b"%d" % number) for number in range(20)]
            for sink in sinks:
                await sink.over()
            assert [request.body for request in upstream.requests] == [b"%d" % number for number in range(20)]
            wide = HttpTransport(connections_max=5)
            for sink in [ask(wide, host) for _ in range(50)]:
                assert (await sink.over()).code == ""
            assert upstream.most <= 6
            await transport.stop()
            await wide.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_pools_are_per_credential(run: Run) -> None:
    """Two keys at one host never share a connection."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")]) as upstream:
            transport = HttpTransport()
            for key in ("one", "two", "one"):
                await ask(transport, host_at(upstream.base_url, api_key=key)).over()
            seen = [(request.connection, request.fields["authorization"]) for request in upstream.requests]
            assert seen == [(0, "Bearer one"), (1, "Bearer two"), (0, "Bearer one")]
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_cancel_storm(run: Run) -> None:
    """20 requests on 10 slots, 80 % of them closed at any moment, over and over: afterwards 10 run at once."""

    async def main() -> None:
        together = asyncio.Event()
        storm = True

        def script(request: Request) -> list[Step]:
            if storm:
                return [STREAM_HEAD, chunk(b"data: 1\n\n"), gate(release), chunk(b"data: 2\n\n"), LAST_CHUNK]
            return [gate(together), answer(b"ok")]

        async with Upstream(script) as upstream:
            transport = HttpTransport(connections_max=10)
            host = host_at(upstream.base_url)
            chance = random.Random(47)
            for _ in range(40):
                release = asyncio.Event()
                sinks = [Recorder() for _ in range(20)]
                under_way = [(sink, transport.send(host, CHAT, sink)) for sink in sinks]
                doomed = chance.sample(under_way, 16)
                for sink, inbound in doomed:
                    when = chance.randrange(3)
                    if when == 1:
                        await turns(chance.randrange(12))
                    elif when == 2 and pool_of(transport, host).waiting == 0:
                        await sink.until(lambda sink: bool(sink.calls))
                    inbound.close()
                    inbound.close()
                    sink.calls.append("closed")
                release.set()
                for sink, _inbound in under_way:
                    if "closed" not in sink.calls:
                        assert (await sink.over()).code == ""
                        assert sink.body == b"data: 1\n\ndata: 2\n\n"
                    else:
                        assert sink.calls[-1] == "closed"
                assert len(pool_of(transport, host)) <= 10
            await until(lambda: upstream.open <= 10)
            storm = False
            asked = len(upstream.requests)
            sinks = [ask(transport, host) for _ in range(10)]
            assert pool_of(transport, host).waiting == 0
            await until(lambda: len(upstream.requests) >= asked + 10)
            together.set()
            for sink in sinks:
                assert (await sink.over()).code == ""
            assert (len(pool_of(transport, host)), pool_of(transport, host).idle) == (10, 10)
            assert not transport.active
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_close_frees_at_once(run: Run) -> None:
    """Closing an answer frees its slot in the same call, whatever it was doing, and serves who waits."""

    async def main() -> None:
        async with Upstream(lambda request: [STREAM_HEAD, chunk(b"data: 1\n\n"), stall]) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            dialing = transport.send(host, CHAT, Recorder())
            assert len(pool_of(transport, host)) == 1
            dialing.close()
            assert len(pool_of(transport, host)) == 0
            sink, waiting, last = Recorder(), Recorder(), Recorder()
            running = transport.send(host, CHAT, sink)
            gone = transport.send(host, CHAT, waiting)
            transport.send(host, CHAT, last)
            await sink.until(lambda sink: sink.body != b"")
            gone.close()
            assert pool_of(transport, host).waiting == 1
            running.close()
            assert (len(pool_of(transport, host)), pool_of(transport, host).waiting) == (1, 0)
            await last.until(lambda sink: sink.body != b"")
            await upstream.until_open(1)
            assert (sink.calls, waiting.calls) == (["head", "data"], [])
            await transport.stop()
            assert last.code == "platform.stopping"

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("when", ["head", "alive", "data", "end"])
def test_close_from_within(run: Run, when: str) -> None:
    """The sink may close from any of its methods; it hears nothing after, and the next request is not harmed."""

    async def main() -> None:
        read = asyncio.Event()
        script = [STREAM_HEAD + chunk(b": hello\n\n"), gate(read), chunk(b"data: 1\n\n") + LAST_CHUNK]
        async with Upstream(lambda request: script) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            sink = Recorder()
            inbound = transport.send(host, CHAT, sink)
            sink.on[when] = inbound.close
            other = ask(transport, host)
            await sink.until(lambda sink: "head" in sink.calls)
            read.set()
            await sink.until(lambda sink: when in sink.calls)
            assert (await other.over()).code == ""
            inbound.close()
            assert (await ask(transport, host).over()).code == ""
            assert sink.calls[-1] == when
            assert len(pool_of(transport, host)) == 1
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("when", ["head", "alive", "data", "end"])
def test_sink_that_raises(run: Run, when: str) -> None:
    """A sink that raises is reported once; its answer ends, its slot is free, the others go on."""

    async def main() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context["exception"]))

        def fall() -> None:
            raise ZeroDivisionError

        read = asyncio.Event()
        script = [STREAM_HEAD + chunk(b": hello\n\n"), gate(read), chunk(b"data: 1\n\n") + LAST_CHUNK]
        async with Upstream(lambda request: script) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            sink = ask(transport, host, **{when: fall})
            await sink.until(lambda sink: "head" in sink.calls)
            read.set()
            await sink.over()
            assert sink.code == ("" if when == "end" else "platform.fault")
            assert [type(fault) for fault in faults] == [ZeroDivisionError]
            assert (await ask(transport, host).over()).code == ""
            assert len(pool_of(transport, host)) == 1
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("end", [close, rst], ids=["fin", "rst"])
def test_one_retry(run: Run, end: Step) -> None:
    """A reused connection that dies before a byte of the answer: the request goes out once more, on a new one."""

    async def main() -> None:
        async with Upstream(lambda request: [end] if request.number == 1 else [answer(request.body)]) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            assert (await ask(transport, host).over()).code == ""
            second = await ask(transport, host, b"again").over()
            assert (second.code, second.body) == ("", b"again")
            assert [request.connection for request in upstream.requests] == [0, 0, 1]
            assert len(pool_of(transport, host)) == 1
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("end", [close, rst], ids=["fin", "rst"])
@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 102 Processing\r\n\r\n"], ids=["byte", "interim"])
def test_no_retry_after_a_byte(run: Run, end: Step, first: bytes) -> None:
    """When anything of an answer came, the request is not sent again."""

    async def main() -> None:
        async with Upstream(lambda request: [first, end] if request.number else [answer(b"ok")]) as upstream:
            transport = HttpTransport()
            host = host_at(upstream.base_url)
            assert (await ask(transport, host).over()).code == ""
            sink = ask(transport, host)
            assert (await sink.over()).code == "upstream.cut"
            assert len(upstream.requests) == 2
            assert len(pool_of(transport, host)) == 0
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_never_two_retries(run: Run) -> None:
    """The repeated request is on a new connection and is not repeated again; nor is one that began on a new one."""

    async def main() -> None:
        async with Upstream(lambda request: [close] if request.number else [answer(b"ok")]) as upstream:
            transport = HttpTransport()
            host = host_at(upstream.base_url)
            assert (await ask(transport, host).over()).code == ""
            sink = await ask(transport, host).over()
            assert (sink.code, len(upstream.requests)) == ("upstream.cut", 3)
            sink = await ask(transport, host).over()
            assert (sink.code, len(upstream.requests)) == ("upstream.cut", 4)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    "after", [[close], [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]], ids=["eof", "bytes"]
)
def test_idle_connections_are_watched(run: Run, after: list[Step]) -> None:
    """An idle connection that ends, or says something unasked, is dropped before it can serve anybody."""

    async def main() -> None:
        go = asyncio.Event()

        def script(request: Request) -> list[Step]:
            return [answer(b"ok"), gate(go), *after] if request.number == 0 else [answer(b"true")]

        async with Upstream(script) as upstream:
            transport = HttpTransport()
            host = host_at(upstream.base_url)
            assert (await ask(transport, host).over()).code == ""
            assert pool_of(transport, host).idle == 1
            go.set()
            await until(lambda: len(pool_of(transport, host)) == 0)
            sink = await ask(transport, host).over()
            assert (sink.body, upstream.connections) == (b"true", 2)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_idle_time(run: Run) -> None:
    """A connection idle for `idle_s` is closed; a younger one stays; an empty pool is forgotten."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")]) as upstream:
            clock = Clock()
            transport = HttpTransport(now=clock, tick_s=3600.0, idle_s=60.0)
            host = host_at(upstream.base_url)
            sinks = [ask(transport, host), ask(transport, host)]
            for sink in sinks:
                await sink.over()
            clock.at += 59.0
            await ask(transport, host).over()
            clock.at += 1.0
            transport.tick()
            assert (len(pool_of(transport, host)), pool_of(transport, host).idle) == (1, 1)
            await upstream.until_open(1)
            clock.at += 59.0
            transport.tick()
            assert transport.pool(host) is None
            await upstream.until_open(0)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_back_pressure(run: Run) -> None:
    """A paused answer is not read: of 32 MiB only what was on its way arrives, all of it after `resume`."""

    async def main() -> None:
        taken = [0]
        piece, count = chunk(b"x" * 65536), 512
        async with Upstream(lambda request: [STREAM_HEAD, flood(piece, count, taken), LAST_CHUNK]) as upstream:
            transport = HttpTransport()
            sink = Recorder()
            inbound = transport.send(host_at(upstream.base_url), CHAT, sink)
            sink.on["data"] = inbound.pause
            await sink.until(lambda sink: sink.body != b"")
            before = len(sink.body)
            await turns(3000)
            assert len(sink.body) - before <= 262144
            assert taken[0] < count
            assert sink.ends == 0
            del sink.on["data"]
            inbound.resume()
            await sink.over()
            assert (sink.code, len(sink.body)) == ("", 65536 * count)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_paused_to_the_end(run: Run) -> None:
    """A pause on the last byte does not stick to the connection: the next answer on it is read."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")]) as upstream:
            transport = HttpTransport(connections_max=1)
            host = host_at(upstream.base_url)
            sink = Recorder()
            inbound = transport.send(host, CHAT, sink)
            sink.on["data"] = inbound.pause
            await sink.over()
            assert (await ask(transport, host).over()).code == ""
            early = Recorder()
            paused = transport.send(host, CHAT, early)
            paused.pause()
            await turns()
            assert early.calls == []
            paused.resume()
            assert (await early.over()).code == ""
            assert upstream.connections == 1
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_early_answer(run: Run) -> None:
    """A host that answers before it read the body: the answer counts, the connection is not used again."""

    async def main() -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"too much", "413 Content Too Large"))
            await gone.wait()
            writer.close()

        gone = asyncio.Event()
        server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
        port = server.sockets[0].getsockname()[1]
        transport = HttpTransport()
        host = host_at(f"http://127.0.0.1:{port}")
        sink = await ask(transport, host, b"x" * 30_000_000).over()
        assert (sink.code, sink.status, sink.body) == ("", 413, b"too much")
        assert len(pool_of(transport, host)) == 0
        gone.set()
        server.close()
        await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_stop(run: Run) -> None:
    """Stopping ends what runs, dials or waits, once each, closes every socket, and refuses what comes after."""

    async def main() -> None:
        async with Upstream(lambda request: [STREAM_HEAD, chunk(b"data: 1\n\n"), stall]) as upstream:
            transport = HttpTransport(connections_max=2)
            host = host_at(upstream.base_url)
            sinks = [ask(transport, host) for _ in range(4)]
            await sinks[0].until(lambda sink: sink.body != b"")
            await transport.stop()
            await transport.stop()
            assert [sink.code for sink in sinks] == ["platform.stopping"] * 4
            await upstream.until_open(0)
            assert not transport.live
            dialing = HttpTransport()
            ask(dialing, host)
            await turns(3)
            await dialing.stop()
            await upstream.until_open(0)
            assert (await ask(transport, host).over()).code == "platform.stopping"

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_refused(run: Run) -> None:
    """A port where nobody listens, and a name that does not exist, are `upstream.unreachable` and free their slots."""

    async def main() -> None:
        async with Upstream(lambda request: []) as upstream:
            port = upstream.port

        async def unknown(hostname: str, port: int) -> list[tuple[int, str]]:
            raise OSError(2, "unknown name")

        transport = HttpTransport(connections_max=1, resolve=unknown)
        for base_url in (f"http://127.0.0.1:{port}", "http://user:secret@nowhere.test/path"):
            host = host_at(base_url)
            sinks = [ask(transport, host) for _ in range(3)]
            for sink in sinks:
                await sink.over()
                assert sink.code == "upstream.unreachable"
                assert "secret" not in sink.detail
            assert len(pool_of(transport, host)) == 0
        await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_look_ups_are_shared(run: Run) -> None:
    """Many requests to one name ask once; the answer is kept for a while; one that gives up takes it from nobody."""

    async def main() -> None:
        asked: list[str] = []
        go = asyncio.Event()

        async def resolve(hostname: str, port: int) -> list[tuple[int, str]]:
            asked.append(hostname)
            await go.wait()
            return [(2, "127.0.0.1")]

        async with Upstream(lambda request: [answer(b"ok"), close]) as upstream:
            clock = Clock()
            transport = HttpTransport(resolve=resolve, now=clock, tick_s=3600.0, resolve_keep_s=30.0)
            host = host_at(f"http://name.test:{upstream.port}")
            first = transport.send(host, CHAT, Recorder())
            sinks = [ask(transport, host) for _ in range(5)]
            await turns()
            first.close()
            await turns()
            go.set()
            for sink in sinks:
                assert (await sink.over()).code == ""
            await until(lambda: len(pool_of(transport, host)) == 0)
            await ask(transport, host).over()
            assert asked == ["name.test"]
            await until(lambda: len(pool_of(transport, host)) == 0)
            clock.at += 31.0
            await ask(transport, host).over()
            assert asked == ["name.test"] * 2
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_harm_on_the_way(run: Run) -> None:
    """Slices of one byte, delays and a corrupted byte between us and the host: right, or an honest end."""

    async def main() -> None:
        text = STREAM_HEAD + b"".join(chunk(b"data: %d\n\n" % n) for n in range(10)) + LAST_CHUNK
        whole = b"".join(b"data: %d\n\n" % n for n in range(10))
        async with Upstream(lambda request: [text]) as upstream:
            there = ("127.0.0.1", upstream.port)
            slow = Harm(slice_bytes=1, latency_s=0.01, jitter_s=0.01)
            async with FaultProxy(there, up=Harm(slice_bytes=1), down=slow) as proxy:
                transport = HttpTransport()
                sinks = [ask(transport, host_at(f"http://127.0.0.1:{proxy.port}")) for _ in range(20)]
                for sink in sinks:
                    assert (await sink.over()).code == ""
                    assert sink.body == whole
                await transport.stop()
            for harm in (
                Harm(cut_after=120),
                Harm(reset_after=120),
                Harm(half_close_after=120),
                Harm(corrupt_at=len(STREAM_HEAD)),
            ):
                async with FaultProxy(there, down=harm) as proxy:
                    transport = HttpTransport()
                    sink = await ask(transport, host_at(f"http://127.0.0.1:{proxy.port}")).over()
                    assert sink.code in ("upstream.cut", "upstream.nonsense")
                    await transport.stop()

    run(main())


def test_peer_is_told_of_a_close() -> None:
    """A host sees the connection closed within the turn of the loop in which the answer was closed."""

    async def main() -> None:
        gone = asyncio.Event()

        async def watch(peer: Peer) -> None:
            await peer.until_gone()
            gone.set()
            await close(peer)

        async with Upstream(lambda request: [STREAM_HEAD, chunk(b"data: 1\n\n"), watch]) as upstream:
            transport = HttpTransport()
            sink = Recorder()
            inbound = transport.send(host_at(upstream.base_url), CHAT, sink)
            await sink.until(lambda sink: sink.body != b"")
            inbound.close()
            await asyncio.wait_for(gone.wait(), 1)
            await transport.stop()

    asyncio.run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_events(run: Run, seed: int) -> None:
    """Hosts and sinks that do anything in any order: each answer ends at most once, and no slot is ever lost."""

    async def main() -> None:
        chance = random.Random(seed)
        wild = True
        go = asyncio.Event()
        kinds: list[list[Step]] = [
            [answer(b"ok")],
            [answer(b"ok"), close],
            [answer(b"ok") + b"surplus"],
            [close],
            [rst],
            [b"H", rst],
            [b"nonsense\r\n\r\n"],
            [STREAM_HEAD, chunk(b": c\n"), chunk(b"data: 1\n\n"), LAST_CHUNK],
            [STREAM_HEAD, chunk(b"data: 1\n\n"), stall],
            [STREAM_HEAD, chunk(b"data: 1\n\n"), close],
            [stall],
        ]

        def script(request: Request) -> list[Step]:
            return chance.choice(kinds) if wild else [gate(go), answer(b"ok")]

        async with Upstream(script) as upstream:
            clock = Clock()
            transport = HttpTransport(connections_max=5, now=clock, tick_s=3600.0, idle_s=30.0)
            host = host_at(upstream.base_url, first_s=50.0, gap_s=20.0, total_s=100.0)
            under_way: list[tuple[Recorder, Any]] = []
            for _ in range(400):
                sink = Recorder()
                under_way.append((sink, transport.send(host, CHAT, sink)))
                for sink, inbound in chance.sample(under_way, min(3, len(under_way))):
                    act = chance.choice(["pause", "resume", "close", "nothing", "close within", "send within"])
                    if act == "close within":
                        sink.on[chance.choice(["head", "data", "end"])] = inbound.close
                    elif act == "send within":
                        sink.on["end"] = lambda: transport.send(host, CHAT, Recorder())
                    elif act != "nothing":
                        getattr(inbound, act)()
                await turns(chance.randrange(6))
                clock.at += chance.choice([0.0, 0.0, 1.0, 10.0])
                transport.tick()
                pool = transport.pool(host)
                assert pool is None or len(pool) <= 5
            for _, inbound in under_way:
                inbound.close()
            clock.at += 1000.0
            transport.tick()
            assert not transport.active
            assert all(sink.ends <= 1 for sink, _ in under_way)
            assert all("end" not in sink.calls[:-1] for sink, _ in under_way)
            await until(lambda: upstream.open <= 5)
            wild = False
            asked = len(upstream.requests)
            sinks = [ask(transport, host) for _ in range(5)]
            assert pool_of(transport, host).waiting == 0
            await until(lambda: len(upstream.requests) >= asked + 5)
            go.set()
            for sink in sinks:
                assert (await sink.over()).code == ""
            assert (len(pool_of(transport, host)), pool_of(transport, host).idle) == (5, 5)
            await transport.stop()

    run(main())
