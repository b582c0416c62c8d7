"""The four deadlines of a host, with a clock that the test moves; one test lets the real ticker run."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
import uvloop

from faults.sink import CHAT, Clock, Recorder, host_at, turns, until
from faults.upstream import LAST_CHUNK, STREAM_HEAD, Step, Upstream, answer, chunk, gate, stall
from moonpool.transports.http import HttpTransport
from moonpool.words import Outbound

LOOPS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
Run = Callable[..., Any]


def clocked(**settings: Any) -> tuple[HttpTransport, Clock]:
    """A transport whose ticker never comes by itself and whose time is the clock's."""
    clock = Clock()
    return HttpTransport(now=clock, tick_s=3600.0, **settings), clock


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("secure", [True, False], ids=["handshake", "proxy"])
def test_connect(run: Run, secure: bool) -> None:
    """A handshake or a proxy that never answers ends at `connect_s` and leaves no slot taken."""

    async def main() -> None:
        async with Upstream(lambda request: [stall]) as upstream:
            transport, clock = clocked(proxies={} if secure else {"https_proxy": f"http://127.0.0.1:{upstream.port}"})
            base_url = f"https://127.0.0.1:{upstream.port}" if secure else "https://origin.test"
            host = host_at(base_url, connect_s=5.0)
            sink = Recorder()
            transport.send(host, CHAT, sink)
            await upstream.until_open(1)
            clock.at += 4.9
            transport.tick()
            await turns()
            assert sink.calls == []
            clock.at += 0.2
            transport.tick()
            assert sink.code == "upstream.unreachable"
            assert "no connection within 5 s" in sink.detail
            pool = transport.pool(host)
            assert pool is None or len(pool) == 0
            await upstream.until_open(0)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_second_address(run: Run) -> None:
    """An address that does not answer gets only its share of `connect_s`; the next one serves."""

    async def main() -> None:
        authority = trustme.CA()
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("two.test").configure_cert(serving)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        alive = Upstream(lambda request: [answer(b"ok")], context=serving)
        async with alive, Upstream(lambda request: [stall], host="127.0.0.2", port=alive.port) as mute:

            async def resolve(hostname: str, port: int) -> list[tuple[int, str]]:
                return [(2, "127.0.0.2"), (2, "127.0.0.1")]

            transport, clock = clocked(resolve=resolve, context=trusting)
            sink = Recorder()
            transport.send(host_at(f"https://two.test:{alive.port}", connect_s=5.0), CHAT, sink)
            await mute.until_open(1)
            clock.at += 2.4
            transport.tick()
            await turns()
            assert mute.open == 1
            clock.at += 0.2
            transport.tick()
            await sink.over()
            assert (sink.code, sink.body) == ("", b"ok")
            await mute.until_open(0)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    "life",
    [
        [],
        [STREAM_HEAD],
        [STREAM_HEAD, chunk(b": keep-alive\n\n")],
        [STREAM_HEAD, chunk(b": keep-"), chunk(b"alive\n"), chunk(b"\r\n: again\n\n: half")],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"\n\n \r\n"],
        [b"HTTP/1.1 102 Processing\r\n\r\n"],
    ],
    ids=["nothing", "head", "comment", "cut-comments", "blank", "interim"],
)
def test_first(run: Run, life: list[Step]) -> None:
    """Before content comes, comments, blank lines and interim answers are life but never move `first_s`."""

    async def main() -> None:
        async with Upstream(lambda request: [*life, stall]) as upstream:
            transport, clock = clocked()
            sink = Recorder()
            expected = b"".join(part for part in life if isinstance(part, bytes) and part[:4] != b"HTTP")
            transport.send(host_at(upstream.base_url, first_s=10.0, gap_s=60.0), CHAT, sink)
            await upstream.until_asked(1)
            if b"\n" in expected:
                await sink.until(lambda sink: len(sink.body) >= 4)
            clock.at += 9.9
            transport.tick()
            await turns()
            assert sink.ends == 0
            clock.at += 0.2
            transport.tick()
            assert sink.code == "upstream.timeout"
            assert "no content within 10 s" in sink.detail
            assert ("alive" in sink.calls) == (b"\n" in expected)
            await upstream.until_open(0)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    ("life", "content"), [(b": keep-alive\n\n", b"data: 1\n\n"), (b"\n\n", b'{"id":1}')], ids=["stream", "whole"]
)
def test_nine_minutes_of_life(run: Run, life: bytes, content: bytes) -> None:
    """A host that says every 15 s for nine minutes that it is at work, and then answers, is waited for."""

    async def main() -> None:
        beat = asyncio.Event()

        async def wait(peer: object) -> None:
            await beat.wait()
            beat.clear()

        beats = 36
        lives: list[Step] = [part for _ in range(beats) for part in (wait, chunk(life))]
        async with Upstream(lambda request: [STREAM_HEAD, *lives, wait, chunk(content), LAST_CHUNK]) as upstream:
            transport, clock = clocked()
            sink = Recorder()
            transport.send(host_at(upstream.base_url, first_s=600.0, gap_s=60.0), CHAT, sink)
            await upstream.until_asked(1)
            for number in range(beats):
                clock.at += 15.0
                transport.tick()
                beat.set()
                expected = (number + 1) * len(life)
                await sink.until(lambda sink, least=expected: len(sink.body) >= least)
            assert sink.calls.count("alive") == beats
            beat.set()
            await sink.over()
            assert sink.code == ""
            assert sink.body == life * beats + content
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_gap(run: Run) -> None:
    """After content, silence of `gap_s` ends the answer; every body byte, a comment's too, begins the gap anew."""

    async def main() -> None:
        go = asyncio.Event()
        steps: list[Step] = [STREAM_HEAD, chunk(b"data: 1\n\n"), gate(go), chunk(b": still here\n\n"), stall]
        async with Upstream(lambda request: steps) as upstream:
            transport, clock = clocked()
            sink = Recorder()
            transport.send(host_at(upstream.base_url, first_s=10.0, gap_s=60.0), CHAT, sink)
            await sink.until(lambda sink: sink.body != b"")
            transport.tick()
            clock.at += 59.0
            transport.tick()
            go.set()
            await sink.until(lambda sink: b"still" in sink.body)
            transport.tick()
            clock.at += 59.0
            transport.tick()
            assert sink.ends == 0
            clock.at += 1.1
            transport.tick()
            assert sink.code == "upstream.timeout"
            assert "silent for 60 s" in sink.detail
            await upstream.until_open(0)
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_paused_time_is_no_gap(run: Run) -> None:
    """While we do not read, the host's gap and first deadlines stand still; after it they run on from there."""

    async def main() -> None:
        async with Upstream(lambda request: [STREAM_HEAD, chunk(request.body), stall]) as upstream:
            for body, left in ((b"data: 1\n\n", 59.0), (b": no content\n\n", 8.0)):
                transport, clock = clocked()
                sink = Recorder()
                host = host_at(upstream.base_url, first_s=10.0, gap_s=60.0)
                inbound = transport.send(host, Outbound("/chat/completions", body), sink)
                await sink.until(lambda sink: sink.body != b"")
                transport.tick()
                clock.at += 1.0
                inbound.pause()
                inbound.pause()
                clock.at += 1000.0
                transport.tick()
                inbound.resume()
                inbound.resume()
                transport.tick()
                clock.at += left
                transport.tick()
                assert sink.ends == 0
                clock.at += 1.5
                transport.tick()
                assert sink.code == "upstream.timeout"
                await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_total(run: Run) -> None:
    """An answer that goes on for ever ends at `total_s`, paused or not."""

    async def main() -> None:
        async with Upstream(lambda request: [STREAM_HEAD, chunk(b"data: 1\n\n"), stall]) as upstream:
            for paused in (False, True):
                transport, clock = clocked()
                sink = Recorder()
                host = host_at(upstream.base_url, first_s=10.0, gap_s=1e9, total_s=100.0)
                inbound = transport.send(host, CHAT, sink)
                await sink.until(lambda sink: sink.body != b"")
                if paused:
                    inbound.pause()
                clock.at += 99.0
                transport.tick()
                assert sink.ends == 0
                clock.at += 1.1
                transport.tick()
                assert sink.code == "upstream.timeout"
                assert "not finished within 100 s" in sink.detail
                await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_waiting_counts(run: Run) -> None:
    """A request that waits for a connection is bound by `first_s` as well, and leaves the queue when it is late."""

    async def main() -> None:
        async with Upstream(lambda request: [STREAM_HEAD, chunk(b"data: 1\n\n"), stall]) as upstream:
            transport, clock = clocked(connections_max=1)
            first, second = Recorder(), Recorder()
            host = host_at(upstream.base_url, first_s=10.0, gap_s=1000.0)
            running = transport.send(host, CHAT, first)
            await first.until(lambda sink: sink.body != b"")
            transport.send(host, CHAT, second)
            pool = transport.pool(host)
            assert pool is not None
            assert pool.waiting == 1
            clock.at += 10.1
            transport.tick()
            assert second.code == "upstream.timeout"
            assert pool.waiting == 0
            assert first.ends == 0
            running.close()
            await upstream.until_open(0)
            assert len(upstream.requests) == 1
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_the_ticker_runs_by_itself(run: Run) -> None:
    """With the real clock nobody needs to tick: a mute host ends at `first_s`, and an idle connection at `idle_s`."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")] if request.number == 0 else [stall]) as upstream:
            transport = HttpTransport(tick_s=0.01, idle_s=0.05)
            host = host_at(upstream.base_url, first_s=0.05)
            assert (await _send(transport, host)).code == ""
            await upstream.until_open(0)
            assert (await _send(transport, host)).code == "upstream.timeout"
            await until(lambda: transport._timer is None)
            await transport.stop()

    run(main())


async def _send(transport: HttpTransport, host: Any) -> Recorder:
    sink = Recorder()
    transport.send(host, CHAT, sink)
    return await sink.over()
